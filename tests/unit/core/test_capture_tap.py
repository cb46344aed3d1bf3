"""The tap: both sides of what crosses, what is told of it, filters, bounds, and no change."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from gateway.core.capture_tap import CaptureFilter, CaptureSession, CaptureTap
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import PacketView
from gateway.core.pipeline import INBOUND, OUTBOUND
from gateway.daemon.api_process.capture.streams import comment_of
from gateway.schema.captures import INSIDE, OUTSIDE, CapturedPacket
from tests.scenario import Scenario, build, describe
from tests.unit.core.flows.test_resets import RESETTING, exchange
from tests.unit.core.policy.test_nsg import NO_SMTP, network
from tests.unit.core.snat.test_nat_gateway_pool import ONE
from tests.unit.core.snat.test_outbound_methods import NETWORK

VM1 = bytes((10, 0, 1, 4))


class Tapped(Scenario):
    """A scenario whose packets are captured; the clock goes on by one at each look."""

    def __init__(self, yaml: str, **wanted: Any) -> None:
        super().__init__(yaml)
        ticks = itertools.count(1_000)
        self.tap = CaptureTap(self.engine, lambda: next(ticks))
        self.session = self.capture(**wanted)
        self.engine.handlers = self.tap.handlers()

    def capture(self, *, room: int = 1 << 20, count: int = 1000, **wanted: Any) -> CaptureSession:
        session = CaptureSession(CaptureFilter(**wanted), room, count)
        self.tap.attach(session)
        return session

    def taken(self, session: CaptureSession | None = None) -> list[CapturedPacket]:
        return (session or self.session).take(1 << 30, 1 << 30)

    def seen(self, session: CaptureSession | None = None) -> list[str]:
        """A line for each: number, side, direction, packet, comment."""
        return [
            f"{number} {('inside', 'outside')[side]} {' <>'[direction]} {describe(data)} | {comment_of(account)}"
            for number, side, direction, _, _, data, account in self.taken(session)
        ]


def test_both_sides_of_a_flow_with_one_number_for_one_packet() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=3
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack options
    """)
    said = "flow=1 vm=vm1 verdict=translated method=DefaultOutboundAccess"
    assert scenario.seen() == [
        f"1 inside < tcp 10.0.1.4:40000 > 198.51.100.1:443 syn | {said}",
        f"1 outside > tcp 203.0.113.10:1024 > 198.51.100.1:443 syn | {said}",
        f"2 outside < tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack | {said}",
        f"2 inside > tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack | {said}",
        f"3 inside < tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=3 | {said}",
        f"3 outside > tcp 203.0.113.10:1024 > 198.51.100.1:443 ack len=3 | {said}",
        f"4 inside < tcp 10.0.1.4:40000 > 198.51.100.1:443 ack options | {said}",
        f"4 outside > tcp 203.0.113.10:1024 > 198.51.100.1:443 ack options | {said}",
    ]


def test_times_are_the_clocks_when_it_came_and_when_it_was_decided() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("vm1 sends udp 10.0.1.4:40000 > 198.51.100.1:53")
    assert [sighting[3] for sighting in scenario.taken()] == [1_000, 1_001]


def test_dropped_packets_show_where_they_came_in_with_the_reason() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("""
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn
        vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=7
        vm1 sends      tcp 10.0.1.4:4 > 198.51.100.1:443 ack
        vm1 forges     udp 172.16.0.1:4 > 198.51.100.1:443
    """)
    assert scenario.seen() == [
        "1 outside < tcp 198.51.100.1:443 > 203.0.113.10:1024 syn | verdict=dropped reason=InboundWithoutFlow",
        "2 inside < echo 10.0.1.4 > 198.51.100.1 id=7 | vm=vm1 verdict=dropped reason=IcmpEchoThroughSnat",
        "3 inside < tcp 10.0.1.4:4 > 198.51.100.1:443 ack | vm=vm1 verdict=dropped reason=TcpWithoutFlow",
        "4 inside < udp 172.16.0.1:4 > 198.51.100.1:443 | verdict=dropped reason=SourceNotInVirtualNetwork",
    ]


def test_exhaustion_is_told() -> None:
    scenario = Tapped(NETWORK, protocol=17)
    for port in range(1, 1025):
        scenario.send("vm1", build(f"tcp 10.0.1.4:{port} > 198.51.100.1:443 syn"))
    last = scenario.capture(protocol=6)
    scenario.play("vm1 sends tcp 10.0.1.4:2000 > 198.51.100.1:443 syn")
    assert scenario.seen(last) == [
        "1 inside < tcp 10.0.1.4:2000 > 198.51.100.1:443 syn | vm=vm1 verdict=dropped reason=PortsExhausted"
    ]
    assert scenario.seen() == []


