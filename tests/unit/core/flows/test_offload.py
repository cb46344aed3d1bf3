"""Flows whose packets pass elsewhere: what is handed over, taken back, and still known of them."""

from __future__ import annotations

import pytest

from gateway.core.engine import Engine
from gateway.core.flows.flow import Flow
from gateway.core.flows.offload import BUSY, Carried, Reported
from gateway.core.flows.tcp import ACK_FLAG, FIN_FLAG, RST_FLAG, SYN_FLAG, Side, State
from gateway.core.ingress import IngressPath
from tests.scenario import build, configuration

TEXT = """
gateway: {inside: [lan0], outside: wan0, flowLogs: vnet}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24%s}
    - {name: data, addressPrefix: 10.0.2.0/24}
publicIPAddresses: [{name: pip, ipAddress: 203.0.113.10}, {name: own, ipAddress: 203.0.113.30}]
defaultOutboundAccess: {publicIPAddresses: [pip]}
virtualMachines: [{name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: own}]
networkSecurityGroups:
  - name: shut
    securityRules:
      - {name: no, priority: 100, direction: Outbound, access: Deny, protocol: '*',
         sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: Internet,
         destinationPortRange: '*'}
"""
SYN = "tcp 10.0.1.4:40000 > 198.51.100.1:443 syn"
SYN_ACK = "tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack"
UDP = "udp 10.0.1.4:50000 > 198.51.100.1:53 len=10"
UDP_BACK = "udp 198.51.100.1:53 > 203.0.113.10:1024 len=10"
OUT, IN = IngressPath.OUTBOUND, IngressPath.INBOUND


