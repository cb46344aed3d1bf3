"""ICMP errors pass no security group, so they must be errors (docs/fidelity.md A8, docs/rfc.md)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from gateway.core.flows.icmp_errors import LONGEST
from tests.scenario import Scenario, build, wrong_checksums
from tests.unit.core.policy.test_nsg import network, rule
from tests.unit.core.snat.test_outbound_methods import NETWORK

# Two VMs with a flow each: vm1 by SNAT, vm3 by its own public IP.
FLOWS = """
    vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:53
    vm3 sends      udp 10.0.1.6:5000 > 198.51.100.3:53
"""
RECEIVED = "udp 198.51.100.1:53 > 10.0.1.4:5000 len=9"  # by vm1
RECEIVED3 = "udp 198.51.100.3:53 > 10.0.1.6:5000 len=9"
SENT = "udp 203.0.113.10:1024 > 198.51.100.1:53 len=9"
ERRORS = ["3/0", "3/1", "3/3", "3/4", "3/13", "11/0", "11/1", "12/0"]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("who", ["vm1", "vm2", "vm3"])
@pytest.mark.parametrize(
    ("source", "to", "about"),
    [
        ("10.0.1.4", "198.51.100.9", RECEIVED),  # to somebody else
        ("10.0.1.4", "198.51.100.3", RECEIVED),  # to another VM's remote
        ("10.0.1.5", "198.51.100.1", RECEIVED),  # about another VM's flow
        ("10.0.1.1", "198.51.100.1", RECEIVED),
        ("10.0.99.9", "198.51.100.1", RECEIVED),  # from nobody's address
        ("192.0.2.1", "198.51.100.1", RECEIVED),
        ("10.0.1.4", "198.51.100.3", RECEIVED3),
        ("198.51.100.1", "198.51.100.1", RECEIVED),
        ("10.0.1.4", "203.0.113.30", RECEIVED),  # to another VM's public IP
        ("10.0.1.4", "203.0.113.20", RECEIVED),
    ],
)
def test_no_vm_gets_an_error_past_its_groups(
    error: str, who: str, source: str, to: str, about: str
) -> None:
    vm = {"10.0.1.4": "vm1", "10.0.1.5": "vm2"}.get(source)  # by its address: none other is known
    sends = "sends" if who == vm else "forges"
    Scenario(NETWORK).play(
        FLOWS
        + f"""
        {who} {sends}   icmp {error} {source} > {to} about {about}
        dropped        IcmpErrorMisaddressed
        event          PacketsDropped reason=IcmpErrorMisaddressed vm={vm}
        """
    )


@pytest.mark.parametrize("error", ERRORS)
def test_the_vm_that_a_packet_was_for_may_say_so(error: str) -> None:
    Scenario(NETWORK).play(
        FLOWS
        + f"""
        vm1 sends      icmp {error} 10.0.1.4 > 198.51.100.1 about {RECEIVED}
        outside sees   icmp {error} 203.0.113.10 > 198.51.100.1 about udp 198.51.100.1:53 > 203.0.113.10:1024 len=9
        vm3 sends      icmp {error} 10.0.1.6 > 198.51.100.3 about {RECEIVED3}
        outside sees   icmp {error} 203.0.113.30 > 198.51.100.3 about udp 198.51.100.3:53 > 203.0.113.30:5000 len=9
        """
    )


def test_a_flow_in_the_other_direction_is_no_reason() -> None:
    # What the VM itself sent is quoted to it, never by it.
    Scenario(NETWORK).play(
        FLOWS
        + """
        vm1 sends      icmp 3/3 10.0.1.4 > 198.51.100.1 about udp 10.0.1.4:5000 > 198.51.100.1:53
        dropped        IcmpErrorWithoutFlow
        vm1 sends      icmp 3/3 10.0.1.4 > 10.0.1.4 about udp 10.0.1.4:5000 > 198.51.100.1:53
        dropped        IcmpErrorWithoutFlow
        outside sends  icmp 3/3 198.51.100.1 > 203.0.113.10 about udp 198.51.100.1:53 > 203.0.113.10:1024
        dropped        IcmpErrorWithoutFlow
        """
    )


@pytest.mark.parametrize("hop", ["198.51.100.1", "192.0.2.254", "100.64.0.1", "192.168.7.7"])
def test_from_outside_any_hop_may_speak(hop: str) -> None:
    Scenario(NETWORK).play(
        FLOWS
        + f"""
        outside sends  icmp 11/0 {hop} > 203.0.113.10 about {SENT}
        vm1 sees       icmp 11/0 {hop} > 10.0.1.4 about udp 10.0.1.4:5000 > 198.51.100.1:53 len=9
        """
    )


@pytest.mark.parametrize(
    "source", ["10.0.1.5", "10.0.99.9", "168.63.129.16", "203.0.113.30", "127.0.0.1", "224.0.0.1"]
)
def test_from_outside_nobody_borrows_an_address_that_rules_trust(source: str) -> None:
    Scenario(NETWORK).play(
        FLOWS
        + f"""
        outside forges icmp 11/0 {source} > 203.0.113.10 about {SENT}
        dropped        SourceNotOutside
        """
    )


def _error(source: str, to: str, quote: bytes) -> bytes:
    return bytes(IP(src=source, dst=to) / ICMP(type=3, code=3) / Raw(quote))


def _both_ways() -> list[tuple[str, str, str, str]]:
    return [
        ("vm1", "10.0.1.4", "198.51.100.1", RECEIVED),
        ("outside", "192.0.2.254", "203.0.113.10", SENT),
        ("gateway", "203.0.113.1", "198.51.100.1", RECEIVED),
    ]


@pytest.mark.parametrize(("who", "source", "to", "about"), _both_ways())
def test_every_checksum_must_be_right(who: str, source: str, to: str, about: str) -> None:
    scenario = Scenario(NETWORK)
    scenario.play(FLOWS)
    good = _error(source, to, build(about))
    assert scenario.send(who, good) is not None
    for place in (22, 24, 27, len(good) - 1):  # of the error's own sum
        bad = bytearray(good)
        bad[place] ^= 0x10
        assert scenario.send(who, bytes(bad)) is None
        assert scenario.reason() == "IcmpErrorInvalid"
    for place in (8, 10):  # in the quoted header: TTL, checksum; the error's own sum is right
        quote = bytearray(build(about))
        quote[place] ^= 0x10
        assert scenario.send(who, _error(source, to, bytes(quote))) is None
        assert scenario.reason() == "IcmpErrorInvalid"
    quote = bytearray(build(about))
    quote[26] ^= 0x10  # the quoted datagram's, which nobody is to look at (RFC 5508, REQ-3c)
    assert scenario.send(who, _error(source, to, bytes(quote))) is not None


@pytest.mark.parametrize(("who", "source", "to", "about"), _both_ways())
def test_an_error_is_576_bytes_long_at_most(who: str, source: str, to: str, about: str) -> None:
    scenario = Scenario(NETWORK)
    scenario.play(FLOWS)
    datagram = build(about.replace("len=9", "len=1400"))
    longest = scenario.send(who, _error(source, to, datagram[: LONGEST - 28]))
    assert longest is not None
    assert not wrong_checksums(longest)
    assert scenario.send(who, _error(source, to, datagram[: LONGEST - 27])) is None
    assert scenario.reason() == "IcmpErrorInvalid"
    assert scenario.send(who, _error(source, to, datagram[:28])) is not None
    assert scenario.send(who, _error(source, to, datagram[:27])) is None


def test_extensions_of_a_router_arrive_untouched() -> None:
    """RFC 4884: 128 bytes of the packet, then objects (here MPLS), the length in words of four."""
    datagram = build("udp 203.0.113.10:1024 > 198.51.100.1:53 len=300")
    extension = bytes.fromhex("2000 0000 0008 0101 1234 51 40")
    body = datagram[:128] + extension
    packet = IP(src="192.0.2.254", dst="203.0.113.10") / ICMP(type=11, code=0) / Raw(body)
    packet[ICMP].length = 32
    scenario = Scenario(NETWORK)
    scenario.play(FLOWS)
    seen = scenario.send("outside", bytes(packet))
    assert seen is not None
    assert not wrong_checksums(seen)
    assert (IP(seen)[ICMP].length, seen[-len(extension) :]) == (32, extension)


def test_ip_options_of_the_error_and_of_the_quote_are_passed_over() -> None:
    scenario = Scenario(NETWORK)
    scenario.play(FLOWS)
    quote = build("udp 203.0.113.10:1024 > 198.51.100.1:53 len=9 options")
    packet = IP(build("udp 192.0.2.254:1 > 203.0.113.10:1 options"))
    packet.remove_payload()
    packet.proto, packet.len, packet.chksum = 1, None, None
    seen = scenario.send("outside", bytes(packet / ICMP(type=3, code=4) / Raw(quote)))
    assert seen is not None
    assert not wrong_checksums(seen)
    assert (IP(seen).dst, IP(seen).ihl) == ("10.0.1.4", 6)


@pytest.mark.parametrize("end", ["fin ack", "rst"])
def test_an_error_about_a_flow_that_holds_its_port_passes_until_another_has_its_place(
    end: str,
) -> None:
    about = "tcp 203.0.113.10:1024 > 198.51.100.1:443 ack"
    scenario = Scenario(NETWORK)
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 {end}
        outside sends  icmp 3/4 192.0.2.254 > 203.0.113.10 about {about}
        vm1 sees       icmp 3/4 192.0.2.254 > 10.0.1.4 about tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 syn
        outside sends  icmp 3/3 198.51.100.1 > 203.0.113.10 about {about}
        dropped        IcmpErrorWithoutFlow
    """)


