"""What a VM's programs do with the internet, at random: ``python -m tests.netns.exchanges SEED COUNT``.

Each exchange is one of those below, chosen and sized by the seed; printed is what each came to, as
the program saw it, in JSON. ``serve`` instead of the seed: servers with manners of their own.
"""

from __future__ import annotations

import errno
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests.netns.client import bursts, download, echo, upload
from tests.netns.servers import ECHO, pattern
from tests.netns.topology import FAR, SERVER, SERVER2, SERVER3

RUDE, SILENT, CLOSED = 2001, 2002, 2003
PATIENCE = 10.0
IP_TTL, IP_RECVERR, IP_MTU_DISCOVER, DO_NOT_FRAGMENT = 2, 11, 10, 2
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: an RST instead of a FIN


def _connect(to: str, port: int) -> socket.socket:
    return socket.create_connection((to, port), PATIENCE)


def _read(s: socket.socket) -> bytes:
    got = bytearray()
    while data := s.recv(1 << 16):
        got += data
    return bytes(got)


def tcp_echo(chance: random.Random, to: str) -> list[int]:
    """Lines there and back, one after the other."""
    sizes = [chance.randrange(1, 20_000) for _ in range(chance.randrange(1, 5))]
    with _connect(to, ECHO) as s:
        for size in sizes:
            s.sendall(pattern(size))
            got = b""
            while len(got) < size:
                got += s.recv(1 << 16)
            assert got == pattern(size)
    return sizes


def sent(chance: random.Random, to: str) -> bool:
    return upload(to, chance.randrange(1, 400_000))


def received(chance: random.Random, to: str) -> bool:
    return download(to, chance.randrange(1, 400_000))


def broken_off(chance: random.Random, to: str) -> str:
    """The VM resets."""
    with _connect(to, ECHO) as s:
        s.sendall(b"x" * chance.randrange(1, 5000))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    return "reset"


def put_off(chance: random.Random, to: str) -> str:
    """The server resets."""
    with _connect(SERVER, RUDE) as s:
        s.sendall(b"x")
        return repr(s.recv(100))


def half_closed(chance: random.Random, to: str) -> str:
    """The server has no more to say, and hears all that the VM has."""
    size = chance.randrange(1, 60_000)
    with _connect(SERVER, SILENT) as s:
        said = _read(s)
        time.sleep(0.05)
        s.sendall(bytes(size))
        s.shutdown(socket.SHUT_WR)
    return said.decode()


def tcp_closed(chance: random.Random, to: str) -> None:
    _connect(to, CLOSED).close()


def udp_echo(chance: random.Random, to: str) -> str:
    return echo(to, chance.choice((1, 30, 500, 1400, 3000, 9000)))


def udp_burst(chance: random.Random, to: str) -> dict[str, int]:
    return bursts(to, 2, length=chance.randrange(5, 40), pause=0.01)


def udp_closed(chance: random.Random, to: str) -> str:
    """Nobody is there, which ICMP says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect((to, CLOSED))
        s.send(b"?")
        return repr(s.recv(10))


def too_large(chance: random.Random, to: str) -> str:
    """A narrow place on the way, which ICMP says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO_NOT_FRAGMENT)
        s.connect((FAR, ECHO))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            s.send(bytes(1400))
            time.sleep(0.02)
    return "sent"


def too_far(chance: random.Random, to: str) -> str:
    """More routers than the TTL has it, which ICMP says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        s.setsockopt(socket.IPPROTO_IP, IP_TTL, chance.choice((1, 2)))
        s.settimeout(PATIENCE)
        s.connect((FAR, ECHO))
        s.send(b"?")
        return repr(s.recv(10))


def ping(chance: random.Random, to: str) -> int:
    done = subprocess.run(["ping", "-n", "-c1", "-W1", to], capture_output=True, check=False)
    return done.returncode


KINDS: list[Callable[[random.Random, str], object]] = [
    tcp_echo, sent, received, broken_off, put_off, half_closed, tcp_closed, udp_echo, udp_burst,
    udp_closed, too_far,
]  # fmt: skip


def main(seed: str, count: int) -> None:
    chance = random.Random(seed)
    results = []
    # Once each: ping takes a second where nobody answers, and a path MTU is remembered.
    for kind in [*(chance.choice(KINDS) for _ in range(count)), *KINDS, too_large, ping]:
        to = chance.choice((SERVER, SERVER2, SERVER3))
        own = random.Random(chance.random())
        try:
            came_to: object = kind(own, to)
        except OSError as error:
            came_to = errno.errorcode.get(error.errno or 0, type(error).__name__)
        results.append([kind.__name__, to, came_to])
    print(json.dumps(results))


def serve() -> None:
    def rude(s: socket.socket) -> None:
        s.recv(100)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        s.close()

    def silent(s: socket.socket) -> None:
        s.sendall(b"that is all")
        s.shutdown(socket.SHUT_WR)
        _read(s)
        s.close()

    def listen(port: int, talk: Callable[[socket.socket], None]) -> None:
        with socket.create_server((SERVER, port)) as listener:
            while True:
                s, _ = listener.accept()
                threading.Thread(target=talk, args=(s,), daemon=True).start()

    for port, talk in ((RUDE, rude), (SILENT, silent)):
        threading.Thread(target=listen, args=(port, talk)).start()
    time.sleep(0.2)
    print("up", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else main(sys.argv[1], int(sys.argv[2]))
