"""What an engine goes on with that no listing shows (the rest: tests/property/test_resuming.py)."""

from gateway.core.flow_state import pack, unpack
from gateway.core.resuming import resume_flow, resume_state
from gateway.core.saved_state import save
from tests.scenario import Scenario
from tests.unit.core.test_resets import RESETTING, exchange, sent


def test_a_flow_that_idles_out_after_a_restart_resets_both_ends() -> None:
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    saved = unpack(pack(flow, before.engine.flows, lambda flow: (0, 0, 0, 0)))
    assert saved is not None
    assert resume_flow(after.engine, flow.slot, saved, lambda flow, seen: False, 0.0) is not None
    after.play("after 239 s")
    assert sent(after) == []
    after.play("after 2 s\nflows vm1 none")
    assert sent(after) == [
        ("198.51.100.1:443", "10.0.1.4:5", "R", 908, 0),
        ("203.0.113.20:1024", "198.51.100.1:443", "R", 151, 0),
    ]


def test_a_record_of_anything_else_is_none() -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    (flow,) = scenario.engine.flows
    record = pack(flow, scenario.engine.flows, lambda flow: (1, 2, 3, 4))
    whole = unpack(record)
    assert whole is not None
    assert whole.id == flow.id
    for at in range(len(record)):
        assert unpack(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]) is None
    assert unpack(record[:-1]) is None
    assert unpack(b"") is None


def test_a_new_flow_has_a_number_that_no_resumed_one_has() -> None:
    """The number of the latest flow is saved a second later than the flow may be."""
    before, after = Scenario(RESETTING), Scenario(RESETTING)
    exchange(before)
    (flow,) = before.engine.flows
    saved = unpack(pack(flow, before.engine.flows, lambda flow: (0, 0, 0, 0)))
    assert saved is not None
    resume_state(after.engine, next(filter(None, save(Scenario(RESETTING).engine))))
    assert resume_flow(after.engine, flow.slot, saved, lambda flow, seen: False, 0.0) is not None
    after.play("vm1 sends tcp 10.0.1.4:6 > 198.51.100.1:443 syn")
    assert len({flow.id for flow in after.engine.flows}) == 2
