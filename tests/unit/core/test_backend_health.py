"""How probes' results become health, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.backend_health import FLAP_WINDOW, LONGEST_WAIT, ProbeHysteresis, probe_targets
from gateway.core.events import NoHealthyBackends
from gateway.model.checks.inbound_rules import threshold
from gateway.model.configuration import Configuration
from gateway.model.profile import AZURE_2017
from tests.scenario import Scenario, configuration
from tests.unit.core.inbound.test_load_balancer import TO_VM1, TWO


def played(streak: ProbeHysteresis, results: str, *, start: float = 0.0, step: float = 5.0) -> str:
    """Results (``+`` and ``-``) to the health after each: U, D, or ? while unknown."""
    found = ""
    for number, result in enumerate(results):
        streak.result(result == "+", start + number * step)
        found += {True: "U", False: "D", None: "?"}[streak.up]
    return found


@pytest.mark.parametrize(
    ("threshold", "results", "healths"),
    [
        (1, "+-+", "UDU"),
        (2, "+-+-", "????"),
        (2, "++-+--++", "?UUUUDDU"),
        (3, "--+---", "?????D"),
        (3, "+++" + "-" * 3, "??UUUD"),
    ],
)
def test_a_threshold_of_results_in_a_row_changes_health_either_way(
    threshold: int, results: str, healths: str
) -> None:
    # A member that comes back waits no longer here: these go down before they flap.
    streak = ProbeHysteresis(threshold, interval=0.1)
    assert played(streak, results) == healths


def test_a_member_that_flaps_needs_more_successes_each_time_and_earns_it_back() -> None:
    streak = ProbeHysteresis(1, interval=5.0)
    assert played(streak, "+-") == "UD"
    assert played(streak, "++", start=100) == "DU"  # two instead of one
    assert played(streak, "-", start=110) == "D"
    assert played(streak, "++++", start=200) == "DDDU"  # four
    quiet = 220 + FLAP_WINDOW * 5.0
    assert played(streak, "+", start=quiet) == "U"
    assert played(streak, "-", start=quiet + 5) == "D"
    assert played(streak, "+", start=quiet + 10) == "U"
    for _ in range(20):
        while streak.up:
            streak.result(False, 1000.0)
        needed = 0
        while not streak.up:
            streak.result(True, 1000.0)
            needed += 1
        assert needed <= LONGEST_WAIT
    assert needed == LONGEST_WAIT


def test_what_was_known_before_counts() -> None:
    assert played(ProbeHysteresis(2, 5.0, True), "-+--") == "UUUD"
    assert played(ProbeHysteresis(2, 5.0, False), "+-++") == "DDDU"


def test_probe_targets_are_vms_of_rules_with_a_probe_once_for_each_probe() -> None:
    targets = probe_targets(configuration(TWO))
    assert [(t.target.vm, str(t.address), t.port) for t in targets] == [
        ("vm1", "10.0.1.4", 8080),
        ("vm2", "10.0.1.5", 8080),
    ]
    assert {(t.protocol, t.interval, t.timeout, t.threshold) for t in targets} == {
        ("Tcp", 15.0, 15.0, 1)
    }
    long = configuration(TWO.replace("port: 8080}]", "port: 8080, intervalInSeconds: 60}]"))
    assert {t.timeout for t in probe_targets(long)} == {30.0}


def standard() -> Configuration:
    """The same with a Standard load balancer."""
    loaded = configuration(TWO)
    balancer = loaded.load_balancers[0].model_copy(update={"sku": "Standard"})
    return loaded.model_copy(update={"load_balancers": (balancer,)})


def test_a_standard_load_balancer_keeps_tcp_when_all_are_down_and_says_so_every_hour() -> None:
    scenario = Scenario("", loaded=standard())
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53
        probe          lb/p vm1 down
        event          ProbeHealthChanged vm=vm1
        probe          lb/p vm2 down
        event          NoHealthyBackends public_ip=203.0.113.20 port=80 protocol=Tcp rule=web balancer=lb
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53
        dropped        NoHealthyBackend
        outside sends  tcp 198.51.100.2:{TO_VM1} > 203.0.113.20:80 syn
        dropped        NoHealthyBackend
        event          PacketsDropped
        after          59 min
        after          2 min
        event          NoHealthyBackends rule=dns port=53
        after          58 min
        events         none
        probe          lb/p vm2 up
        event          ProbeHealthChanged vm=vm2 up=True
        after          60 min
        events         none
    """)


def test_a_pool_of_one_is_ended_by_a_standard_load_balancer_too() -> None:
    text = TWO.replace("[vm1, vm2]", "[vm1]")
    loaded = configuration(text)
    balancer = loaded.load_balancers[0].model_copy(update={"sku": "Standard"})
    loaded = loaded.model_copy(update={"load_balancers": (balancer,)})
    Scenario("", loaded=loaded).play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:80 syn
        probe          lb/p vm1 down
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:80 ack
        dropped        TcpWithoutFlow
    """)


def test_a_basic_load_balancer_has_no_such_event() -> None:
    scenario = Scenario(TWO)
    scenario.play("probe lb/p vm1 down\nprobe lb/p vm2 down")
    assert not [event for event in scenario._events if isinstance(event, NoHealthyBackends)]


def test_number_of_probes_counts_where_the_profile_says() -> None:
    text = TWO.replace("port: 8080}]", "port: 8080, numberOfProbes: 3}]")
    assert {t.threshold for t in probe_targets(configuration(text))} == {3}
    (probe,) = configuration(text).load_balancers[0].probes
    assert threshold(probe, replace(AZURE_2017, number_of_probes_counts=False)) == 1
