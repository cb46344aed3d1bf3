"""TCP's states against RFC 9293, 5961 and 5382: repetitions, crossings, old and forged segments."""

from __future__ import annotations

import pytest

from gateway.core.flows.tcp import State
from tests.scenario import Scenario, build
from tests.unit.core.snat.test_outbound_methods import NETWORK

TEXT = """
gateway: {inside: [lan0], outside: wan0%s}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}, {name: data, addressPrefix: 10.0.2.0/24}]
publicIPAddresses: [{name: pip, ipAddress: 203.0.113.10}, {name: own, ipAddress: 203.0.113.30}]
%s
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: own}
"""
DEFAULT = TEXT % ("", "defaultOutboundAccess: {publicIPAddresses: [pip]}")
NAT = TEXT % (
    ", profile: azure-current",
    "natGateways: [{name: nat, publicIPAddresses: [pip], subnets: [web]}]",
)
OUT, BACK = "10.0.1.4:5 > 198.51.100.1:443", "198.51.100.1:443 > 203.0.113.10:1024"
SYN = f"vm1 sends tcp {OUT} syn seq=1000\n"
SYN_ACK = f"outside sends tcp {BACK} syn ack seq=5000 acks=1001\n"
ACK = f"vm1 sends tcp {OUT} ack seq=1001 acks=5001\n"
DATA = f"vm1 sends tcp {OUT} ack len=100 seq=1001 acks=5001\n"
ANSWER = f"outside sends tcp {BACK} ack len=50 seq=5001 acks=1101\n"
FIN = f"vm1 sends tcp {OUT} fin ack seq=1101 acks=5051\n"
FIN_BACK = f"outside sends tcp {BACK} fin ack seq=5051 acks=1102\n"
LAST_ACK = f"vm1 sends tcp {OUT} ack seq=1102 acks=5052\n"
RST = f"vm1 sends tcp {OUT} rst ack seq=1101 acks=5051\n"
TO = {
    State.OPENING: SYN,
    State.ESTABLISHED: SYN + SYN_ACK + ACK + DATA + ANSWER,
    State.FIN_FROM_ORIGINAL: SYN + SYN_ACK + ACK + DATA + ANSWER + FIN,
    State.FIN_FROM_REPLY: SYN
    + SYN_ACK
    + ACK
    + DATA
    + ANSWER
    + FIN_BACK.replace("acks=1102", "acks=1101"),
    State.FINISHED: SYN + SYN_ACK + ACK + DATA + ANSWER + FIN + FIN_BACK + LAST_ACK,
    State.RESET: SYN + SYN_ACK + ACK + DATA + ANSWER + RST,
}


def run(script: str, text: str = DEFAULT) -> Scenario:
    scenario = Scenario(text)
    scenario.play(script)
    return scenario


def states(scenario: Scenario) -> list[State]:
    return [flow.state for flow in sorted(scenario.engine.flows, key=lambda flow: flow.id)]


@pytest.mark.parametrize("state", TO)
def test_every_state_is_reached(state: State) -> None:
    assert states(run(TO[state])) == [state]


# -- what is repeated is not new

REPEATED = {"SYN-ACK": SYN_ACK, "first ACK": ACK, "data": DATA, "answer": ANSWER}


@pytest.mark.parametrize("what", REPEATED)
@pytest.mark.parametrize("state", [state for state in State if state is not State.OPENING])
def test_a_repeated_segment_changes_nothing(state: State, what: str) -> None:
    scenario = run(TO[state])
    scenario.play(REPEATED[what])
    assert scenario.verdict is not None
    assert states(scenario) == [state]


