"""Sends packets that the gateway itself makes, with whatever source they have. It never waits.

The socket is raw and has the IP header included, so the source may be a remote's address. Such
packets leave by OUTPUT: our own rules divert nothing but ICMP and probes there, so that they do not
come back to the engine.
"""

from __future__ import annotations

import socket

from gateway.datapath.errors import DatapathError


class ResetSocket:
    """To be opened before capabilities are given up."""

    def __init__(self) -> None:
        """Raises DatapathError where the process may not open a raw socket."""
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except OSError as error:
            message = f"a raw socket, to send TCP resets, cannot be opened: {error.strerror}"
            raise DatapathError([f"{message} (it needs CAP_NET_RAW)"]) from None
        self._socket.setblocking(False)
        self.sent = 0
        self.failed = 0

    def send(self, packet: bytes) -> None:
        """Send an IPv4 packet to its destination; what the host rejects is counted."""
        try:
            self._socket.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        except OSError:
            self.failed += 1
        else:
            self.sent += 1

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
