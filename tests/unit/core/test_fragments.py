"""What came in fragments, where the profile tells it apart (docs/fidelity.md P8)."""

import pytest

from gateway.core.engine import Engine
from gateway.core.ingress import IngressPath
from tests.scenario import build, configuration
from tests.unit.core.test_closed_frontends import GROUPED, WAYS

OUT, IN, HAIRPIN = (
    IngressPath.OUTBOUND_IN_FRAGMENTS,
    IngressPath.INBOUND_IN_FRAGMENTS,
    IngressPath.HAIRPIN_IN_FRAGMENTS,
)


def drops(engine: Engine) -> dict[str, int]:
    counted: dict[str, int] = engine.status(0.0)["drops"]
    return counted


def test_only_a_vms_own_public_ip_takes_fragments() -> None:
    engine = Engine(configuration(GROUPED), seed=1)
    assert engine.handle(build("udp 10.0.1.6:4000 > 198.51.100.1:53"), OUT, 0.0)
    assert engine.handle(build("udp 198.51.100.1:53 > 203.0.113.30:4000"), IN, 0.0)
    assert engine.handle(build("udp 198.51.100.2:9 > 203.0.113.30:9"), IN, 0.0)
    assert drops(engine) == {}
    assert engine.handle(build("udp 10.0.1.4:4000 > 198.51.100.1:53"), OUT, 0.0) is None
    assert drops(engine) == {"FragmentsNotSupported": 1}
    assert [flow.machine.name for flow in engine.flows] == ["vm3", "vm3"]  # no port was taken


def test_a_live_snat_flow_takes_none_either_way() -> None:
    engine = Engine(configuration(GROUPED), seed=1)
    out = engine.handle(build("udp 10.0.1.4:4000 > 198.51.100.1:53"), IngressPath.OUTBOUND, 0.0)
    assert out is not None
    public = f"203.0.113.20:{int.from_bytes(out[20:22], 'big')}"
    assert engine.handle(build("udp 10.0.1.4:4000 > 198.51.100.1:53"), OUT, 0.0) is None
    assert engine.handle(build(f"udp 198.51.100.1:53 > {public}"), IN, 0.0) is None
    assert drops(engine) == {"FragmentsNotSupported": 2}
    assert engine.handle(build(f"udp 198.51.100.1:53 > {public}"), IngressPath.INBOUND, 0.0)


@pytest.mark.parametrize("packet", WAYS[:2])
def test_load_balancing_rules_and_inbound_nat_rules_take_none(packet: str) -> None:
    engine = Engine(configuration(GROUPED), seed=1)
    assert engine.handle(build(packet), IN, 0.0) is None
    assert drops(engine) == {"FragmentsNotSupported": 1}


def test_who_may_not_send_at_all_hears_that_first() -> None:
    engine = Engine(configuration(GROUPED), seed=1)
    assert engine.handle(build("udp 10.9.9.9:4000 > 198.51.100.1:53"), OUT, 0.0) is None
    assert engine.handle(build("udp 10.0.1.4:4000 > 203.0.113.20:9"), HAIRPIN, 0.0) is None
    assert engine.handle(build("udp 198.51.100.1:9 > 203.0.113.20:9"), IN, 0.0) is None
    assert drops(engine) == {
        "SourceNotInVirtualNetwork": 1,
        "FragmentsNotSupported": 1,
        "InboundWithoutFlow": 1,
    }
