"""ICMP, other protocols, hairpin and absurd packets (docs/fidelity.md A8, A9; issue: correctness)."""

from ipaddress import IPv4Address

import pytest

from gateway.core.explain import explain_outbound
from gateway.core.ingress import IngressPath
from tests.scenario import Scenario, build, wrong_checksums
from tests.unit.core.snat.test_outbound_methods import NETWORK

TCP_FLOW = """
    vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
    outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
"""


def test_echo_through_snat_is_dropped_by_name_and_seen_in_events() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=7
        dropped        IcmpEchoThroughSnat
        event          PacketsDropped reason=IcmpEchoThroughSnat vm=vm1 remote=198.51.100.1
        outside sends  echo 198.51.100.1 > 203.0.113.10 id=7
        dropped        IcmpEchoThroughSnat
    """)


def test_echo_passes_through_an_instance_level_public_ip_both_ways() -> None:
    Scenario(NETWORK).play("""
        vm3 sends      echo 10.0.1.6 > 198.51.100.1 id=7 len=56
        outside sees   echo 203.0.113.30 > 198.51.100.1 id=7 len=56
        outside sends  echo-reply 198.51.100.1 > 203.0.113.30 id=7 len=56
        vm3 sees       echo-reply 198.51.100.1 > 10.0.1.6 id=7 len=56
        outside sends  echo-reply 198.51.100.1 > 203.0.113.30 id=8
        dropped        IcmpNotSupported
        outside sends  echo 198.51.100.9 > 203.0.113.30 id=9
        vm3 sees       echo 198.51.100.9 > 10.0.1.6 id=9
        vm3 sends      echo-reply 10.0.1.6 > 198.51.100.9 id=9
        outside sees   echo-reply 203.0.113.30 > 198.51.100.9 id=9
        flows          vm3 198.51.100.9 direction=Inbound state=Established
    """)


def test_echo_can_be_translated_where_the_lab_says_so() -> None:
    Scenario(NETWORK.replace("outside: wan0", "outside: wan0, icmpEcho: translate")).play("""
        vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=7
        outside sees   echo 203.0.113.10 > 198.51.100.1 id=1024
        vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=8
        outside sees   echo 203.0.113.10 > 198.51.100.1 id=1025
        vm1 sends      echo 10.0.1.4 > 198.51.100.2 id=9
        outside sees   echo 203.0.113.10 > 198.51.100.2 id=1024
        outside sends  echo-reply 198.51.100.1 > 203.0.113.10 id=1025
        vm1 sees       echo-reply 198.51.100.1 > 10.0.1.4 id=8
        ports          vm1 203.0.113.10 Icmp used=2
    """)


def test_an_all_zero_echo_reply_has_the_one_checksum_that_is_not_zero() -> None:
    scenario = Scenario(NETWORK.replace("outside: wan0", "outside: wan0, icmpEcho: translate"))
    scenario.play("vm1 sends echo 10.0.1.4 > 198.51.100.1 id=0")
    reply = bytearray(build("echo-reply 198.51.100.1 > 203.0.113.10 id=1024"))
    reply[26:28] = b"\0\0"  # the sequence number
    reply[22:24] = (0xFFFF - 1024).to_bytes(2, "big")
    delivered = scenario.send("outside", bytes(reply))
    assert delivered is not None
    assert delivered[22:24] == b"\xff\xff"


@pytest.mark.parametrize("error", ["3/1", "3/3", "3/4", "11/0", "12/0"])
@pytest.mark.parametrize("quote", ["", "short "])
def test_errors_about_a_sent_packet_reach_the_vm_with_its_own_packet(
    error: str, quote: str
) -> None:
    mark = f" {quote.strip()}" if quote else ""
    sent = "tcp 203.0.113.10:1024 > 198.51.100.1:443"
    own = "tcp 10.0.1.4:40000 > 198.51.100.1:443"
    flags = "" if quote else " syn"
    Scenario(NETWORK).play(
        TCP_FLOW
        + f"""
        outside sends  icmp {error} 192.0.2.254 > 203.0.113.10{mark} about {sent}{flags}
        vm1 sees       icmp {error} 192.0.2.254 > 10.0.1.4{mark} about {own}{flags}
        flows          vm1 state=Opening packets_in=0
        """
    )


def test_errors_about_udp_and_echo_are_translated_too() -> None:
    Scenario(NETWORK).play(
        """
        vm1 sends      udp 10.0.1.4:33434 > 198.51.100.1:33434 len=32
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:33434 len=32
        outside sends  icmp 11/0 192.0.2.1 > 203.0.113.10 about \
