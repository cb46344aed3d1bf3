"""Announces the public IPs by ARP on the outside network, and answers ARP probes for them.

Neighbours that knew a public IP at another hardware address (of the host that had it before, of an
interface that was replaced) continue sending there until their entry ages. So each is announced
(RFC 5227, section 2.3) when a gateway starts or a public IP is added, and when the outside
interface came back, or has another hardware address: twice, two seconds apart. The kernel answers
for a proxied address, but not an ARP probe (section 2.1.1, without a sender's address), by which a
host finds out whether an address is free: those, and no others, are answered here.

Nothing here waits, and what cannot be sent is not sent: the kernel's own answers are enough for
the sender.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address
from struct import Struct

from gateway.datapath.host.netlink_tables import LinkState, Tables

ANNOUNCEMENTS, INTERVAL = 2, 2.0  # RFC 5227: ANNOUNCE_NUM, ANNOUNCE_INTERVAL
PER_LOOK = 128
"""Announcements that one look sends, and probes that one reading answers; the rest comes next."""

_PROTOCOL = 0x0806
_FRAME = Struct("!6s6sH HHBBH 6s4s6s4s 18x")  # Ethernet and ARP, padded to the least length
_REQUEST, _REPLY = 1, 2
_EVERYBODY, _NOBODY = b"\xff" * 6, bytes(6)
_SO_ATTACH_FILTER = 26
_PACKET_BROADCAST = 1
# Classic BPF: code, jump if true, if false, operand. A request without a sender's IPv4 address.
_PROBES = (
    (0x28, 0, 0, 20), (0x15, 0, 3, _REQUEST), (0x20, 0, 0, 28), (0x15, 0, 1, 0),
    (0x06, 0, 0, 64), (0x06, 0, 0, 0),
)  # fmt: skip


class Announcer:
    """Speaks ARP on the outside interface, for the public IPs that it is given."""

    def __init__(self, outside: str) -> None:
        """Where the process may not open a packet socket, ``silent`` has the reason why it is
        inactive."""
        self._outside = outside
        self._addresses: set[IPv4Address] = set()
        self._left: dict[IPv4Address, int] = {}
        self._due = 0.0
        self._link: LinkState | None = None
        self._socket: socket.socket | None = None
        self.silent = ""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        except OSError as error:
            self.silent = f"public IPs are not announced by ARP: no packet socket: {error.strerror}"
        self.announced = 0
        self.answered = 0

    def fileno(self) -> int:
        """The socket to poll for reading: ``answer`` then. -1: there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def carries(self) -> bool:
        """Whether the interface was up, and plugged in, at the last look."""
        return self._link is not None

    def speak_for(self, addresses: Iterable[IPv4Address]) -> None:
        """These are the public IPs from now on; new ones are announced."""
        addresses = set(addresses)
        self._left |= dict.fromkeys(addresses - self._addresses, ANNOUNCEMENTS)
        self._left = {address: n for address, n in self._left.items() if address in addresses}
        self._addresses = addresses
        self._due = 0.0

    def look(self, now: float) -> None:
        """Announce what is due; all, if the interface came back or is another one."""
        with Tables() as tables:
            link = tables.link(self._outside)
        if link is None or not link.carries:
            self._link = None
            return
        if link != self._link:
            self._listen()
            self._link = link
            self._left = dict.fromkeys(self._addresses, ANNOUNCEMENTS)
            self._due = 0.0
        if self._left and now >= self._due:
            self._announce(link, now)

    def answer(self) -> None:
        """Answer the probes that came for a public IP."""
        link, ear = self._link, self._socket
        if ear is None:
            return
        for _ in range(PER_LOOK):
            try:
                frame, (_, _, kind, *_) = ear.recvfrom(64)
            except BlockingIOError:
                return
            except OSError:  # the interface went down or away
                continue
            if link is None or kind > _PACKET_BROADCAST or len(frame) < 42:
                continue
            asker, wanted = frame[22:28], IPv4Address(frame[38:42])
            if wanted in self._addresses and asker != link.hardware:
                self.answered += 1
                self._send(link, asker, _REPLY, wanted, asker, bytes(4))

    def close(self) -> None:
        """Announce no public IP any more."""
        if self._socket is not None:
            self._socket.close()

    def _listen(self) -> None:
        program = b"".join(Struct("=HBBI").pack(*instruction) for instruction in _PROBES)
        buffer = ctypes.create_string_buffer(program)
        filter_ = Struct("@HP").pack(len(_PROBES), ctypes.addressof(buffer))
        if self._socket is not None:
            with suppress(OSError):  # it went again: the next look finds out
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
                self._socket.bind((self._outside, _PROTOCOL))

    def _announce(self, link: LinkState, now: float) -> None:
        most = max(self._left.values())
        turn = [address for address, left in self._left.items() if left == most][:PER_LOOK]
        for address in turn:
            self.announced += self._socket is not None
            self._send(link, _EVERYBODY, _REQUEST, address, _NOBODY, address.packed)
            self._left[address] -= 1
            if not self._left[address]:
                del self._left[address]
        if self._left and max(self._left.values()) < most:
            self._due = now + INTERVAL

    def _send(
        self,
        link: LinkState,
        to: bytes,
        operation: int,
        sender: IPv4Address,
        target: bytes,
        about: bytes,
    ) -> None:
        if self._socket is None or len(link.hardware) != len(_NOBODY):
            return  # no Ethernet
        frame = _FRAME.pack(
            to, link.hardware, _PROTOCOL,
            1, 0x0800, 6, 4, operation,
            link.hardware, sender.packed, target, about,
        )  # fmt: skip
        with suppress(OSError):
            self._socket.send(frame)
