"""RSTs of the gateway's own: idle flows of rules that ask for it, strays of a NAT gateway (A7, T1)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP

from gateway.core.flows import resets
from gateway.core.flows.resets import ROOM_FOR_ANSWERS
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import completed
from tests.scenario import Scenario, build
from tests.unit.core.inbound.test_load_balancer import TO_VM1
from tests.unit.core.snat.test_nat_gateway_pool import HEAD, ONE
from tests.unit.core.test_closed_frontends import GROUPED

RESETTING = HEAD.replace("protocol: All}", "protocol: All, enableTcpReset: true}")
WEB = GROUPED.replace("frontendPort: 80, backendPort: 8080,", "frontendPort: 80, backendPort: 8080,\n         enableTcpReset: true,")  # fmt: skip


def sent(scenario: Scenario) -> list[tuple[str, str, str, int, int]]:
    """Source, destination, flags, sequence and acknowledgement of every RST that waits."""
    found = []
    while (reset := scenario.engine.lifecycle.reset_queue.take()) is not None:
        packet = reset.packet
        assert completed(packet) == packet
        seen = IP(packet)
        checksum = seen.chksum
        del seen.chksum
        assert IP(bytes(seen)).chksum == checksum
        tcp = seen[TCP]
        found.append(
            (
                f"{seen.src}:{tcp.sport}",
                f"{seen.dst}:{tcp.dport}",
                str(tcp.flags),
                int(tcp.seq),
                int(tcp.ack),
            )
        )
    return found


def numbered(text: str, sequence: int, acknowledgement: int) -> bytes:
    packet = IP(build(text))
    packet[TCP].seq, packet[TCP].ack = sequence, acknowledgement
    del packet[TCP].chksum
    return bytes(packet)


OUT, BACK = "10.0.1.4:5 > 198.51.100.1:443", "198.51.100.1:443 > 203.0.113.20:1024"


def exchange(scenario: Scenario) -> None:
    scenario.send("vm1", numbered(f"tcp {OUT} syn", 100, 0))
    scenario.send("outside", numbered(f"tcp {BACK} syn ack", 900, 101))
    scenario.send("vm1", numbered(f"tcp {OUT} ack len=50", 101, 901))
    scenario.send("outside", numbered(f"tcp {BACK} ack len=7", 901, 151))
    scenario.send("vm1", numbered(f"tcp {OUT} ack", 151, 908))


def resets_both_ends_when_idle(scenario: Scenario) -> None:
    """After ``exchange``: with the numbers that they expect."""
    scenario.play("after 239 s")
    assert sent(scenario) == []
    scenario.play("after 2 s\nflows vm1 none")
    assert sent(scenario) == [
        ("198.51.100.1:443", "10.0.1.4:5", "R", 908, 0),
        ("203.0.113.20:1024", "198.51.100.1:443", "R", 151, 0),
    ]


def test_an_idle_flow_resets_both_ends_with_the_numbers_that_they_expect() -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    resets_both_ends_when_idle(scenario)


def test_a_flow_whose_port_went_to_a_rule_resets_nobody() -> None:
    """Whoever has the port now may have a connection to the same remote on it."""
    scenario = Scenario(RESETTING)
    exchange(scenario)
    rule = "{name: r, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp, frontendPort: 1024, backendPort: 80, disableOutboundSnat: true}"  # fmt: skip
    scenario.reconfigure(RESETTING + f"    loadBalancingRules: [{rule}]\n")
    scenario.play("flows vm1 awaiting_removal=True\nafter 241 s\nflows vm1 none")
    assert sent(scenario) == []


@pytest.mark.parametrize("last", ["fin ack", "rst seq=151"])
def test_a_flow_that_was_closing_ends_silently(last: str) -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    scenario.play(f"vm1 sends tcp {OUT} {last}\nafter 10 min\nflows vm1 none")
    assert sent(scenario) == []


def test_a_half_open_flow_and_udp_and_a_rule_that_does_not_ask_end_silently() -> None:
    scenario = Scenario(RESETTING)
    scenario.play(f"vm1 sends tcp {OUT} syn\nvm1 sends udp {OUT}\nafter 10 min\nflows vm1 none")
    assert sent(scenario) == []
    scenario = Scenario(HEAD)
    exchange(scenario)
    scenario.play("after 10 min\nflows vm1 none")
    assert sent(scenario) == []


def test_a_load_balancing_rule_resets_client_and_backend() -> None:
    scenario = Scenario(WEB)
    to, back = f"198.51.100.1:{TO_VM1} > 203.0.113.20:80", f"10.0.1.4:8080 > 198.51.100.1:{TO_VM1}"
    scenario.send("outside", numbered(f"tcp {to} syn", 7, 0))
    scenario.send("vm1", numbered(f"tcp {back} syn ack", 50, 8))
    scenario.send("outside", numbered(f"tcp {to} ack", 8, 51))
    scenario.play("after 11 min\nflows vm1 none")
    assert sent(scenario) == [
        (f"198.51.100.1:{TO_VM1}", "10.0.1.4:8080", "R", 8, 0),
        ("203.0.113.20:80", f"198.51.100.1:{TO_VM1}", "R", 51, 0),
    ]


def test_a_nat_gateway_resets_who_sends_to_a_flow_that_is_no_more() -> None:
    scenario = Scenario(ONE)
    scenario.send("vm1", numbered(f"tcp {OUT} ack len=50", 101, 901))
    scenario.play("dropped TcpWithoutFlow")
    assert sent(scenario) == [("198.51.100.1:443", "10.0.1.4:5", "R", 901, 0)]
    scenario.send("vm1", numbered(f"tcp {OUT} fin len=50", 0xFFFFFFFF, 0))
    assert sent(scenario) == [("198.51.100.1:443", "10.0.1.4:5", "RA", 0, 50)]
    nat = "198.51.100.1:443 > 203.0.113.40:2000"
    scenario.send("outside", numbered(f"tcp {nat} ack", 5, 77))
    assert sent(scenario) == [("203.0.113.40:2000", "198.51.100.1:443", "R", 77, 0)]


def test_what_no_host_can_have_sent_is_not_answered() -> None:
    scenario = Scenario(ONE)
    nat = "198.51.100.1:443 > 203.0.113.40:2000"
    for who, text in (("vm1", f"tcp {OUT} ack len=3"), ("outside", f"tcp {nat} ack len=3")):
        right = numbered(text, 5, 77)
        for place in (25, 33, 36, len(right) - 1):  # sequence number, flags, checksum, content
            wrong = bytearray(right)
            wrong[place] ^= 0x20
            assert scenario.send(who, bytes(wrong)) is None
            assert sent(scenario) == []
        assert scenario.send(who, right) is None
        assert len(sent(scenario)) == 1
    for address in ("10.0.1.0", "10.0.1.255"):  # a subnet's own, and broadcast
        scenario.send(address, numbered(f"tcp {address}:5 > 198.51.100.1:443 ack", 5, 77))
        assert sent(scenario) == []
    for arrival, text in (
        (IngressPath.OUTBOUND_IN_FRAGMENTS, OUT),
        (IngressPath.INBOUND_IN_FRAGMENTS, nat),
    ):
        assert scenario.engine.handle(numbered(f"tcp {text} ack", 5, 77), arrival, 0.0) is None
        assert sent(scenario) == []


@pytest.mark.parametrize("size", [0, 1, 2000])
def test_a_checksum_that_a_device_is_to_complete_is_not_a_wrong_one(size: int) -> None:
    """Of a VM on veth there is the pseudo header's sum alone, not yet complemented."""
    packet = bytearray(numbered(f"tcp {OUT} ack len={size}", 5, 77))
    words = int.from_bytes(packet[12:20], "big") + 6 + len(packet) - 20
    packet[36:38] = (words % 0xFFFF).to_bytes(2, "big")
    scenario = Scenario(ONE)
    scenario.send("vm1", bytes(packet))
    assert sent(scenario) == [("198.51.100.1:443", "10.0.1.4:5", "R", 77, 0)]