def test_between_vms_only_the_flows_two_ends_may_speak_of_it() -> None:
    scenario = Scenario(network())

    def passes(text: str) -> bool:
        return scenario.send_between(build(text)) is not None

    scenario.play("vm1 sends udp 10.0.1.4:5000 > 198.51.100.1:53")
    assert passes("udp 10.0.2.4:4000 > 10.0.1.4:80")
    about, back = "udp 10.0.2.4:4000 > 10.0.1.4:80", "udp 10.0.1.4:80 > 10.0.2.4:4000"
    assert passes(f"icmp 3/3 10.0.1.4 > 10.0.2.4 about {about}")
    assert passes(f"icmp 3/4 10.0.2.4 > 10.0.1.4 about {back}")
    for source, to, quote in (
        ("10.0.1.9", "10.0.2.4", about),  # from a third
        ("198.51.100.1", "10.0.2.4", about),
        ("10.0.1.4", "10.0.2.9", about),  # to a third
        ("10.0.2.4", "10.0.1.4", about),  # by who sent it himself
    ):
        assert not passes(f"icmp 3/3 {source} > {to} about {quote}")
        assert scenario.reason() == "IcmpErrorMisaddressed"
    # A flow to outside is none of theirs.
    assert not passes("icmp 3/3 198.51.100.1 > 10.0.1.4 about udp 10.0.1.4:5000 > 198.51.100.1:53")
    assert not passes("icmp 11/0 10.0.2.4 > 10.0.1.4 about udp 10.0.1.4:5000 > 198.51.100.1:53")


