"""The yardstick (c): what NFQUEUE costs in Python before anything is decided.

``python bare_queue.py NUMBER`` binds the queue with the ``NetfilterQueue`` binding and stays in the
binding's own ``run()``. For each packet it gets the payload, sets the same payload and accepts: no
parsing, no look-up, no change. The garbage collector is frozen and off, and the socket's buffer and
the queue's length are the gateway's own, so that the difference is the gateway's work alone.
"""

from __future__ import annotations

import gc
import sys

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet


def pass_on(packet: Packet) -> None:
    packet.set_payload(packet.get_payload())
    packet.accept()


def main() -> None:
    queue = NetfilterQueue()
    queue.bind(int(sys.argv[1]), pass_on, 4096, COPY_PACKET, sock_len=32 << 20)
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    queue.run()


if __name__ == "__main__":
    main()
