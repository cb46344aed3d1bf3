"""The lab internet's name server: the lab's names, and `myip.opendns.com` as OpenDNS serves it.

`answer` is the whole decision and does no I/O: a query and the address that it came from go in,
a reply comes out. The asyncio protocols below it only carry bytes, over UDP and TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dnslib import QTYPE, RCODE, RR, TXT, A, DNSError, DNSHeader, DNSRecord

from gateway.lab.topology import HOSTS, MYIP

TTL = 0
"""No answer may be cached: each query gets the present state."""
MAXIMUM_UDP_REPLY = 512


Names = Mapping[str, Sequence[str]]


def answer(query: bytes, client: str, hosts: Names = HOSTS) -> bytes | None:
    """The reply to `query` from the address `client`; None to what is no query at all."""
    try:
        request = DNSRecord.parse(query)
    except DNSError:
        return None
    if request.header.qr:
        return None
    if len(request.questions) != 1:
        refused = DNSHeader(id=request.header.id, qr=1, rcode=RCODE.FORMERR)
        return bytes(DNSRecord(refused).pack())
    reply = request.reply(aa=1, ra=1)
    name = str(request.q.qname).rstrip(".").lower()
    kind = QTYPE.get(request.q.qtype)
    if name == MYIP:
        _answer_myip(reply, request.q.qname, kind, client)
    elif name in hosts:
        if kind in ("A", "ANY"):
            for address in hosts[name]:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=TTL))
    else:
        reply.header.rcode = RCODE.NXDOMAIN
    return bytes(reply.pack())


def _answer_myip(reply: Any, name: Any, kind: str, client: str) -> None:
    if kind in ("A", "ANY") and ipaddress.ip_address(client).version == 4:
        reply.add_answer(RR(name, QTYPE.A, rdata=A(client), ttl=TTL))
    elif kind == "TXT":
        reply.add_answer(RR(name, QTYPE.TXT, rdata=TXT(client), ttl=TTL))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, hosts: Names) -> None:
        self._hosts = hosts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = answer(data, addr[0], self._hosts)
        if reply is not None:
            if len(reply) > MAXIMUM_UDP_REPLY:
                reply = bytes(DNSRecord.parse(reply).truncate().pack())
            self.transport.sendto(reply, addr)


async def _serve_stream(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hosts: Names
) -> None:
    """RFC 1035, 4.2.2: each message behind its length in two bytes."""
    client = writer.get_extra_info("peername")[0]
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = answer(await reader.readexactly(length), client, hosts)
            if reply is None:
                break
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
    writer.close()


async def serve(addresses: Sequence[str], port: int = 53, hosts: Names = HOSTS) -> None:
    """Listen on every address, UDP and TCP. Each has its own socket, so replies leave from the
    address that was asked. Raises OSError if one cannot be bound."""
    loop = asyncio.get_running_loop()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _serve_stream(reader, writer, hosts)

    for address in addresses:
        await loop.create_datagram_endpoint(lambda: _Datagrams(hosts), local_addr=(address, port))
        await asyncio.start_server(stream, address, port)