def test_between_vms_replies_to_no_query_and_redirects_pass_no_group() -> None:
    groups = network(subnet=rule("any", 100, "Inbound", "Allow", source="VirtualNetwork"))
    scenario = Scenario(groups)

    def passes(text: str) -> bool:
        return scenario.send_between(build(text)) is not None

    assert not passes("echo-reply 10.0.2.4 > 10.0.1.4 id=7 len=500")
    assert scenario.reason() == "IcmpNotSupported"
    assert not passes("icmp 5/1 10.0.2.4 > 10.0.1.4 about udp 10.0.1.4:1 > 10.0.2.4:2")
    assert passes("echo 10.0.1.4 > 10.0.2.4 id=7")
    assert passes("echo-reply 10.0.2.4 > 10.0.1.4 id=7 len=500")
    assert passes("icmp 3/1 10.0.2.4 > 10.0.1.4 about echo 10.0.1.4 > 10.0.2.4 id=7")


def test_between_vms_that_no_group_judges_what_began_elsewhere_goes_on() -> None:
    scenario = Scenario(NETWORK)
    for text in ("echo-reply 10.0.1.5 > 10.0.1.4 id=7", "tcp 10.0.1.5:1 > 10.0.1.4:2 ack"):
        packet = build(text)
        assert scenario.send("vm2", packet, lateral=True) == packet
    assert len(scenario.engine.flows) == 0