def test_a_denied_packet_names_the_rule() -> None:
    scenario = Tapped(network(NO_SMTP))
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
    """)
    assert [line.split(" | ")[1] for line in scenario.seen()] == [
        "vm=vm1 verdict=denied reason=DeniedBySecurityRule rule=subnet-nsg/no-smtp",
        "vm=vm2 verdict=denied reason=DeniedBySecurityRule rule=subnet-nsg/DenyAllInBound",
    ]


def test_icmp_errors_belong_to_the_flow_they_quote() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  icmp 11/0 192.0.2.254 > 203.0.113.10 about tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        vm1 sends      icmp 3/3 10.0.1.4 > 198.51.100.1 about tcp 198.51.100.1:443 > 10.0.1.4:40000 ack
        gateway sends  icmp 3/4 203.0.113.1 > 198.51.100.1 about tcp 198.51.100.1:443 > 10.0.1.4:40000 ack
    """)
    said = "flow=1 vm=vm1 verdict=translated method=DefaultOutboundAccess"
    inner, outer = (
        "tcp 10.0.1.4:40000 > 198.51.100.1:443 syn",
        "tcp 203.0.113.10:1024 > 198.51.100.1:443 syn",
    )
    back, delivered = (
        "tcp 198.51.100.1:443 > 203.0.113.10:1024 ack",
        "tcp 198.51.100.1:443 > 10.0.1.4:40000 ack",
    )
    assert scenario.seen()[2:] == [
        f"2 outside < icmp 11/0 192.0.2.254 > 203.0.113.10 about {outer} | {said}",
        f"2 inside > icmp 11/0 192.0.2.254 > 10.0.1.4 about {inner} | {said}",
        f"3 inside < icmp 3/3 10.0.1.4 > 198.51.100.1 about {delivered} | {said}",
        f"3 outside > icmp 3/3 203.0.113.10 > 198.51.100.1 about {back} | {said}",
        # what this host sends itself came in nowhere
        f"4 outside > icmp 3/4 203.0.113.1 > 198.51.100.1 about {back} | {said}",
    ]


def test_what_this_host_sends_as_it_is_and_what_it_may_not_send() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("""
        gateway sends  echo 203.0.113.1 > 198.51.100.1 id=5
        gateway sends  icmp 3/4 203.0.113.1 > 198.51.100.1 about tcp 198.51.100.1:443 > 10.0.1.4:1 ack
    """)
    assert [line[:11] + line.split(" | ")[1] for line in scenario.seen()] == [
        "1 outside >verdict=passed",
        "2 outside  verdict=dropped reason=IcmpErrorWithoutFlow",
    ]


def test_a_hairpin_names_both_flows_each_way() -> None:
    scenario = Tapped(NETWORK)
    scenario.play("""
        vm1 sends      udp 10.0.1.4:4000 > 203.0.113.30:53
        vm3 sends      udp 10.0.1.6:53 > 203.0.113.10:1024
    """)
    there = "flow=1 vm=vm1 verdict=translated method=DefaultOutboundAccess toFlow=2 toVm=vm3"
    back = "flow=2 vm=vm3 verdict=translated method=InstanceLevelPublicIP toFlow=1 toVm=vm1"
    assert scenario.seen() == [
        f"1 inside < udp 10.0.1.4:4000 > 203.0.113.30:53 | {there}",
        f"1 inside > udp 203.0.113.10:1024 > 10.0.1.6:53 | {there}",
        f"2 inside < udp 10.0.1.6:53 > 203.0.113.10:1024 | {back}",
        f"2 inside > udp 203.0.113.30:53 > 10.0.1.4:4000 | {back}",
    ]


def test_between_subnets_packets_pass_untranslated() -> None:
    scenario = Tapped(network())
    for text in ("udp 10.0.1.4:1 > 10.0.2.4:2", "udp 10.0.2.4:2 > 10.0.1.4:1"):
        scenario.send_between(build(text))
    there = "flow=1 vm=vm1 verdict=passed method=VirtualNetwork toVm=vm3"
    back = "flow=1 vm=vm3 verdict=passed method=VirtualNetwork toVm=vm1"
    assert scenario.seen() == [
        f"1 inside < udp 10.0.1.4:1 > 10.0.2.4:2 | {there}",
        f"1 inside > udp 10.0.1.4:1 > 10.0.2.4:2 | {there}",
        f"2 inside < udp 10.0.2.4:2 > 10.0.1.4:1 | {back}",
        f"2 inside > udp 10.0.2.4:2 > 10.0.1.4:1 | {back}",
    ]


