"""A VM's programs: ``python -m tests.netns.client`` reads calls as JSON lines and answers each.

A call is ``[function, arguments]``, with ``function`` one of those below or of ``repetitions.py``;
the answer is what it returns. An OSError becomes its class name: what a program in the VM would see.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from tests.netns.repetitions import exchange_many as exchange_many
from tests.netns.repetitions import exchanged as exchanged
from tests.netns.repetitions import repeat_openings as repeat_openings
from tests.netns.repetitions import slow_digest as slow_digest
from tests.netns.servers import DIGEST, ECHO, SOURCE, WHO, pattern

PATIENCE = 10.0
UDP_SEGMENT = 103  # linux/udp.h; Python's socket module does not name it

held: list[socket.socket] = []


def _socket(kind: int, source: str | None, port: int, patience: float) -> socket.socket:
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(patience)
    if source is not None or port:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((source or "0.0.0.0", port))
    return s


def peer(
    protocol: str, to: str, source: str | None = None, port: int = 0, patience: float = PATIENCE
) -> str:
    """``ip:port`` of the asker as a server sees it."""
    kind = socket.SOCK_DGRAM if protocol == "Udp" else socket.SOCK_STREAM
    with _socket(kind, source, port, patience) as s:
        s.connect((to, WHO))
        if protocol == "Udp":
            s.send(b"?")
        return s.recv(100).decode()


def echo(
    to: str,
    size: int = 100,
    source: str | None = None,
    patience: float = PATIENCE,
    port: int = ECHO,
) -> str:
    """A datagram there and back: ``whole`` or ``changed``."""
    data = pattern(size)
    with _socket(socket.SOCK_DGRAM, source, 0, patience) as s:
        s.connect((to, port))
        s.send(data)
        return "whole" if s.recv(65535) == data else "changed"


def bursts(
    to: str, count: int, length: int = 30, pause: float = 0.0, segmented: bool = False
) -> dict[str, int]:
    """So many datagrams at once, each time through a new socket, and again ``pause`` later: how
    many bursts came back whole, in how many something was overtaken, and by how many at most.

    ``segmented``: ten at a time, which the device (or the kernel before it) cuts up.
    """
    whole = overtaken = farthest = 0
    for _ in range(count):
        with _socket(socket.SOCK_DGRAM, None, 0, 2.0) as s:
            s.connect((to, ECHO))
            for again in range(2 if pause else 1):
                time.sleep(pause * again)
                datagrams = [b"%4d" % number + bytes(96) for number in range(length)]
                if segmented:
                    s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
                    datagrams = [b"".join(datagrams[at : at + 10]) for at in range(0, length, 10)]
                for datagram in datagrams:
                    s.send(datagram)
                seen: list[int] = []
                while len(seen) < length:
                    try:
                        seen.append(int(s.recv(2000)[:4]))
                    except OSError:
                        break
                whole += len(seen) == length
                behind = [max(seen[:at], default=0) - number for at, number in enumerate(seen)]
                overtaken += max(behind, default=0) > 0
                farthest = max(farthest, *behind, 0)
    return {"whole": whole, "overtaken": overtaken, "farthest": farthest}


def stream(to: str, seconds: float) -> dict[str, int]:
    """Datagrams there and back for so long, dozens under way at a time: how many were ``sent``,
    ``lost``, and came back after one that was sent later (``overtaken``)."""
    sent = got = overtaken = 0
    latest = -1
    with _socket(socket.SOCK_DGRAM, None, 0, PATIENCE) as s:
        s.connect((to, ECHO))
        end = time.monotonic() + seconds
        while got < sent or time.monotonic() < end:
            while sent - got < 30 and time.monotonic() < end:
                s.send(b"%8d" % sent)
                sent += 1
            try:
                number = int(s.recv(100))
            except OSError:
                break
            got += 1
            overtaken += number < latest
            latest = max(latest, number)
    return {"sent": sent, "lost": sent - got, "overtaken": overtaken}


def udp_open(to: str, port: int) -> str:
    """A socket of one's own that stays: something there and back through it."""
    s = _socket(socket.SOCK_DGRAM, None, 0, PATIENCE)
    s.connect((to, port))
    held.append(s)
    return udp_again()


def udp_again(patience: float = PATIENCE) -> str:
    """The same through the socket that stayed."""
    data = pattern(100)
    held[-1].settimeout(patience)
    held[-1].send(data)
    return "whole" if held[-1].recv(65535) == data else "changed"


