"""Lists all flows over a daemon's socket again and again until its standard input ends.

``python -m bench.lister SOCKET``; prints how many listings came to their end. It throws the answer
away as it comes: reading it must not be what holds the daemon up.
"""

from __future__ import annotations

import select
import socket
import sys

REQUEST = b"GET /v1/flows HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def listing(path: str) -> bool:
    """One listing; whether it was answered whole."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(REQUEST)
        tail = head = connection.recv(65536)
        while part := connection.recv(1 << 20):
            tail = (tail + part)[-5:]
    return head.startswith(b"HTTP/1.1 200") and tail.endswith(b"0\r\n\r\n")


def main() -> None:
    done = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        if not listing(sys.argv[1]):
            sys.exit("lister: the listing was not answered whole")
        done += 1
    print(done)


if __name__ == "__main__":
    main()
