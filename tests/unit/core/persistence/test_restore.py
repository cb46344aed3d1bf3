"""What an engine goes on with that no listing shows (the rest: tests/property/test_resuming.py)."""

from unittest.mock import Mock, call

import pytest

from gateway.core.flows.flow import Flow
from gateway.core.persistence.flow_record import pack, unpack
from gateway.core.persistence.restore import (
    ContradictionError,
    hand_back,
    resume_flow,
    resume_state,
)
from gateway.core.persistence.snapshot import SavedState, save
from tests.scenario import Scenario
from tests.unit.core.flows.test_resets import (
    BACK,
    OUT,
    RESETTING,
    exchange,
    resets_both_ends_when_idle,
)


def test_a_flow_that_idles_out_after_a_restart_resets_both_ends() -> None:
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    assert resume(before, after, flow) is not None
    resets_both_ends_when_idle(after)


def test_what_is_known_of_numbers_survives() -> None:
    """A SYN that comes again is no new connection, and a forged RST ends none."""
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    resumed = resume(before, after, flow)
    assert resumed is not None
    after.play(f"outside sends tcp {BACK} rst seq=907\nflows vm1 state=Established")
    after.play(f"vm1 sends tcp {OUT} fin ack seq=151 acks=908\nvm1 sends tcp {OUT} syn seq=100")
    assert [f.id for f in after.engine.flows] == [resumed.id]
    after.play(f"outside sends tcp {BACK} rst seq=908\nflows vm1 state=CoolDown")


def test_an_rst_ends_a_flow_that_had_passed_elsewhere_and_does_no_longer() -> None:
    """How far it got there was not written down."""
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    flow.offloaded = True
    assert resume(before, after, flow) is not None
    after.play(f"outside sends tcp {BACK} rst seq=3000000\nflows vm1 state=CoolDown")


def resume(before: Scenario, after: Scenario, flow: Flow, now: float = 0.0) -> Flow | None:
    """A flow as the next engine has it at the time ``now``."""
    saved = unpack(pack(flow, before.engine.flows, lambda flow: (0, 0, 0, 0)))
    assert saved is not None
    return resume_flow(after.engine, flow.slot, saved, lambda flow, seen: False, now)


def test_no_flow_gets_the_number_of_one_that_was_written_after_their_count_was() -> None:
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    (count,) = (state for state in save(before.engine) if state is not None)
    exchange(before)
    (flow,) = before.engine.flows
    resume_state(after.engine, count)
    assert resume(before, after, flow) is not None
    after.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    assert sorted(flow.id for flow in after.engine.flows) == [1, 2]


@pytest.mark.parametrize("opened", [-1, 1 << 63])
def test_a_count_of_flows_that_cannot_be_is_refused(opened: int) -> None:
    with pytest.raises(ContradictionError):
        resume_state(Scenario(RESETTING).engine, SavedState(opened))


def test_what_is_still_to_come_keeps_no_flow_alive() -> None:
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    flow.last_seen = 1e9
    assert resume(before, after, flow) is not None
    after.play("after 241 s\nflows vm1 none")


def test_a_flow_that_is_handed_over_is_written_down_again() -> None:
    """Else the next process does not know that the kernel carries it, and cuts it off."""
    scenario = Scenario(RESETTING)
    scenario.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    (flow,) = scenario.engine.flows
    scenario.engine.flows.touched = set()
    scenario.engine.lifecycle.offload = Mock(carried=Mock(return_value=None))
    scenario.engine.lifecycle.hand_over(flow)
    assert scenario.engine.flows.touched == {flow.slot}


def test_what_the_kernel_carries_is_handed_over_anew_where_its_times_are_others() -> None:
    """It ends a flow by its own clock, of which another part makes an Azure second now."""
    scenario = Scenario(RESETTING)
    scenario.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    (flow,) = scenario.engine.flows
    flow.packets_out = 3
    offload = scenario.engine.lifecycle.offload = Mock(carried=Mock(return_value=None))
    scenario.engine.lifecycle.hand_over(flow)
    offload.reset_mock()
    hand_back(scenario.engine, time_scale_changed=False)
    assert offload.mock_calls == []
    hand_back(scenario.engine, time_scale_changed=True)
    assert offload.mock_calls == [
        call.carried(flow),
        call.remove(flow),
        call.install(flow, (0, 0), waits=True),
    ]
    assert flow.offloaded