@pytest.mark.parametrize("state", [state for state in State if state is not State.RESET])
def test_a_repeated_syn_passes_with_its_flow_and_changes_nothing(state: State) -> None:
    scenario = run(TO[state])
    scenario.play(SYN + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn")
    assert states(scenario) == [state]


@pytest.mark.parametrize("nonsense", ["syn fin", "syn fin ack", "syn ack"])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("number", [1000, 99_000])
def test_what_is_no_opening_syn_opens_nothing(state: State, nonsense: str, number: int) -> None:
    scenario = run(TO[state])
    scenario.play(f"vm1 sends tcp {OUT} {nonsense} seq={number} acks=5051")
    assert scenario.verdict is not None
    assert states(scenario) == [state]


@pytest.mark.parametrize("flags", ["syn fin", "syn rst", "syn rst ack"])
def test_nonsense_opens_no_flow(flags: str) -> None:
    run(f"vm1 sends tcp {OUT} {flags} seq=1\ndropped TcpWithoutFlow")


def test_a_repeated_syn_ack_leaves_a_half_closed_connection_alone() -> None:
    """The client sends, shuts down and reads; its last ACK of the handshake was lost."""
    scenario = run(TO[State.FIN_FROM_ORIGINAL])
    scenario.play(
        SYN_ACK
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 syn ack\n"
        + f"vm1 sends tcp {OUT} ack seq=1102 acks=5051\n"
        + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 ack\n"
        + FIN_BACK
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 ack fin"
    )
    assert states(scenario) == [State.FINISHED]


# -- what is new

NEW_SYN = f"vm1 sends tcp {OUT} syn seq=99000\n"


@pytest.mark.parametrize(
    "state", [State.FIN_FROM_ORIGINAL, State.FIN_FROM_REPLY, State.FINISHED, State.RESET]
)
def test_a_syn_with_another_number_is_a_new_connection_once_one_side_has_closed(
    state: State,
) -> None:
    scenario = run(TO[state])
    scenario.play(NEW_SYN + "outside sees tcp 203.0.113.10:1025 > 198.51.100.1:443 syn")
    assert states(scenario) == [state, State.OPENING]
    # and the old SYN is an old duplicate from now on, however often it comes
    scenario.play(
        "outside sends tcp 198.51.100.1:443 > 203.0.113.10:1025 syn ack seq=7000 acks=99001\n"
        + SYN
        + "outside sees tcp 203.0.113.10:1025 > 198.51.100.1:443 syn"
    )
    assert states(scenario) == [state, State.ESTABLISHED]


def test_an_old_syn_does_not_take_its_flow_from_a_half_closed_connection() -> None:
    scenario = run(TO[State.FIN_FROM_ORIGINAL])
    scenario.play(
        f"vm1 sends tcp {OUT} syn seq=10\n"
        "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn\n"
    )
    assert states(scenario) == [State.FIN_FROM_ORIGINAL]


def test_who_gave_up_and_tries_again_goes_on_with_the_same_port() -> None:
    scenario = run(SYN + NEW_SYN + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn")
    scenario.play(f"outside sends tcp {BACK} rst ack seq=0 acks=1001\nflows vm1 state=Opening")
    scenario.play(
        f"outside sends tcp {BACK} syn ack seq=5000 acks=99001\nflows vm1 state=Established"
    )


def test_an_old_syn_after_the_new_one_does_not_keep_the_connection_from_being_established() -> None:
    """RFC 9293, figure 8, with the duplicate later still: which SYN was answered the client knows."""
    scenario = run(SYN + f"vm1 sends tcp {OUT} syn seq=500000000\n" + SYN_ACK)
    assert states(scenario) == [State.OPENING]
    scenario.play(ACK)
    assert states(scenario) == [State.ESTABLISHED]
    assert scenario.engine.flows.numbers.opening[0] == 1000
    scenario.play(FIN + SYN)
    assert states(scenario) == [State.FIN_FROM_ORIGINAL]


# -- half-open connections (RFC 9293, 3.5.1)


def test_a_client_that_has_forgotten_its_connection_gets_a_new_one() -> None:
    """Figure 9: the remote acknowledges what it knows, the client resets it and sends its SYN
    again, which passes with the same port."""
    scenario = run(
        TO[State.ESTABLISHED]
        + NEW_SYN
        + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn\n"
        + f"outside sends tcp {BACK} ack seq=5051 acks=1101\n"
    )
    assert states(scenario) == [State.ESTABLISHED]
    scenario.play(f"vm1 sends tcp {OUT} rst seq=1101")
    assert states(scenario) == [State.RESET]
    scenario.play(NEW_SYN + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn")
    assert states(scenario) == [State.OPENING]
    scenario.play(
        f"outside sends tcp {BACK} syn ack seq=7000 acks=99001\n"
        "after 60 s\n"
        "flows vm1 state=Established expires_in=180\n"
        "ports vm1 203.0.113.10 Tcp used=1"
    )


def test_a_flow_that_the_gateway_has_forgotten_and_the_remote_has_not_is_opened() -> None:
    """The remote's old ACK answers the SYN; the client resets that, and tries again."""
    scenario = run(
        SYN
        + f"outside sends tcp {BACK} ack seq=88000 acks=77000\n"
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 ack\n"
        + f"vm1 sends tcp {OUT} rst seq=77000\n"
        + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 rst\n"
    )
    assert states(scenario) == [State.OPENING]
    scenario.play("after 1 s\n" + SYN + SYN_ACK + ACK)
    assert states(scenario) == [State.ESTABLISHED]


def test_both_have_forgotten_and_the_new_connection_closes_as_any_other() -> None:
    scenario = run(
        TO[State.ESTABLISHED]
        + NEW_SYN
        + f"outside sends tcp {BACK} syn ack seq=7000 acks=99001\n"
        + f"vm1 sends tcp {OUT} ack seq=99001 acks=7001\n"
        + f"vm1 sends tcp {OUT} fin ack seq=99001 acks=7001\n"
        + NEW_SYN
        + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn\n"
    )
    assert states(scenario) == [State.FIN_FROM_ORIGINAL]


def test_both_have_forgotten_and_nobody_listens() -> None:
    """The refusal acknowledges the SYN, and has no number of its own: its port is held for 15 s."""
    scenario = run(
        TO[State.ESTABLISHED]
        + NEW_SYN
        + f"outside sends tcp {BACK} rst ack seq=0 acks=99001\n"
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 ack rst\n"
    )
    assert states(scenario) == [State.RESET]
    scenario.play("after 16 s\nflows vm1 none")


def test_a_repeated_syn_of_a_flow_that_lives_lets_no_other_rst_in() -> None:
    scenario = run(
        TO[State.ESTABLISHED] + SYN + f"outside sends tcp {BACK} rst ack seq=0 acks=1001\n"
    )
    assert states(scenario) == [State.ESTABLISHED]


def test_both_open_at_once() -> None:
    """RFC 9293, figure 7; RFC 5382, REQ-2."""
    scenario = run(
        SYN
        + f"outside sends tcp {BACK} syn seq=5000\n"
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 syn\n"
        + f"vm1 sends tcp {OUT} syn ack seq=1000 acks=5001\n"
        + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn ack\n"
        + SYN_ACK
        + "vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 syn ack\n"
    )
    assert states(scenario) == [State.ESTABLISHED]


@pytest.mark.parametrize("taken", [0, 500])
def test_data_in_the_syn_may_be_acknowledged(taken: int) -> None:
    """TCP Fast Open (RFC 7413)."""
    scenario = run(
        f"vm1 sends tcp {OUT} syn seq=1000 len=500\n"
        f"outside sends tcp {BACK} syn ack seq=5000 acks={1001 + taken}\n"
    )
    assert states(scenario) == [State.ESTABLISHED]


# -- RSTs


@pytest.mark.parametrize("text", [DEFAULT, NAT], ids=["default", "NAT gateway"])
@pytest.mark.parametrize(
    "old", ["rst seq=4711", "rst seq=1001", "rst ack seq=4711 acks=900", "rst ack seq=0 acks=1000"]
)
def test_an_old_rst_that_crosses_the_syn_leaves_the_new_connection_alone(
    old: str, text: str
) -> None:
    """It acknowledges nothing, or not this SYN (RFC 9293, 3.10.7.3)."""
    scenario = run(SYN, text)
    (flow,) = scenario.engine.flows
    back = f"198.51.100.1:443 > 203.0.113.10:{flow.snat_port}"
    seen = "ack rst" if "ack" in old.split() else "rst"
    scenario.play(
        f"outside sends tcp {back} {old}\n"
        f"vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:5 {seen}\n"
        f"outside sends tcp {back} syn ack seq=5000 acks=1001\n" + ACK + "after 100 s\n" + DATA
    )
    assert states(scenario) == [State.ESTABLISHED]


def test_a_refusal_ends_the_flow_and_the_syn_again_asks_again_on_its_port() -> None:
    refused = f"outside sends tcp {BACK} rst ack seq=0 acks=1001\n"
    scenario = run(SYN + refused)
    assert states(scenario) == [State.RESET]
    scenario.play(
        "after 10 s\n" + SYN + "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn"
    )
    assert states(scenario) == [State.OPENING]
    scenario.play(
        refused
        + "after 14 s\nports vm1 203.0.113.10 Tcp used=1\n"
        + "after 2 s\nports vm1 203.0.113.10 Tcp used=0\nflows vm1 none"
    )


@pytest.mark.parametrize("who", ["vm1", "outside"])
@pytest.mark.parametrize(
    ("beyond", "taken"),
    [(0, True), (1000, True), (1 << 16, True), (-1, False), (65537, False), (1 << 31, False)],
)
@pytest.mark.parametrize("state", [state for state in TO if state > State.OPENING])
@pytest.mark.parametrize("flags", ["rst", "rst ack"])
def test_an_rst_ends_a_flow_if_it_is_where_its_receiver_is(
    state: State, who: str, beyond: int, taken: bool, flags: str
) -> None:
    """At what that acknowledged last, or a little further: data may be under way."""
    scenario = run(TO[state])
    private, remote = scenario.engine.flows.numbers.acknowledged
    number = ((remote if who == "vm1" else private)[0] + beyond) % (1 << 32)
    scenario.play(f"{who} sends tcp {OUT if who == 'vm1' else BACK} {flags} seq={number} acks=7")
    assert scenario.verdict is not None
    assert states(scenario) == [State.RESET if taken else state]


def test_what_the_established_way_saw_acknowledged_counts() -> None:
    """Far from where the connection began."""
    scenario = run(TO[State.ESTABLISHED])
    for step in range(1, 50):
        sent, got = 1101 + step * 60_000, 5051 + step * 60_000
        scenario.play(
            f"vm1 sends tcp {OUT} ack len=100 seq={sent} acks={got}\n"
            f"outside sends tcp {BACK} ack len=100 seq={got} acks={sent + 100}\n"
        )
    for nothing in (f"vm1 sends tcp {OUT}", f"outside sends tcp {BACK}"):  # without ACK
        scenario.play(f"{nothing} len=9 seq=7 acks=7")
    scenario.play(f"outside sends tcp {BACK} rst seq=5051\nflows vm1 state=Established")
    scenario.play(f"vm1 sends tcp {OUT} rst seq=1101\nflows vm1 state=Established")
    scenario.play(f"vm1 sends tcp {OUT} rst seq=7\nflows vm1 state=Established")
    scenario.play(
        f"outside sends tcp {BACK} rst seq={5051 + 49 * 60_000}\nflows vm1 state=CoolDown"
    )


# -- the other way round, and between VMs


def test_inbound_it_is_the_other_side_that_opens() -> None:
    inward, outward = "198.51.100.1:6 > 203.0.113.30:80", "10.0.1.6:80 > 198.51.100.1:6"
    begin = (
        f"outside sends tcp {inward} syn seq=1000\nvm3 sees tcp 198.51.100.1:6 > 10.0.1.6:80 syn\n"
    )
    answer = f"vm3 sends tcp {outward} syn ack seq=5000 acks=1001\n"
    scenario = run(begin)
    scenario.play(f"vm3 sends tcp {outward} rst seq=4711\nvm3 sends tcp {outward} rst ack acks=10")
    assert states(scenario) == [State.OPENING]
    scenario.play(answer)
    assert states(scenario) == [State.ESTABLISHED]
    scenario.play(f"outside sends tcp {inward} ack seq=1001 acks=5001\n")
    scenario.play(f"outside sends tcp {inward} rst seq=77\n")
    scenario.play(f"vm3 sends tcp {outward} fin ack seq=5001 acks=1001\n")
    closing = states(scenario)
    scenario.play(begin + answer)
    assert states(scenario) == closing
    scenario.play(f"outside sends tcp {inward} rst seq=1001\nflows vm3 state=Closed")
    scenario.play(f"outside sends tcp {inward} syn seq=2000\nflows vm3 state=Opening")


def test_between_vms_the_same_holds() -> None:
    scenario = Scenario(DEFAULT)
    there, back = "10.0.1.4:5 > 10.0.2.4:80", "10.0.2.4:80 > 10.0.1.4:5"

    def send(text: str) -> State:
        assert scenario.send_between(build("tcp " + text)) is not None
        (flow,) = scenario.engine.flows
        return flow.state

    assert send(f"{there} syn seq=1000") is State.OPENING
    assert send(f"{back} rst seq=9") is State.OPENING
    assert send(f"{back} syn ack seq=5000 acks=1001") is State.ESTABLISHED
    assert send(f"{there} ack seq=1001 acks=5001") is State.ESTABLISHED
    assert send(f"{back} rst seq=4000") is State.ESTABLISHED
    assert send(f"{there} fin ack seq=1001 acks=5001") is State.FIN_FROM_ORIGINAL
    assert send(f"{back} syn ack seq=5000 acks=1001") is State.FIN_FROM_ORIGINAL
    assert send(f"{there} syn seq=1000") is State.FIN_FROM_ORIGINAL
    assert send(f"{back} rst seq=5001") is State.RESET
    assert send(f"{there} syn seq=3000") is State.OPENING


def test_a_simultaneous_open_comes_about_also_between_two_vms_that_are_both_translated() -> None:
    """RFC 5382, REQ-2: two SYNs that cross, and a SYN-ACK for each."""
    out, back = "10.0.1.4:1 > 198.51.100.1:443", "198.51.100.1:443 > 203.0.113.10:1024"
    Scenario(NETWORK).play(f"""
        vm1 sends      tcp {out} syn
        outside sends  tcp {back} syn
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:1 syn
        vm1 sends      tcp {out} syn ack
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn ack
        outside sends  tcp {back} syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:1 syn ack
        vm1 sends      tcp {out} ack
        flows          vm1 state=Established
    """)
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:1 > 203.0.113.20:1024 syn
        dropped        HairpinWithoutRule
        vm2 sends      tcp 10.0.1.5:1 > 203.0.113.10:1024 syn
        vm1 sees       tcp 203.0.113.20:1024 > 10.0.1.4:1 syn
        vm1 sends      tcp 10.0.1.4:1 > 203.0.113.20:1024 syn ack
        vm2 sees       tcp 203.0.113.10:1024 > 10.0.1.5:1 syn ack
    """)