def listen(port: int) -> None:
    """An echo server in the VM, UDP."""
    s = _socket(socket.SOCK_DGRAM, None, port, PATIENCE)
    s.settimeout(None)

    def serve() -> None:
        while True:
            data, asker = s.recvfrom(65535)
            s.sendto(data, asker)

    threading.Thread(target=serve, daemon=True).start()


def upload(to: str, size: int) -> bool:
    """Send ``size`` bytes by TCP; whether the server got them right."""
    data = pattern(size)
    with _socket(socket.SOCK_STREAM, None, 0, 60) as s:
        s.connect((to, DIGEST))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        return s.recv(100).decode() == hashlib.sha256(data).hexdigest()


def download(to: str, size: int) -> bool:
    """Receive ``size`` bytes by TCP; whether they are right."""
    with _socket(socket.SOCK_STREAM, None, 0, 60) as s:
        s.connect((to, SOURCE))
        s.sendall(b"%d\n" % size)
        got = bytearray()
        while data := s.recv(1 << 18):
            got += data
        return bytes(got) == pattern(size)


# -- many TCP connections, which stay until they are told otherwise


def open(count: int, to: str, port: int = ECHO, source: str | None = None) -> None:
    """Begin so many more connections; whether they come about, ``connections`` tells."""
    for _ in range(count):
        s = _socket(socket.SOCK_STREAM, source, 0, 0)
        s.connect_ex((to, port))
        held.append(s)


def connections() -> dict[str, int]:
    """How many are ``connected``, still ``pending``, or ``failed``."""
    poll = select.poll()
    for s in held:
        poll.register(s, select.POLLOUT)
    ready = dict(poll.poll(0))
    count = {"connected": 0, "pending": 0, "failed": 0}
    for s in held:
        count[_state(ready.get(s.fileno(), 0))] += 1
    return count


def _state(events: int) -> str:
    if events & (select.POLLERR | select.POLLHUP):
        return "failed"
    return "connected" if events & select.POLLOUT else "pending"


def _connected() -> list[socket.socket]:
    poll = select.poll()
    for s in held:
        poll.register(s, select.POLLOUT)
    ready = dict(poll.poll(0))
    return [s for s in held if _state(ready.get(s.fileno(), 0)) == "connected"]


def talk(patience: float = PATIENCE) -> int:
    """Something there and back on each connection that there is; on how many it came back."""
    good = 0
    connected = _connected()
    for number, s in enumerate(connected):
        s.send(b"%8d" % number)
    for number, s in enumerate(connected):
        s.settimeout(patience)
        try:
            good += s.recv(100) == b"%8d" % number
        except OSError:
            pass
        finally:
            s.settimeout(0)
    return good


def talk_all(patience: float = PATIENCE) -> int:
    """The same on every one that was opened, with this patience for all of them together."""
    end = time.monotonic() + patience
    asked, good = [], 0
    for number, s in enumerate(held):
        try:
            s.send(b"%8d" % number)
        except OSError:
            continue
        asked.append((number, s))
    for number, s in asked:
        s.settimeout(max(0.001, end - time.monotonic()))
        try:
            good += s.recv(100) == b"%8d" % number
        except OSError:
            pass
        finally:
            s.settimeout(0)
    return good


def await_one(port: int) -> None:
    """Hold the one connection that comes to a port; greet it, so that it is established."""
    server = _socket(socket.SOCK_STREAM, None, port, PATIENCE)
    server.listen()

    def serve() -> None:
        with server:
            s = server.accept()[0]
        s.send(b"hello")
        held.append(s)

    threading.Thread(target=serve, daemon=True).start()


def begin(to: str, port: int) -> str:
    """Hold a connection whose server has greeted, and been answered."""
    s = _socket(socket.SOCK_STREAM, None, 0, PATIENCE)
    s.connect((to, port))
    held.append(s)
    greeting = s.recv(100).decode()
    s.send(b"and you")
    return greeting


def fate(patience: float, stray: bool = False) -> str:
    """How the connection that is held ends: an error's name; ``TimeoutError`` if it does not."""
    s = held[-1]
    s.settimeout(patience)
    try:
        if stray:
            s.send(b"are you there?")
        while s.recv(100):
            pass
    except OSError as error:
        return type(error).__name__
    return "closed"


def reset(count: int) -> None:
    """End so many of the connections with RST."""
    for s in _connected()[:count]:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        held.remove(s)


