"""Numbered datagrams there and back, to see what is lost, doubled or changed on the way.

``python -m tests.netns.numbered serve ADDRESS`` answers on port 1037; ``… ask ADDRESS COUNT SIZE
SENDS HOW`` sends SENDS times COUNT datagrams of SIZE bytes, and the server the same ones back. HOW is
``plain``, ``segments`` (each COUNT in one call, for the kernel to cut: UDP_SEGMENT) or
``unchecked`` (without a checksum). Prints what did not arrive as it was sent, a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections import Counter

PORT = 1037
UDP_SEGMENT, SO_NO_CHECK = 103, 11  # linux/udp.h, asm-generic/socket.h
ROOM = 8 << 20
PATIENCE = 5.0


def datagram(number: int, size: int) -> bytes:
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


def send(
    s: socket.socket, to: tuple[str, int], count: int, size: int, sends: int, how: str
) -> None:
    s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, how == "unchecked")
    s.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size if how == "segments" else 0)
    for first in range(0, sends * count, count):
        parts = [datagram(number, size) for number in range(first, first + count)]
        for part in [b"".join(parts)] if how == "segments" else parts:
            s.sendto(part, to)
    s.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)


def amiss(got: Counter[bytes], count: int, size: int, sends: int) -> dict[str, int]:
    """What of the datagrams that were sent was not received once, and what else was."""
    sent = {datagram(number, size) for number in range(count * sends)}
    return {
        "missing": len(sent - set(got)),
        "doubled": sum(times - 1 for times in got.values()),
        "changed": len(set(got) - sent),
    }


def receive(s: socket.socket, number: int) -> Counter[bytes]:
    """So many datagrams, or what has come when nothing more does; in any order."""
    got: Counter[bytes] = Counter()
    s.settimeout(PATIENCE)
    with contextlib.suppress(TimeoutError):
        while got.total() < number:
            got[s.recv(65535)] += 1
    return got


def serve(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        s.bind((address, PORT))
        print("up", flush=True)
        got: Counter[bytes] = Counter()
        while True:
            s.settimeout(None)
            data, asker = s.recvfrom(65535)
            if not data.startswith(b"{"):
                got[data] += 1
                continue
            request = json.loads(data)
            how = request.pop("how")
            got += receive(s, request["count"] * request["sends"] - got.total())
            send(s, asker, **request, how=how)
            s.sendto(json.dumps(amiss(got, **request)).encode(), asker)
            got.clear()


def ask(address: str, count: int, size: int, sends: int, how: str) -> list[dict[str, int]]:
    """What was amiss with those that went there, and with those that came back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        send(s, (address, PORT), count, size, sends, how)
        request = {"count": count, "size": size, "sends": sends}
        s.sendto(json.dumps(request | {"how": how}).encode(), (address, PORT))
        got = receive(s, count * sends + 1)
        said = next(data for data in got if data.startswith(b"{"))
        del got[said]
        return [json.loads(said), amiss(got, count, size, sends)]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        _, _, address, count, size, sends, how = sys.argv
        print(json.dumps(ask(address, int(count), int(size), int(sends), how)))