udp 203.0.113.10:1024 > 198.51.100.1:33434 len=32
        vm1 sees       icmp 11/0 192.0.2.1 > 10.0.1.4 about \
udp 10.0.1.4:33434 > 198.51.100.1:33434 len=32
        vm3 sends      echo 10.0.1.6 > 198.51.100.1 id=9
        outside sends  icmp 11/0 192.0.2.1 > 203.0.113.30 about echo 203.0.113.30 > 198.51.100.1 id=9
        vm3 sees       icmp 11/0 192.0.2.1 > 10.0.1.6 about echo 10.0.1.6 > 198.51.100.1 id=9
    """
    )


def test_errors_from_a_vm_about_a_delivered_packet_are_translated() -> None:
    Scenario(NETWORK).play(
        TCP_FLOW
        + """
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:53
        vm1 sends      icmp 3/3 10.0.1.4 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.1.4:5000 len=9
        outside sees   icmp 3/3 203.0.113.10 > 198.51.100.1 about \
udp 198.51.100.1:53 > 203.0.113.10:1024 len=9
        gateway sends  icmp 3/4 203.0.113.1 > 198.51.100.1 about \
tcp 198.51.100.1:443 > 10.0.1.4:40000 ack len=60
        outside sees   icmp 3/4 203.0.113.1 > 198.51.100.1 about \
tcp 198.51.100.1:443 > 203.0.113.10:1024 ack len=60
        """
    )


def test_errors_that_quote_no_flow_never_carry_a_private_address_out() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      icmp 3/3 10.0.1.4 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.1.4:5000
        dropped        IcmpErrorWithoutFlow
        outside sends  icmp 3/3 198.51.100.1 > 203.0.113.10 about udp 203.0.113.10:1 > 198.51.100.1:2
        dropped        IcmpErrorWithoutFlow
        gateway sends  icmp 11/0 203.0.113.1 > 198.51.100.1 about tcp 198.51.100.1:443 > 10.0.1.4:1 ack
        dropped        IcmpErrorWithoutFlow
        gateway sends  icmp 3/3 203.0.113.1 > 198.51.100.1 about udp 198.51.100.1:9 > 203.0.113.1:9
        outside sees   icmp 3/3 203.0.113.1 > 198.51.100.1 about udp 198.51.100.1:9 > 203.0.113.1:9
        gateway sends  echo 203.0.113.1 > 198.51.100.1 id=1
        outside sees   echo 203.0.113.1 > 198.51.100.1 id=1
    """)


def test_redirects_and_the_like_pass_nowhere() -> None:
    scenario = Scenario(NETWORK)
    for kind in ("5/1", "4/0", "9/0", "10/0"):
        scenario.play(f"""
            vm3 sends      icmp {kind} 10.0.1.6 > 198.51.100.1 about udp 1.1.1.1:1 > 10.0.1.6:2
            dropped        IcmpNotSupported
            vm1 sends      icmp {kind} 10.0.1.4 > 198.51.100.1 about udp 1.1.1.1:1 > 10.0.1.4:2
            dropped        IcmpNotSupported
        """)


@pytest.mark.parametrize("protocol", [4, 33, 41, 47, 50, 51, 132, 136, 200])
def test_other_protocols_pass_one_to_one_through_an_instance_level_public_ip_only(
    protocol: int,
) -> None:
    Scenario(NETWORK).play(f"""
        vm1 sends      ip 10.0.1.4 > 198.51.100.1 proto={protocol}
        dropped        ProtocolNotSupported
        vm3 sends      ip 10.0.1.6 > 198.51.100.1 proto={protocol}
        outside sees   ip 203.0.113.30 > 198.51.100.1 proto={protocol}
        flows          vm3 method=InstanceLevelPublicIP protocol={protocol}
    """)


def test_ip_options_are_kept_and_the_ports_behind_them_translated() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn options
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn options
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack options
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack options
        vm1 sends      udp 10.0.1.4:1 > 198.51.100.1:53 len=5 options
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:53 len=5 options
    """)


def test_a_udp_packet_without_a_checksum_stays_without() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      udp 10.0.1.4:1 > 198.51.100.1:53 unsummed len=5
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:53 unsummed len=5
        vm1 sends      udp 10.0.1.4:1 > 198.51.100.1:53 unsummed options
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:53 unsummed options
        outside sends  udp 198.51.100.1:53 > 203.0.113.10:1024 unsummed
        vm1 sees       udp 198.51.100.1:53 > 10.0.1.4:1 unsummed
        outside sends  udp 198.51.100.1:53 > 203.0.113.10:1024 unsummed
        vm1 sees       udp 198.51.100.1:53 > 10.0.1.4:1 unsummed
    """)


