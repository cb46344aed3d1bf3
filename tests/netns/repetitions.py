"""Of a VM's programs (``client.py``): many short TCP connections at once, and segments repeated."""

from __future__ import annotations

import hashlib
import socket
import threading
import time

from tests.netns.servers import DIGEST, ECHO, pattern

ended: list[str] = []
running: list[threading.Thread] = []


def exchange_many(
    count: int, to: str, half_closed_to: int | None = None, patience: float = 120
) -> None:
    """Begin so many short connections at once; how they end, ``exchanged`` tells.

    Every other one is half-closed: the server answers what it has read to the end. With
    ``half_closed_to``, a port, all are.
    """

    def exchange(number: int) -> None:
        half_closed = number % 2 or half_closed_to
        data = pattern(500 + number)
        try:
            with socket.create_connection(
                (to, (half_closed_to or DIGEST) if half_closed else ECHO), patience
            ) as s:
                s.sendall(data)
                if half_closed:
                    s.shutdown(socket.SHUT_WR)
                    data = hashlib.sha256(data).hexdigest().encode()
                got = b""
                while len(got) < len(data) and (more := s.recv(65536)):
                    got += more
                ended.append("whole" if got == data else "cut short")
        except OSError as error:
            ended.append(type(error).__name__)

    for number in range(count):
        running.append(threading.Thread(target=exchange, args=[number], daemon=True))
        running[-1].start()


def exchanged() -> dict[str, int]:
    """How many of them ended how."""
    for thread in running:
        thread.join()
    counts = {how: ended.count(how) for how in ended}
    running.clear()
    ended.clear()
    return counts


def slow_digest(port: int, after: float) -> None:
    """A server that reads to the end, waits and answers with the SHA-256 in hexadecimal."""
    server = socket.create_server(("", port), backlog=1000)

    def answer(s: socket.socket) -> None:
        with s:
            digest = hashlib.sha256()
            while data := s.recv(65536):
                digest.update(data)
            time.sleep(after)
            s.sendall(digest.hexdigest().encode())

    def serve() -> None:
        while True:
            threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def repeat_openings(interface: str, after: float) -> None:
    """Send every SYN and SYN-ACK that leaves once more, so many seconds later."""
    from scapy.all import TCP, Ether

    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((interface, 0))

    def listen() -> None:
        while True:
            frame, (_, _, kind, *_) = tap.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING:
                continue
            packet = Ether(frame)
            if TCP in packet and packet[TCP].flags & 2:
                del packet[TCP].chksum  # the device had yet to finish it
                threading.Timer(after, tap.send, [bytes(packet)]).start()

    threading.Thread(target=listen, daemon=True).start()
