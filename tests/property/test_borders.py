"""Whatever arrives in whatever order: what leaves by a side has only addresses of that side.

Packets of few addresses and ports come by every way in, errors that quote any of them too, so that
flows of one way are met by packets of another: a route that changed, a VM that forges.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from gateway.core.engine import Engine
from gateway.core.ingress import IngressPath
from tests.scenario import configuration, wrong_checksums

CONFIGURATION = configuration("""
gateway: {inside: [lan0, lan1], outside: wan0, icmpEcho: translate}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: a, addressPrefix: 10.0.1.0/24}
    - {name: b, addressPrefix: 10.0.2.0/24}
publicIPAddresses:
  - {name: d, ipAddress: 203.0.113.10}
  - {name: i, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.2.4, publicIPAddress: i}
""")
NETWORK = IPv4Network("10.0.0.0/16")
VMS = ["10.0.1.4", "10.0.2.4"]
PUBLIC = ["203.0.113.10", "203.0.113.30"]
OTHERS = ["198.51.100.1", "10.0.9.9", "192.168.1.1", "203.0.113.1"]

addresses = st.sampled_from([*VMS, *VMS, *PUBLIC, *OTHERS])
ports = st.sampled_from([80, 1024, 40000])
flags = st.sampled_from(["S", "SA", "A", "FA", "R"])


@st.composite
def plain(draw: Any) -> Any:
    source, destination = draw(addresses), draw(addresses)
    ip = IP(src=source, dst=destination)
    match draw(st.sampled_from(["tcp", "udp", "echo", "reply", "gre"])):
        case "tcp":
            return ip / TCP(sport=draw(ports), dport=draw(ports), flags=draw(flags))
        case "udp":
            return ip / UDP(sport=draw(ports), dport=draw(ports))
        case "echo":
            return ip / ICMP(type=8, id=7)
        case "reply":
            return ip / ICMP(type=0, id=7)
        case _:
            return IP(src=source, dst=destination, proto=47) / Raw(b"\0" * 16)


@st.composite
def error(draw: Any, of: Any) -> Any:
    quoted = bytes(draw(of))[: draw(st.sampled_from([28, 60]))]
    kind = draw(st.sampled_from([3, 11, 12]))
    return IP(src=draw(addresses), dst=draw(addresses)) / ICMP(type=kind) / Raw(quoted)


packets = st.one_of(plain(), plain(), error(plain()))
arrivals = st.sampled_from([*list(IngressPath)[:6], IngressPath.LATERAL, IngressPath.OUTBOUND])


def private(address: str) -> bool:
    return IPv4Address(address) in NETWORK


def quoted_ends(ip: Any) -> list[str]:
    if ICMP not in ip or ip[ICMP].type not in (3, 11, 12):
        return []
    quote = bytes(ip[ICMP].payload)
    return [str(IPv4Address(quote[at : at + 4])) for at in (12, 16)]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(packets, arrivals), min_size=4, max_size=40))
def test_what_leaves_by_a_side_has_only_addresses_of_that_side(
    arriving: list[tuple[Any, IngressPath]],
) -> None:
    engine = Engine(CONFIGURATION, seed=3)
    seen: list[Any] = []
    for packet, arrival in arriving:
        data = bytes(packet)
        verdict = engine.handle(data, arrival, 0.0)
        if verdict is None:
            continue
        assert not wrong_checksums(verdict)
        ip = IP(verdict)
        seen.append(f"{arrival.name}: {packet.summary()} -> {ip.summary()}")
        where = "\n".join(seen)
        if arrival in (IngressPath.OUTBOUND, IngressPath.OUTBOUND_IN_FRAGMENTS):
            assert ip.src in PUBLIC, where
            assert not any(map(private, [ip.dst, *quoted_ends(ip)])), where
        elif arrival is IngressPath.LOCAL_ERROR:
            assert not any(map(private, [ip.src, ip.dst, *quoted_ends(ip)])), where
        elif arrival in (IngressPath.INBOUND, IngressPath.INBOUND_IN_FRAGMENTS):
            assert ip.dst in VMS, where
            assert not private(ip.src), where
        elif arrival in (IngressPath.HAIRPIN, IngressPath.HAIRPIN_IN_FRAGMENTS):
            if packet.dst in PUBLIC:
                assert ip.dst in VMS, where
                assert ip.src in PUBLIC, where
            elif verdict is not data:  # this host began it by a public IP
                assert ip.src in PUBLIC, where
                assert ip.dst == packet.dst, where
        elif arrival is IngressPath.LATERAL:
            if verdict is data:
                assert private(ip.src), where
                assert private(ip.dst), where
            else:  # likewise another network of this host's
                assert ip.src in PUBLIC, where
                assert not any(map(private, [ip.dst, *quoted_ends(ip)])), where