@pytest.mark.parametrize(
    "line",
    [
        f"vm1 sends tcp {OUT} rst",
        f"vm1 sends tcp {OUT} rst ack",
        "outside sends tcp 198.51.100.1:443 > 203.0.113.40:2000 syn",
        "outside sends tcp 198.51.100.1:443 > 203.0.113.20:2000 ack",  # no NAT gateway's address
        "other sends tcp 10.0.2.4:5 > 198.51.100.1:443 ack",  # not behind it
    ],
)
def test_nobody_else_is_answered(line: str) -> None:
    scenario = Scenario(ONE)
    scenario.play(line)
    assert scenario.verdict is None
    assert sent(scenario) == []


def test_strays_beyond_what_may_wait_are_dropped_silently_and_counted() -> None:
    scenario = Scenario(ONE)
    for _ in range(ROOM_FOR_ANSWERS + 10):
        scenario.send("vm1", numbered(f"tcp {OUT} ack", 1, 2))
    assert len(sent(scenario)) == ROOM_FOR_ANSWERS
    assert scenario.engine.lifecycle.reset_queue.suppressed == 10


def test_a_flow_to_be_reset_is_not_handed_over() -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    (flow,) = scenario.engine.flows.tcp_original.values()
    assert scenario.engine.flows.to_be_reset == {flow}
    assert not flow.offloaded


def test_when_many_flows_idle_out_at_once_what_waits_is_bounded_and_packets_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resets, "ROOM", 1000)
    scenario = Scenario(RESETTING)
    for number in range(900):
        port = 1000 + number
        scenario.send("vm1", numbered(f"tcp 10.0.1.4:{port} > 198.51.100.1:443 syn", 100, 0))
        reply = numbered(f"tcp 198.51.100.1:443 > 203.0.113.20:{1024 + number} syn ack", 900, 101)
        scenario.send("outside", reply)
        scenario.send("vm1", numbered(f"tcp 10.0.1.4:{port} > 198.51.100.1:443 ack", 101, 901))
    scenario.play("after 5 min\nflows vm1 none")
    reset_queue = scenario.engine.lifecycle.reset_queue
    assert (len(reset_queue), reset_queue.suppressed) == (1000, 800)
    scenario.play(
        "vm1 sends udp 10.0.1.4:5 > 198.51.100.1:53\noutside sees udp 203.0.113.20:1024 > 198.51.100.1:53"
    )
    assert len(sent(scenario)) == 1000