def test_a_wrong_checksum_stays_wrong() -> None:
    scenario = Scenario(NETWORK)
    packet = bytearray(build("udp 10.0.1.4:1 > 198.51.100.1:53 len=8"))
    packet[26] ^= 0x55
    sent = scenario.send("vm1", bytes(packet))
    assert sent is not None
    assert any("UDP" in problem for problem in wrong_checksums(sent))


def test_absurd_headers_are_dropped_and_counted() -> None:
    good = build("tcp 10.0.1.4:40000 > 198.51.100.1:443 syn")
    datagram = build("udp 10.0.1.4:4000 > 198.51.100.1:443 len=8")

    def changed(packet: bytes, offset: int, value: int) -> bytes:
        return packet[:offset] + bytes((value,)) + packet[offset + 1 :]

    absurd = [
        b"",
        b"\x45",
        good[:19],
        good[:39],
        good + b"x",  # longer than its total length
        changed(good, 0, 0x65),  # IP version 6
        changed(good, 0, 0x44),  # a header of 16 bytes
        changed(good, 0, 0x4F),  # a header that leaves no room
        changed(good, 3, 41),  # total length too large
        changed(good, 3, 39),  # and too small
        changed(good, 32, 0x40),  # data offset 16
        changed(good, 32, 0xF0),  # data offset beyond the end
        changed(datagram, 25, 7),  # UDP length below a header
        changed(datagram, 25, 17),  # beyond the end
    ]
    scenario = Scenario(NETWORK)
    for packet in absurd:
        for arrival in IngressPath:
            assert scenario.engine.handle(packet, arrival, 0.0) is None
    assert scenario.engine.status(0.0)["drops"] == {"Malformed": len(absurd) * len(IngressPath)}
    # The same headers on a live flow take the quick path, which must refuse them too.
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sends      udp 10.0.1.4:4000 > 198.51.100.1:443 len=8
    """)
    for packet in absurd:
        assert scenario.engine.handle(packet, IngressPath.OUTBOUND, 0.0) is None


def test_fragments_that_the_kernel_did_not_reassemble_are_dropped() -> None:
    packet = bytearray(build("udp 10.0.1.4:1 > 198.51.100.1:53 len=16"))
    for fragment in (b"\x20\x00", b"\x00\x05", b"\x20\x05"):
        packet[6:8] = fragment
        scenario = Scenario(NETWORK)
        assert scenario.send("vm1", bytes(packet)) is None
        assert scenario.engine.status(0.0)["drops"] == {"Fragment": 1}


def test_hairpin_to_a_frontend_without_a_rule_is_dropped_by_name() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 203.0.113.20:81 syn
        dropped        HairpinWithoutRule
        flows          vm1 203.0.113.20 public_ip=203.0.113.10
    """)


def test_a_vm_that_connects_to_the_port_it_is_about_to_get_does_not_connect_to_itself() -> None:
    # RFC 9293 would make one connection of it: a simultaneous open, of one socket with itself.
    scenario = Scenario(NETWORK)
    vm1, shared = IPv4Address("10.0.1.4"), IPv4Address("203.0.113.10")
    for protocol, flags in (("Tcp", "syn"), ("Udp", "")):
        said = explain_outbound(scenario.engine, vm1, protocol, shared, 1024, 40000)
        assert (said["verdict"], said["reason"].split(":")[0]) == ("Drop", "HairpinWithoutRule")
        for _ in range(2):  # a repetition finds the flow that the first one opened
            scenario.play(f"""
                vm1 sends      {protocol.lower()} 10.0.1.4:40000 > 203.0.113.10:1024 {flags}
                dropped        HairpinWithoutRule
            """)


def test_nor_does_one_with_an_address_of_its_own_that_sends_from_the_same_port() -> None:
    scenario = Scenario(NETWORK)
    vm3, own = IPv4Address("10.0.1.6"), IPv4Address("203.0.113.30")
    for protocol, flags in (("Tcp", "syn"), ("Udp", "")):
        said = explain_outbound(scenario.engine, vm3, protocol, own, 7000, 7000)
        assert (said["verdict"], said["reason"].split(":")[0]) == ("Drop", "HairpinToItself")
        scenario.play(
            f"""
            vm3 sends      {protocol.lower()} 10.0.1.6:7000 > 203.0.113.30:7000 {flags}
            dropped        HairpinToItself
            vm3 sends      {protocol.lower()} 10.0.1.6:7001 > 203.0.113.30:7002 {flags}
            vm3 sees       {protocol.lower()} 203.0.113.30:7001 > 10.0.1.6:7002 {flags}
        """.replace(" \n", "\n")
        )


