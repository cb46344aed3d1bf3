"""A trace lists the stages that a packet passed, each with what it said."""

from __future__ import annotations

from gateway.core.explain import foresee
from gateway.core.ingress import IngressPath
from gateway.core.path_trace import Step
from gateway.core.pipeline import INBOUND, OUTBOUND
from tests.scenario import Scenario, build
from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.core.policy.test_nsg import NO_SMTP, network


def trace(scenario: Scenario, packet: str, ingress: IngressPath) -> list[Step]:
    return list(foresee(scenario.engine, build(packet), ingress, scenario.now).steps)


def test_a_first_packet_out() -> None:
    steps = trace(
        Scenario(network()), "tcp 10.0.1.4:40000 > 198.51.100.1:443 syn", IngressPath.OUTBOUND
    )
    assert [step.stage for step in steps] == [stage.__name__ for stage in OUTBOUND]
    said = {step.stage: step.detail for step in steps if step.detail}
    assert said["find_by_original"] == "no flow"
    assert said["open_outbound_flow"] == "DefaultOutboundAccess, 203.0.113.10:1024"
    assert steps[-1] == Step("translate_source", "Forward", "203.0.113.10:1024 > 198.51.100.1:443")


def test_a_denied_packet_stops_at_admission() -> None:
    steps = trace(
        Scenario(network(NO_SMTP)), "tcp 10.0.1.4:40000 > 198.51.100.1:25 syn", IngressPath.OUTBOUND
    )
    assert steps[-1] == Step("admit_outbound", "Drop", "DeniedBySecurityRule")


def test_a_packet_of_a_live_flow_is_not_judged_again() -> None:
    scenario = Scenario(network())
    scenario.play("vm1 sends udp 10.0.1.4:40000 > 198.51.100.1:53")
    steps = trace(scenario, "udp 10.0.1.4:40000 > 198.51.100.1:53", IngressPath.OUTBOUND)
    said = {step.stage: step.detail for step in steps}
    assert said["find_by_original"] == "flow 1, Opening"
    assert said["admit_outbound"] == "not asked: it belongs to a flow"
    assert said["open_outbound_flow"] == "not needed: it belongs to a flow"


def test_a_hairpin_passes_both_paths() -> None:
    steps = trace(Scenario(TWO), "tcp 10.0.1.6:40000 > 203.0.113.20:80 syn", IngressPath.HAIRPIN)
    names = [step.stage for step in steps]
    assert names == [
        "hairpin_to_public",
        "foresee_second_half",
        "first_half_out",
        *(stage.__name__ for stage in OUTBOUND),
        *(stage.__name__ for stage in INBOUND),
    ]
    assert steps[2].detail == "comes in again: 203.0.113.30:40000 > 203.0.113.20:80"