@pytest.mark.parametrize(("who", "address"), [("host", "203.0.113.1"), ("dmz", "192.168.50.2")])
def test_answers_to_this_hosts_networks_are_of_the_flow_that_they_began(
    who: str, address: str
) -> None:
    scenario = Tapped(NETWORK)
    scenario.play(f"""
        {who} sends  udp {address}:45000 > 203.0.113.30:53
        vm3 sends    udp 10.0.1.6:53 > {address}:45000
        vm3 sends    icmp 3/3 10.0.1.6 > {address} about udp {address}:45000 > 10.0.1.6:53
        {who} sends  icmp 3/3 {address} > 203.0.113.30 about udp 203.0.113.30:53 > {address}:45000
    """)
    accounts = [sighting[-1] for sighting in scenario.taken()]
    assert {account[:4] for account in accounts} == {
        (1, "vm3", "InstanceLevelPublicIP", "translated")
    }


TALK = """
    vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
    outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
    vm3 sends      udp 10.0.1.6:5000 > 198.51.100.1:443
    vm3 sends      udp 10.0.1.6:5000 > 198.51.100.2:53
    outside sends  icmp 11/0 192.0.2.254 > 203.0.113.10 about tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
    outside sends  tcp 198.51.100.9:1 > 203.0.113.30:80 ack
    vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=443
"""


def address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7]),
        ({"side": INSIDE}, [1, 2, 3, 4, 5, 7]),
        ({"side": OUTSIDE}, [1, 2, 3, 4, 5, 6]),
        ({"vm": "vm1", "vm_address": VM1}, [1, 1, 2, 2, 3, 3, 4]),
        ({"vm": "vm3", "vm_address": address("10.0.1.6")}, [1, 1, 2, 2, 3]),  # refused in its name
        ({"protocol": 17}, [1, 1, 2, 2]),
        ({"protocol": 1}, [1, 1, 2]),
        ({"remote": address("198.51.100.2")}, [1, 1]),
        ({"remote": address("198.51.100.1")}, [1, 1, 2, 2, 3, 3, 4, 4, 5]),
        ({"remote": address("198.51.100.1"), "remote_port": b"\x01\xbb"}, [1, 1, 2, 2, 3, 3, 4, 4]),
        ({"remote": address("198.51.100.2"), "remote_port": b"\x01\xbb"}, []),
        ({"remote": address("198.51.100.1"), "protocol": 17, "side": OUTSIDE}, [1]),
    ],
)
def test_filters(wanted: dict[str, object], numbers: list[int]) -> None:
    """Numbers are given to what somebody wants."""
    scenario = Tapped(NETWORK, **wanted)
    scenario.play(TALK)
    taken = scenario.taken()
    assert [sighting[0] for sighting in taken] == numbers
    # What is captured of a flow must not pass elsewhere.
    flows = {flow.id: flow for flow in scenario.engine.flows}
    for sighting in taken:
        if sighting[6][0] is not None and sighting[5][9] in (6, 17):
            assert scenario.tap.wants(flows[sighting[6][0]])


def test_flows_that_no_recorder_wants_may_pass_elsewhere() -> None:
    scenario = Tapped(NETWORK, vm="vm3", vm_address=address("10.0.1.6"))
    scenario.play(TALK)
    assert [f.machine.name for f in scenario.engine.flows if not scenario.tap.wants(f)] == ["vm1"]
    scenario.session = scenario.capture(remote=address("198.51.100.1"), remote_port=b"\x00\x50")
    assert [f.machine.name for f in scenario.engine.flows if not scenario.tap.wants(f)] == ["vm1"]
    scenario.capture(protocol=6)
    assert all(map(scenario.tap.wants, scenario.engine.flows))


def test_a_snap_length_cuts_and_tells_the_whole_length() -> None:
    scenario = Tapped(NETWORK, snap_length=30)
    scenario.play("vm1 sends udp 10.0.1.4:40000 > 198.51.100.1:53 len=100")
    assert [(s[4], len(s[5])) for s in scenario.taken()] == [(128, 30), (128, 30)]