def close() -> None:
    """Forget all connections, those that are pending with them."""
    for s in held:
        s.close()
    held.clear()


def craft(packets: str) -> None:
    """Send packets that are written as a scapy expression; many, if it is a list."""
    from scapy import all as scapy

    scapy.send(eval(packets, vars(scapy)), verbose=0)


def who_has(addresses: list[str]) -> list[str]:
    """The hardware address that answers for each address on ``eth0``."""
    from scapy.all import ARP, Ether, srp1

    asked = [Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=address) for address in addresses]
    return [srp1(question, iface="eth0", timeout=PATIENCE, verbose=0).hwsrc for question in asked]


# -- load


class Load:
    """A thread that works until it is stopped, and what it counted."""

    def __init__(self, work: Callable[[Load], None]) -> None:
        self.count: dict[str, int] = {}
        self.stop = threading.Event()
        self._thread = threading.Thread(target=work, args=(self,), daemon=True)
        self._thread.start()

    def end(self) -> dict[str, int]:
        self.stop.set()
        self._thread.join()
        return self.count

    def add(self, what: str) -> None:
        self.count[what] = self.count.get(what, 0) + 1


loads: list[Load] = []


def keep_asking(to: str, patience: float = PATIENCE) -> None:
    """One datagram after the other, each when the one before is back."""

    def work(load: Load) -> None:
        with _socket(socket.SOCK_DGRAM, None, 0, patience) as s:
            s.connect((to, ECHO))
            while not load.stop.is_set():
                load.add("sent")
                s.send(b"%d" % load.count["sent"])
                try:
                    if s.recv(100) == b"%d" % load.count["sent"]:
                        load.add("answered")
                except OSError as error:
                    load.add(type(error).__name__)

    loads.append(Load(work))


def keep_sending(
    to: str, rate: float = 2000, source: str | None = None, ports: int | None = None
) -> None:
    """Datagrams at a bounded rate, whether or not anyone is there.

    Each is from a new port, or in turn from so many of them.
    """

    def work(load: Load) -> None:
        port = 0
        while not load.stop.is_set():
            for _ in range(20):
                port = 0 if ports is None else 20000 + (port + 1) % ports
                with _socket(socket.SOCK_DGRAM, source, port, 0) as s:
                    try:
                        s.sendto(b"x" * 50, (to, ECHO))
                    except OSError as error:
                        load.add(type(error).__name__)
                    load.add("sent")
            time.sleep(20 / rate)

    loads.append(Load(work))


def keep_talking() -> None:
    """A few bytes on the connection that is held, again and again, so that it does not idle."""
    s = held[-1]

    def work(load: Load) -> None:
        while not load.stop.wait(0.1):
            s.send(b"still here")
            load.add("sent")

    loads.append(Load(work))


def keep_connecting(to: str, source: str | None = None) -> None:
    """TCP connections, one after the other."""

    def work(load: Load) -> None:
        while not load.stop.is_set():
            try:
                with _socket(socket.SOCK_STREAM, source, 0, 0.2) as s:
                    s.connect((to, ECHO))
                    s.send(b"x")
                    s.recv(1)
                    load.add("connected")
            except OSError as error:
                load.add(type(error).__name__)

    loads.append(Load(work))


def counts() -> list[dict[str, int]]:
    """What the loads have counted so far."""
    return [load.count for load in loads]


def stop() -> list[dict[str, int]]:
    """End the loads; their counts."""
    counts = [load.end() for load in loads]
    loads.clear()
    return counts


def scatter(count: int, network: str, pace_by: str) -> int:
    """A datagram to each of so many addresses of a network, waiting now and then for an echo of
    ``pace_by``, so that no queue on the way overflows. How many echoes came. Each is asked for by a
    flow of its own: one that lives might overtake what waits in the queue."""
    addresses = ipaddress.ip_network(network)
    echoes = 0
    with _socket(socket.SOCK_DGRAM, None, 0, PATIENCE) as s:
        for number in range(count):
            s.sendto(b"x", (str(addresses[number]), ECHO))
            if number % 250 == 249:
                with _socket(socket.SOCK_DGRAM, None, 0, PATIENCE) as pace:
                    pace.connect((pace_by, ECHO))
                    pace.send(b"%d" % number)
                    echoes += pace.recv(100) == b"%d" % number
    return echoes


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = globals()[name](**arguments)
        except OSError as error:
            answer = type(error).__name__
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