class Elsewhere:
    """Takes flows over up to a number of them; what passes there is said by the test."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.flows: list[Flow] = []
        self.numbers: dict[int, tuple[int, int]] = {}  # by flow: acknowledged by VM and remote
        self.passed: dict[int, tuple[int, int, float]] = {}  # by flow: packets out, in, when
        self.untold: list[tuple[Flow, Side, int, float]] = []  # what reports tell, one at a time

    def install(self, flow: Flow, acknowledged: tuple[int, int], *, waits: bool) -> bool:
        if len(self.flows) >= self.room:
            return False
        self.numbers[flow.id] = acknowledged
        self.flows.append(flow)
        return True

    def remove(self, flow: Flow) -> None:
        assert flow.id not in self.passed, "what had passed was not asked for"
        self.flows.remove(flow)

    def report(self, to: Reported) -> int:
        if not self.untold:
            return 0
        flow, side, flags, when = self.untold.pop(0)
        to.on_offloaded_segment(flow.slot, flow.id, side, flags, when)
        return 1

    def acknowledged(self, flow: Flow) -> tuple[int, int]:
        return self.numbers.get(flow.id, (0, 0))

    def carried(self, flow: Flow) -> Carried | None:
        if flow.id not in self.passed:
            return None
        out, back, when = self.passed.pop(flow.id)
        return Carried(out, 100 * out, back, 100 * back, when)


class Run:
    def __init__(self, room: int = 100, subnet: str = "") -> None:
        self.elsewhere = Elsewhere(room)
        self.engine = Engine(configuration(TEXT % subnet), seed=1, offload=self.elsewhere)

    def send(self, packet: str, arrival: IngressPath = OUT, now: float = 0.0) -> bytes | None:
        return self.engine.handle(build(packet), arrival, now)

    def record(self, now: float = 0.0):  # type: ignore[no-untyped-def]
        (records,) = self.engine.flow_records(lambda: now, 100)
        (only,) = records
        return only


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_tcp_flow_is_handed_over_when_it_opens_so_that_its_answer_need_not_come(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (0, 1, 0.1)
    run.engine.lifecycle.on_offloaded_segment(
        flow.slot, flow.id, Side.REPLY, SYN_FLAG | ACK_FLAG, 0.1
    )
    record = run.record(now=1.0)
    assert (record.state, record.offloaded, record.packets_out, record.packets_in) == (
        "Established",
        True,
        1,
        1,
    )
    assert record.idle == pytest.approx(0.9)


def test_an_answer_that_comes_here_all_the_same_counts(run: Run) -> None:
    run.send(SYN)
    assert run.send(SYN_ACK, IN) is not None
    assert run.record().state == "Established"
    assert run.record().packets_in == 1


def test_a_syn_that_overtakes_the_report_of_the_end_opens_a_flow_of_its_own(run: Run) -> None:
    run.send(SYN)
    (first,) = run.elsewhere.flows
    run.elsewhere.untold = [
        (first, Side.REPLY, SYN_FLAG | ACK_FLAG, 0.1),
        (first, Side.REPLY, FIN_FLAG | ACK_FLAG, 0.2),
        (first, Side.ORIGINAL, FIN_FLAG | ACK_FLAG, 0.3),
    ]
    out = run.send(SYN, now=0.4)
    assert out is not None
    assert int.from_bytes(out[20:22], "big") == 1025  # 1024 is held
    assert first.state is State.FINISHED
    (second,) = run.elsewhere.flows
    assert (second.id != first.id, second.state) == (True, State.OPENING)


def test_a_repeated_syn_that_overtakes_the_report_of_the_end_is_of_the_flow_that_ended(
    run: Run,
) -> None:
    """It waited in the queue while all the rest passed elsewhere."""
    run.send(SYN + " seq=1000")
    (flow,) = run.elsewhere.flows
    run.elsewhere.untold = [
        (flow, Side.REPLY, SYN_FLAG | ACK_FLAG, 0.1),
        (flow, Side.ORIGINAL, FIN_FLAG | ACK_FLAG, 0.2),
        (flow, Side.REPLY, FIN_FLAG | ACK_FLAG, 0.3),
    ]
    out = run.send(SYN + " seq=1000", now=0.4)
    assert out is not None
    assert int.from_bytes(out[20:22], "big") == 1024
    assert (run.elsewhere.flows, flow.state) == ([flow], State.FINISHED)


def test_an_rst_that_comes_here_is_judged_by_what_passed_elsewhere(run: Run) -> None:
    run.send(SYN + " seq=1000")
    run.send(SYN_ACK + " seq=5000 acks=1001", IN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.numbers[flow.id] = (2_005_001, 3_001_001)
    for old in ("seq=5001", "seq=4000000"):
        assert run.send(SYN_ACK.replace("syn ack", f"rst {old}"), IN) is not None
        assert flow.state is State.ESTABLISHED
    assert run.send(SYN_ACK.replace("syn ack", "rst seq=2005001"), IN) is not None
    assert flow.state is State.RESET


def test_an_rst_of_a_flow_that_cannot_be_carried_is_judged_by_what_came_here(run: Run) -> None:
    """All its packets go up (its route leads elsewhere, say): nothing is known better there."""
    run.send(SYN + " seq=1000")
    run.send(SYN_ACK + " seq=5000 acks=1001", IN)
    (flow,) = run.elsewhere.flows
    run.send(SYN_ACK.replace("syn ack", "ack seq=5001 acks=1001001"), IN)
    run.send(SYN.replace("syn", "ack seq=1001001 acks=2005001"))
    assert run.elsewhere.numbers[flow.id] == (0, 1001)
    assert run.send(SYN.replace("syn", "rst seq=1001")) is not None
    assert flow.state.name == "ESTABLISHED"
    assert run.send(SYN.replace("syn", "rst seq=1001001")) is not None
    assert flow.state is State.RESET


def test_a_syn_of_a_flow_that_lives_has_what_its_sender_expected_forgotten_there_too(
    run: Run,
) -> None:
    run.send(SYN + " seq=1000")
    run.send(SYN_ACK + " seq=5000 acks=1001", IN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.numbers[flow.id] = (2_005_001, 3_001_001)
    run.send(SYN + " seq=99000")
    assert run.elsewhere.flows == [flow]
    assert run.elsewhere.numbers[flow.id] == (0, 3_001_001)


def test_the_syn_again_after_an_rst_has_the_flow_begin_anew(run: Run) -> None:
    """The RST was of the connection that the remote had on this port before."""
    run.send(SYN + " seq=1000")
    (flow,) = run.elsewhere.flows
    run.engine.lifecycle.on_offloaded_segment(flow.slot, flow.id, Side.ORIGINAL, RST_FLAG, 0.5)
    assert flow.state.name == "RESET"
    out = run.send(SYN + " seq=1000", now=1.0)
    assert out is not None
    assert int.from_bytes(out[20:22], "big") == 1024
    assert (run.elsewhere.flows, flow.state) == ([flow], State.OPENING)
    assert run.elsewhere.numbers[flow.id] == (0, 1001)
    run.send(SYN_ACK + " seq=5000 acks=1001", IN, now=1.1)
    assert flow.state is State.ESTABLISHED
    run.engine.expire(100.0)
    assert run.record(100.0).expires_in == pytest.approx(141.1)
    log = run.engine.flow_log
    assert log is not None
    assert [entry.state for entry in log.take(10)] == ["B"]


def test_a_syn_again_while_the_flow_lives_is_of_the_same_flow(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.untold = [(flow, Side.REPLY, SYN_FLAG | ACK_FLAG, 0.1)]
    out = run.send(SYN, now=0.2)
    assert out is not None
    assert int.from_bytes(out[20:22], "big") == 1024
    assert (run.elsewhere.flows, flow.state) == ([flow], State.ESTABLISHED)


def test_a_udp_flow_is_handed_over_with_its_third_packet_one_way(run: Run) -> None:
    for _ in range(BUSY - 1):
        run.send(UDP)
        run.send(UDP_BACK, IN)
    assert run.elsewhere.flows == []  # a question and its answer never are
    run.send(UDP)
    assert len(run.elsewhere.flows) == 1


def test_a_udp_flow_of_answers_alone_is_handed_over(run: Run) -> None:
    run.send(UDP)
    for _ in range(BUSY):
        run.send(UDP_BACK, IN)
    assert len(run.elsewhere.flows) == 1


def test_where_there_is_no_room_the_engine_goes_on(run: Run) -> None:
    run = Run(room=0)
    run.send(SYN)
    assert run.send(SYN_ACK, IN) is not None
    assert not run.record().offloaded


def test_use_elsewhere_keeps_a_flow_and_idleness_ends_it(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (5, 0, 200.0)
    run.engine.expire(241.0)
    assert run.record(241.0).packets_out == 6
    run.engine.expire(439.0)
    assert len(run.engine.flows) == 1
    run.engine.expire(440.5)
    assert len(run.engine.flows) == 0
    assert run.elsewhere.flows == []


@pytest.mark.parametrize(("flags", "held"), [((RST_FLAG,), 15.0), ((FIN_FLAG, FIN_FLAG), 240.0)])
def test_a_close_elsewhere_releases_the_port_in_its_time(
    run: Run, flags: tuple[int, ...], held: float
) -> None:
    run.send(SYN)
    run.send(SYN_ACK, IN)
    (flow,) = run.elsewhere.flows
    for side, flag in zip((Side.ORIGINAL, Side.REPLY), flags, strict=False):
        run.engine.lifecycle.on_offloaded_segment(flow.slot, flow.id, side, flag, 10.0)
    run.elsewhere.passed[flow.id] = (1, 1, 10.0)
    assert run.record(10.0).state == "CoolDown"
    run.engine.expire(10.0 + held - 0.5)
    assert len(run.engine.flows) == 1
    run.engine.expire(10.5 + held)
    assert len(run.engine.flows) == 0
    assert run.elsewhere.flows == []


def test_a_report_of_a_flow_that_is_gone_changes_nothing(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    slot, number = flow.slot, flow.id
    run.engine.lifecycle.end(flow)
    run.send(SYN)  # another one, in the same slot
    run.engine.lifecycle.on_offloaded_segment(slot, number, Side.ORIGINAL, RST_FLAG, 1.0)
    run.engine.lifecycle.on_offloaded_segment(99, number, Side.ORIGINAL, RST_FLAG, 1.0)
    assert run.record().state == "Opening"


def test_a_new_connection_from_the_same_endpoint_takes_the_old_one_back_first(run: Run) -> None:
    run.send(SYN)
    (old,) = run.elsewhere.flows
    run.engine.lifecycle.on_offloaded_segment(old.slot, old.id, Side.ORIGINAL, RST_FLAG, 1.0)
    run.send(SYN, now=2.0)
    (new,) = run.elsewhere.flows
    assert new is not old
    assert new.snat_port == old.snat_port + 1  # the old port cools down


def test_an_enforced_rule_takes_flows_back(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (7, 3, 1.0)
    harder = configuration(TEXT % ", networkSecurityGroup: shut")
    run.engine.reconfigure(harder, 1.0)
    assert run.elsewhere.flows == [flow]  # live flows go on (A14)
    assert list(run.engine.review(enforce=True))[-1] == (1, 1)
    assert run.elsewhere.flows == []
    assert (flow.packets_out, flow.packets_in) == (8, 3)


def test_a_public_address_that_goes_takes_its_flows_back(run: Run) -> None:
    run.send(SYN)
    text = (TEXT % "").replace(
        "{name: pip, ipAddress: 203.0.113.10}", "{name: pip, ipAddress: 203.0.113.11}"
    )
    run.engine.reconfigure(configuration(text), 1.0)
    assert run.elsewhere.flows == []
    assert run.record().awaiting_removal


def test_a_hairpin_stays(run: Run) -> None:
    out = run.send("tcp 10.0.1.4:40000 > 203.0.113.30:80 syn", IngressPath.HAIRPIN)
    assert out is not None
    assert len(run.engine.flows) == 2
    assert run.elsewhere.flows == []


def test_between_vms_is_handed_over_too(run: Run) -> None:
    run.send("tcp 10.0.1.4:40000 > 10.0.2.4:80 syn", IngressPath.LATERAL)
    assert len(run.elsewhere.flows) == 1


def test_who_wants_to_see_every_packet_sees_them_and_then_no_longer(run: Run) -> None:
    run.send(SYN)
    run.send(SYN_ACK, IN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (4, 4, 1.0)
    assert list(run.engine.watch_flows(lambda flow: True)) == [None]
    assert run.elsewhere.flows == []
    assert (flow.packets_out, flow.packets_in) == (5, 5)
    run.send(SYN.replace("40000", "40001"))
    assert run.elsewhere.flows == []
    assert list(run.engine.watch_flows(None)) == [None]
    assert len(run.elsewhere.flows) == 2


def test_only_wanted_flows_are_taken_back(run: Run) -> None:
    for port in (40000, 40001, 40002):
        run.send(SYN.replace("40000", str(port)))
    run.send(UDP)  # one packet: not worth it, before or after
    first, second, third = list(run.elsewhere.flows)
    list(run.engine.watch_flows(lambda flow: flow is first or flow is second))
    assert run.elsewhere.flows == [third]
    list(run.engine.watch_flows(lambda flow: flow is second))
    assert run.elsewhere.flows == [third, first]
    run.send(UDP.replace("50000", "50001"))
    list(run.engine.watch_flows(None))
    assert run.elsewhere.flows == [third, first, second]


def test_who_comes_meanwhile_is_not_undone_by_who_goes(run: Run) -> None:
    run.send(SYN)
    going = run.engine.watch_flows(None)  # to be done in slices
    run.send(SYN.replace("40000", "40001"))
    list(run.engine.watch_flows(lambda flow: True))
    assert list(going) == []
    assert run.elsewhere.flows == []
    run.send(SYN.replace("40000", "40002"))
    assert run.elsewhere.flows == []


def test_the_sums_of_traffic_have_what_passed_elsewhere(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (10, 20, 1.0)
    *_, sums = run.engine.flows.traffic.walk(run.engine.flows)
    assert sums is not None
    (row,) = sums.rows.values()
    assert (row[0], row[2]) == (11, 20)


def test_flow_logs_count_what_passed_elsewhere(run: Run) -> None:
    run.send(SYN)
    (flow,) = run.elsewhere.flows
    run.elsewhere.passed[flow.id] = (10, 20, 299.0)
    log = run.engine.flow_log
    assert log is not None
    log.take(10)
    run.engine.expire(301.0)
    (entry,) = log.take(10)
    assert (entry.state, entry.packets_sent, entry.packets_received) == ("C", 11, 20)
    assert entry.bytes_sent == 1000 + len(build(SYN))
