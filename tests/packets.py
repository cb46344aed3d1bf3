"""Packets as one line of text, for tests, and back.

``tcp|udp A:P > B:P [flags] [len=N]``, ``echo|echo-reply A > B id=N``, ``ip A > B proto=N``,
``icmp T/C A > B [short] about PACKET``; ``options`` and ``ttl=N`` for any of them but ``icmp``.
TCP is sent with ``seq=N`` and ``acks=N``; without them (0) the gateway knows no numbers, and checks
none. Whatever else stands there is no packet: ``Unreadable``, with the words that are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP, TCPerror, UDPerror
from scapy.packet import Packet, Raw

FLAGS = {"syn": "S", "ack": "A", "fin": "F", "rst": "R", "psh": "P", "urg": "U"}
MARKS = {
    "tcp": {*FLAGS, "options"},
    "udp": {"unsummed", "options"},
    "echo": {"options"},
    "echo-reply": {"options"},
    "ip": {"options"},
}
SETTINGS = {
    "tcp": {"len", "ttl", "seq", "acks"},
    "udp": {"len", "ttl"},
    "echo": {"id", "len", "ttl"},
    "echo-reply": {"id", "len", "ttl"},
    "ip": {"proto", "ttl"},
}
NEEDED = {"echo": {"id"}, "echo-reply": {"id"}, "ip": {"proto"}}
UNSEEN = {"ttl", "seq", "acks"}
"""What ``describe`` does not tell, and nobody can therefore expect to see."""


class Unreadable(ValueError):
    """A line, or a packet, with a word that is not of the language."""


def one_of(word: str, known: Iterable[str], what: str) -> str:
    """The word, if it is known."""
    known = sorted(known)
    if word not in known:
        raise Unreadable(f"unknown {what} {word!r}; known: {', '.join(known) or 'none'}")
    return word


def whole(word: str, what: str) -> int:
    """A number, written in digits."""
    if not re.fullmatch(r"\d+", word):
        raise Unreadable(f"{what} is no number: {word!r}")
    return int(word)


def build(text: str) -> bytes:
    """The bytes of a packet in the language above."""
    return bytes(_scapy(text))


def readable_as_seen(text: str) -> None:
    """Refuse the text of a packet that ``describe`` never gives."""
    _scapy(text)
    for word in text.split():
        if word.partition("=")[0] in UNSEEN:
            raise Unreadable(f"{word!r} is only for packets that are sent: it is not compared")


def _scapy(text: str) -> Packet:
    if " about " in text:
        outer, inner = text.split(" about ", 1)
        match = re.fullmatch(r"icmp (\d+)/(\d+) (\S+) > (\S+)( short)?", outer)
        if match is None:
            raise Unreadable(
                f"no ICMP error: {outer!r}; known: icmp T/C A > B [short] about PACKET"
            )
        kind, code, source, destination, short = match.groups()
        quoted = bytes(_scapy(inner))
        if short:
            quoted = quoted[:28]  # as RFC 792 allows: the IP header and eight bytes
        header = IP(src=_address(source), dst=_address(destination))
        return header / ICMP(type=int(kind), code=int(code)) / Raw(quoted)
    kind, *words = text.split() or [""]
    one_of(kind, [*MARKS, "icmp … about …"], "kind of packet")
    if len(words) < 3 or words[1] != ">":
        raise Unreadable(f"no packet: {text!r}; known: {kind} A > B …")
    settings: dict[str, int] = {}
    marks: set[str] = set()
    for word in words[3:]:
        key, equals, value = word.partition("=")
        if equals:
            one_of(key, SETTINGS[kind], f"setting of {kind}")
        else:
            one_of(word, MARKS[kind], f"word of {kind}")
        if key in settings or key in marks:
            raise Unreadable(f"{key!r} stands twice in {text!r}")
        if equals:
            settings[key] = whole(value, key)
        else:
            marks.add(word)
    if missing := NEEDED.get(kind, set()) - settings.keys():
        raise Unreadable(f"{kind} needs {', '.join(missing)}= in {text!r}")
    options = [IPOption_NOP()] * 4 if "options" in marks else []
    payload = Raw(b"x" * settings.get("len", 0))
    host, port = _endpoint(words[0], kind)
    peer, peer_port = _endpoint(words[2], kind)
    ip = IP(src=host, dst=peer, options=options, ttl=settings.get("ttl", 64))
    if kind == "tcp":
        flags = "".join(letter for name, letter in FLAGS.items() if name in marks)
        tcp = TCP(sport=port, dport=peer_port, flags=flags)
        tcp.seq, tcp.ack = settings.get("seq", 0), settings.get("acks", 0)
        return ip / tcp / payload
    if kind == "udp":
        udp = UDP(sport=port, dport=peer_port)
        if "unsummed" in marks:
            udp.chksum = 0
        return ip / udp / payload
    if kind in ("echo", "echo-reply"):
        number = 8 if kind == "echo" else 0
        return ip / ICMP(type=number, id=settings["id"], seq=1) / payload
    ip.proto = settings["proto"]
    return ip / Raw(b"payload!" * 4)


def _endpoint(text: str, kind: str) -> tuple[str, int]:
    host, colon, port = text.partition(":")
    if bool(colon) != (kind in ("tcp", "udp")):
        raise Unreadable(f"{text!r} is no end of {kind}: tcp and udp have ports, and nothing else")
    return _address(host), whole(port, "port") if colon else 0


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise Unreadable(f"{text!r} is no IPv4 address") from None


def describe(packet: bytes) -> str:
    """A packet in the language above."""
    return _describe(IP(packet))


def _describe(ip: Packet) -> str:
    mark = " options" if ip.ihl and ip.ihl > 5 else ""
    for layer, name in ((TCP, "tcp"), (UDP, "udp"), (TCPerror, "tcp"), (UDPerror, "udp")):
        if not isinstance(ip.payload, layer):
            continue
        l4 = ip.payload
        flags = ""
        if name == "tcp" and l4.flags is not None:
            present = str(l4.flags)
            flags = "".join(f" {word}" for word, letter in FLAGS.items() if letter in present)
        size = len(bytes(l4.payload))
        unsummed = " unsummed" if name == "udp" and l4.chksum == 0 else ""
        return (
            f"{name} {ip.src}:{l4.sport} > {ip.dst}:{l4.dport}{flags}{unsummed}"
            + (f" len={size}" if size else "")
            + mark
        )
    if ip.proto == 1 and isinstance(ip.payload, ICMP):
        icmp = ip.payload
        if icmp.type in (0, 8):
            size = len(bytes(icmp.payload))
            name = "echo" if icmp.type == 8 else "echo-reply"
            return (
                f"{name} {ip.src} > {ip.dst} id={icmp.id}" + (f" len={size}" if size else "") + mark
            )
        if isinstance(icmp.payload, IPerror):
            inner = IP(bytes(icmp.payload))
            short = " short" if len(bytes(inner.payload)) == 8 and inner.proto == 6 else ""
            quoted = _describe(inner) if not short else _short(inner)
            return f"icmp {icmp.type}/{icmp.code} {ip.src} > {ip.dst}{short} about {quoted}{mark}"
    return f"ip {ip.src} > {ip.dst} proto={ip.proto}{mark}"


def _short(inner: Packet) -> str:
    ports = bytes(inner.payload)
    sport, dport = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:4], "big")
    return f"tcp {inner.src}:{sport} > {inner.dst}:{dport}"


def wrong_checksums(packet: bytes) -> list[str]:
    """The checksums of a packet that differ from what scapy computes for it."""
    ip = IP(packet)
    wrong = []
    fresh = IP(packet)
    for layer in (IP, TCP, UDP, ICMP):
        if layer in fresh and not (layer is UDP and fresh[UDP].chksum == 0):
            del fresh[layer].chksum
    computed = IP(bytes(fresh))
    for layer in (IP, TCP, UDP, ICMP):
        if layer in ip and ip[layer].chksum != computed[layer].chksum:
            wrong.append(
                f"{layer.__name__} checksum {ip[layer].chksum:#06x}, "
                f"scapy computes {computed[layer].chksum:#06x}"
            )
    if ICMP in ip and isinstance(ip[ICMP].payload, IPerror):
        quoted = bytes(ip[ICMP].payload)
        inner = IP(quoted)
        if inner.len is not None and inner.len == len(quoted):  # whole: all of it can be verified
            wrong += [f"quoted {problem}" for problem in wrong_checksums(quoted)]
        else:
            header = IP(quoted[: (inner.ihl or 5) * 4])
            del header.chksum
            if IP(bytes(header)).chksum != inner.chksum:
                wrong.append("quoted IP checksum")
    return wrong
