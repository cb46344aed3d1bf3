"""The echo server and the holding client, against each other on the loopback."""

import asyncio
import socket

from gateway.lab.client import Holder
from gateway.lab.servers import serve_echo

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def test_connections_are_opened_held_echoed_and_reset() -> None:
    async def scenario() -> None:
        port = free_port()
        server, _ = await serve_echo(LOOPBACK, port)
        holder = Holder(LOOPBACK, port)
        opened = await holder.open(300, 10.0)
        assert (opened["open"], opened["failed"], opened["held"]) == (300, {}, 300)
        assert await holder.echo() == {"alive": 300, "held": 300}
        assert holder.close(reset=True) == {"closed": 300}
        assert await holder.echo() == {"alive": 0, "held": 0}
        server.close()

    asyncio.run(scenario())


def test_a_refusal_is_told_from_silence() -> None:
    async def scenario() -> None:
        outcome = await Holder(LOOPBACK, free_port()).open(1, 10.0)
        assert outcome["failed"] == {"Connection refused": 1}

    asyncio.run(scenario())


def test_the_largest_datagram_comes_back_whole() -> None:
    async def scenario() -> None:
        port = free_port()
        _, transport = await serve_echo(LOOPBACK, port)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            asking.connect((LOOPBACK, port))
            payload = bytes(range(256)) * 255
            await loop.sock_sendall(asking, payload)
            assert await loop.sock_recv(asking, 1 << 16) == payload
        transport.close()

    asyncio.run(scenario())