def test_hairpin_to_an_instance_level_public_ip_is_translated_twice() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 203.0.113.30:22 syn
        vm3 sees       tcp 203.0.113.10:1024 > 10.0.1.6:22 syn
        vm3 sends      tcp 10.0.1.6:22 > 203.0.113.10:1024 syn ack
        vm1 sees       tcp 203.0.113.30:22 > 10.0.1.4:40000 syn ack
        flows          vm1 method=DefaultOutboundAccess direction=Outbound state=Established
        flows          vm3 method=InstanceLevelPublicIP direction=Inbound state=Established
    """)


def test_hairpin_between_two_vms_that_expect_each_other_is_translated_twice() -> None:
    # Both have sent first: each one's packet is a reply of the other's flow (A9: out by its own
    # method, then in again). The first packet finds nobody.
    Scenario(NETWORK).play("""
        vm3 sends      udp 10.0.1.6:7000 > 203.0.113.10:1024
        dropped        HairpinWithoutRule
        vm1 sends      udp 10.0.1.4:8000 > 203.0.113.30:7000
        vm3 sees       udp 203.0.113.10:1024 > 10.0.1.6:7000
        vm3 sends      udp 10.0.1.6:7000 > 203.0.113.10:1024
        vm1 sees       udp 203.0.113.30:7000 > 10.0.1.4:8000
        vm1 sends      icmp 3/3 10.0.1.4 > 203.0.113.30 about udp 203.0.113.30:7000 > 10.0.1.4:8000
        vm3 sees       icmp 3/3 203.0.113.10 > 10.0.1.6 about udp 10.0.1.6:7000 > 203.0.113.10:1024
    """)


def test_errors_are_translated_also_beside_a_live_query_without_an_identifier() -> None:
    # A ping with identifier 0 and a timestamp have keys of their own: no error may pass as theirs.
    Scenario(NETWORK).play("""
        vm3 sends      echo 10.0.1.6 > 198.51.100.1 id=0
        outside sees   echo 203.0.113.30 > 198.51.100.1 id=0
        vm3 sends      udp 10.0.1.6:5000 > 198.51.100.1:53
        vm3 sends      icmp 3/3 10.0.1.6 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.1.6:5000
        outside sees   icmp 3/3 203.0.113.30 > 198.51.100.1 about udp 198.51.100.1:53 > 203.0.113.30:5000
        outside sends  icmp 3/3 198.51.100.1 > 203.0.113.30 about udp 203.0.113.30:5000 > 198.51.100.1:53
        vm3 sees       icmp 3/3 198.51.100.1 > 10.0.1.6 about udp 10.0.1.6:5000 > 198.51.100.1:53
        vm3 sends      icmp 5/1 10.0.1.6 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.1.6:5000
        dropped        IcmpNotSupported
        outside sends  icmp 5/1 198.51.100.1 > 203.0.113.30 about udp 203.0.113.30:5000 > 198.51.100.1:53
        dropped        IcmpNotSupported
    """)


def test_an_error_must_go_to_the_address_that_it_quotes() -> None:
    Scenario(NETWORK).play(
        TCP_FLOW
        + """
        outside sends  icmp 3/1 192.0.2.254 > 203.0.113.20 about tcp 203.0.113.10:1024 > 198.51.100.1:443
        dropped        IcmpErrorMisaddressed
        """
    )


def test_timestamps_pass_through_an_instance_level_public_ip() -> None:
    request = bytearray(build("echo 10.0.1.6 > 198.51.100.1 id=7 len=12"))
    request[20] = 13
    scenario = Scenario(NETWORK)
    sent = scenario.send("vm3", bytes(request))
    assert sent is not None
    assert sent[12:16] == bytes((203, 0, 113, 30))
    reply = bytearray(build("echo-reply 198.51.100.1 > 203.0.113.30 id=7 len=12"))
    assert scenario.send("outside", bytes(reply)) is None  # no echo was asked
    reply[20] = 14
    delivered = scenario.send("outside", bytes(reply))
    assert delivered is not None
    assert delivered[16:20] == bytes((10, 0, 1, 6))