def test_what_does_not_fit_is_counted_by_side_and_packets_go_on() -> None:
    scenario = Tapped(NETWORK)
    by_bytes, by_count = scenario.capture(room=100), scenario.capture(count=3)
    for _ in range(3):
        scenario.play("""
            vm1 sends     udp 10.0.1.4:40000 > 198.51.100.1:53 len=10
            outside sees  udp 203.0.113.10:1024 > 198.51.100.1:53 len=10
        """)
    # Both sides of a packet or none; what goes over the bound is the last that is kept.
    assert (by_bytes.matched, by_bytes.lost, by_bytes.size) == ([3, 3], [1, 1], 152)
    assert (by_count.matched, by_count.lost, len(by_count)) == ([3, 3], [1, 1], 4)
    assert len(by_bytes.take(1, 10)) == 1  # one at least
    assert (len(by_bytes.take(1000, 10)), by_bytes.size) == (3, 0)
    assert [len(scenario.session.take(76, 10)), len(scenario.session.take(1000, 3))] == [2, 3]
    assert (len(scenario.session), scenario.session.size) == (1, 38)


def test_after_the_last_recorder_nothing_is_told() -> None:
    scenario = Tapped(NETWORK)
    scenario.tap.detach(scenario.session)
    scenario.play("""
        vm1 sends  echo 10.0.1.4 > 198.51.100.1 id=7
        dropped    IcmpEchoThroughSnat
        event      PacketsDropped reason=IcmpEchoThroughSnat
    """)
    assert scenario.seen() == []
    assert scenario.tap.sessions == ()


def test_a_session_that_asks_has_the_stages_of_each_packet() -> None:
    scenario = Tapped(NETWORK, trace=True)
    plain = scenario.capture()
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=3
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 ack
        dropped        TcpWithoutFlow
    """)
    opening = ",".join(stage.__name__ for stage in OUTBOUND)
    answer = ",".join(stage.__name__ for stage in INBOUND)
    stopped = opening[: opening.index(",open_outbound_flow")]
    stages = [opening, opening, answer, answer, "established", "established", stopped]
    assert [packet[6][-1] for packet in scenario.taken()] == stages
    assert {packet[6][-1] for packet in scenario.taken(plain)} == {None}


def test_whatever_arrives_is_captured_and_judged_as_without() -> None:
    """Random and damaged packets by every way: the same verdicts, never an exception."""
    plain, tapped = Scenario(NETWORK), Tapped(NETWORK, trace=True)
    tapped.capture(remote=address("198.51.100.1"), remote_port=b"\x01\xbb", vm_address=VM1)
    random_ = random.Random(5)
    begun = [build(line.split("sends")[1].strip()) for line in TALK.strip().splitlines()]
    for round_ in range(4000):
        packet = bytearray(random_.choice(begun))
        for _ in range(random_.randrange(4)):
            packet[random_.randrange(len(packet))] = random_.randrange(256)
        data = bytes(packet[: random_.randrange(len(packet) + 1)] if round_ % 3 else packet)
        arrival = random_.choice(list(IngressPath))
        assert plain.engine.handle(data, arrival, 0.0) == tapped.engine.handle(data, arrival, 0.0)
    assert plain.engine.status(0.0) == tapped.engine.status(0.0)
    assert all(PacketView.parse(s[5]) for s in tapped.taken() if s[6][3] == "translated")


def test_what_the_gateway_sends_itself_shows_where_it_leaves() -> None:
    scenario = Tapped(RESETTING)
    vm2 = scenario.capture(vm="vm2", vm_address=bytes((10, 0, 1, 5)))
    vm1 = scenario.capture(vm="vm1", vm_address=VM1)
    exchange(scenario)
    scenario.play("after 5 min\nflows vm1 none")
    scenario.taken(), scenario.taken(vm1)
    while (reset := scenario.engine.lifecycle.reset_queue.take()) is not None:
        scenario.tap.made(reset)
    said = "flow=1 vm=vm1 verdict=sent reason=IdleTimeout method=OutboundRule"
    assert (
        scenario.seen()
        == scenario.seen(vm1)
        == [
            f"6 inside > tcp 198.51.100.1:443 > 10.0.1.4:5 rst | {said}",
            f"7 outside > tcp 203.0.113.20:1024 > 198.51.100.1:443 rst | {said}",
        ]
    )
    assert scenario.seen(vm2) == []


def test_a_nat_gateways_answer_to_a_stray_is_of_the_vm_that_hears_it() -> None:
    scenario = Tapped(ONE)
    scenario.play("vm1 sends tcp 10.0.1.4:5 > 198.51.100.1:443 ack\ndropped TcpWithoutFlow")
    scenario.taken()
    reset = scenario.engine.lifecycle.reset_queue.take()
    assert reset is not None
    scenario.tap.made(reset)
    (line,) = scenario.seen()
    assert line.endswith(
        "198.51.100.1:443 > 10.0.1.4:5 rst | vm=vm1 verdict=sent reason=NoSuchFlow"
    )