def test_this_host_says_what_it_has_to_say_from_an_address_of_outside() -> None:
    Scenario(NETWORK).play(
        FLOWS
        + f"""
        gateway sends  icmp 3/1 203.0.113.1 > 198.51.100.1 about {RECEIVED}
        outside sees   icmp 3/1 203.0.113.1 > 198.51.100.1 about udp 198.51.100.1:53 > 203.0.113.10:1024 len=9
        gateway sends  icmp 3/1 10.0.1.1 > 198.51.100.1 about {RECEIVED}
        outside sees   icmp 3/1 203.0.113.10 > 198.51.100.1 about udp 198.51.100.1:53 > 203.0.113.10:1024 len=9
        gateway sends  icmp 3/1 203.0.113.1 > 198.51.100.9 about {RECEIVED}
        dropped        IcmpErrorMisaddressed
        gateway sends  icmp 11/0 203.0.113.1 > 10.0.77.7 about udp 10.0.77.7:1 > 198.51.100.1:53
        dropped        PrivateAddressOutside
        """
    )


def test_what_this_host_says_about_its_own_packets_is_nobodys_business() -> None:
    # A fragment's tail, and what is no query, name no flow: neither is it one of the inside.
    scenario = Scenario(NETWORK)
    for about in ("icmp 5/1 198.51.100.1 > 203.0.113.1 about udp 1.1.1.1:1 > 2.2.2.2:2",):
        packet = _error("203.0.113.1", "198.51.100.1", build(about))
        assert scenario.send("gateway", packet) == packet
    tail = bytearray(build("udp 198.51.100.1:9 > 203.0.113.1:9 len=30"))
    tail[7] = 5
    packet = _error("203.0.113.1", "198.51.100.1", bytes(tail))
    assert scenario.send("gateway", packet) == packet
    inside = bytearray(build("udp 198.51.100.1:9 > 10.0.1.4:9 len=30"))
    inside[7] = 5
    assert scenario.send("gateway", _error("203.0.113.1", "198.51.100.1", bytes(inside))) is None


def test_errors_about_a_timestamp_are_translated_too() -> None:
    def stamped(text: str) -> bytes:
        packet = IP(build(text))
        packet[ICMP].type = 13
        del packet.len, packet.chksum, packet[ICMP].chksum
        return bytes(packet)

    scenario = Scenario(NETWORK)
    assert scenario.send("vm3", stamped("echo 10.0.1.6 > 198.51.100.1 id=7 len=12")) is not None
    sent = stamped("echo 203.0.113.30 > 198.51.100.1 id=7 len=12")
    seen = scenario.send("outside", _error("192.0.2.254", "203.0.113.30", sent))
    assert seen is not None
    assert not wrong_checksums(seen)
    assert IP(seen).dst == "10.0.1.6"


@pytest.mark.parametrize("protocol", [4, 47, 50, 132, 253])
def test_other_protocols_pass_between_two_vms_and_so_do_errors_about_them(protocol: int) -> None:
    second = NETWORK.replace(
        "privateIPAddress: 10.0.1.5}", "privateIPAddress: 10.0.1.5, publicIPAddress: pip-b}"
    ).replace("      - {name: fe-b, publicIPAddress: pip-b}\n", "")
    one, two = "203.0.113.30", "203.0.113.21"
    Scenario(second).play(f"""
        vm3 sends      ip 10.0.1.6 > {two} proto={protocol}
        vm2 sees       ip {one} > 10.0.1.5 proto={protocol}
        vm2 sends      icmp 3/4 10.0.1.5 > {one} about ip {one} > 10.0.1.5 proto={protocol}
        vm3 sees       icmp 3/4 {two} > 10.0.1.6 about ip 10.0.1.6 > {two} proto={protocol}
        vm3 sends      ip 10.0.1.6 > 198.51.100.1 proto={protocol}
        outside sends  icmp 3/4 192.0.2.1 > {one} about ip {one} > 198.51.100.1 proto={protocol}
        vm3 sees       icmp 3/4 192.0.2.1 > 10.0.1.6 about ip 10.0.1.6 > 198.51.100.1 proto={protocol}
    """)
