"""Which flows a reload ends or breaks: those that lost what they stood on, and no others."""

from __future__ import annotations

from itertools import count

from gateway.core.reload.flow_eviction import Eviction, is_in_place
from gateway.core.reload.resolved import resolve
from gateway.core.snat.plan import plan
from tests.scenario import Scenario, build, configuration
from tests.unit.core.reload.test_network_changes import TOWN, WITHOUT_DATA

SSH = "    inboundNatRules:"
WITHOUT_VM2S_ADDRESS = TOWN.replace(", publicIPAddress: pip-vm2", "")


def test_flows_of_an_address_that_moved_end_and_all_others_go_on() -> None:
    run = Scenario(TOWN)
    run.play("""
        vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        vm2 sends  tcp 10.0.1.5:40000 > 198.51.100.1:443 syn
        vm2 sends  udp 10.0.1.5:40000 > 198.51.100.1:53
    """)
    run.reconfigure(WITHOUT_VM2S_ADDRESS)
    run.play("""
        flows          vm2 none
        event          FlowsEnded flows=2
        flows          vm1 state=Opening
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
    """)


def test_flows_of_an_inbound_rule_end_with_it_and_those_of_the_other_rule_go_on() -> None:
    run = Scenario(TOWN)
    run.play("""
        probe          lb/p vm3 up
        outside sends  tcp 198.51.100.1:5000 > 203.0.113.20:80 syn
        vm3 sees       tcp 198.51.100.1:5000 > 10.0.1.6:80 syn
        outside sends  tcp 198.51.100.1:5000 > 203.0.113.20:50001 syn
        vm3 sees       tcp 198.51.100.1:5000 > 10.0.1.6:22 syn
    """)
    _, ssh = sorted(run.engine.flows, key=lambda flow: flow.id)
    assert is_in_place(run.engine.outbound, ssh)
    said = run.reconfigure(TOWN[: TOWN.index("    loadBalancingRules:")] + TOWN[TOWN.index(SSH) :])
    assert said[-1].startswith("1 flow ended")
    assert list(run.engine.flows) == [ssh]


def test_flows_of_a_subnet_that_went_end_and_so_do_those_to_it() -> None:
    run = Scenario(TOWN)
    run.play("vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:443 syn")
    run.play("10.1.2.7 sends udp 10.1.2.7:5000 > 198.51.100.1:53")
    run.send_between(build("udp 10.0.1.4:5000 > 10.1.2.7:53"))
    run.send_between(build("udp 10.0.1.4:5000 > 10.0.1.5:53"))
    assert len(run.engine.flows) == 4
    run.reconfigure(WITHOUT_DATA)
    assert sorted(record.remote_ip for record in run.flow_list()) == ["10.0.1.5", "198.51.100.1"]


def test_what_opens_while_others_are_looked_at_is_looked_at_last() -> None:
    run = Scenario(TOWN)
    run.play("vm2 sends tcp 10.0.1.5:40000 > 198.51.100.1:443 syn")
    after = configuration(WITHOUT_VM2S_ADDRESS)
    eviction = Eviction(run.engine.lifecycle, plan(after, after.profile), {})
    for _ in eviction.prepare(set(), (), None):
        pass
    for _ in eviction.sweep():
        run.play("vm2 sends tcp 10.0.1.5:40001 > 198.51.100.1:443 syn")
    assert eviction.misplaced == 1
    run.play("flows vm2 private_port=40001")
    eviction.finish()
    assert eviction.misplaced == 2
    run.play("flows vm2 none")


def test_a_flow_that_opens_to_a_vm_that_goes_ends_whenever_it_opens() -> None:
    """Also to one that had none when it was asked whether there is anything to end."""
    vm0 = "  - {name: vm0, privateIPAddress: 10.0.1.9}\n"
    before = TOWN.replace("  - {name: vm1,", f"{vm0}  - {{name: vm1,").replace(
        "[vm3]", "[vm0, vm3]"
    )
    after = resolve(configuration(TOWN))
    for step in count():
        run = Scenario(before)
        run.play("probe lb/p vm0 up")
        run.play("probe lb/p vm3 down")
        taken = 0
        for _ in run.engine.reconfiguring(after, lambda: 1.0):
            if taken == step:
                run.play("outside sends tcp 198.51.100.1:5000 > 203.0.113.20:80 syn")
                assert len(run.engine.flows) == 1
            taken += 1
        assert list(run.engine.flows) == []
        if taken <= step:
            break


def test_where_nothing_goes_no_flow_is_looked_at() -> None:
    run = Scenario(TOWN)
    run.play("vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:443 syn")
    same = configuration(TOWN)
    eviction = Eviction(run.engine.lifecycle, plan(same, same.profile), {})
    for _ in eviction.prepare(set(), (), None):
        pass
    assert list(eviction.sweep()) == []
    run.play("flows vm1 state=Opening")
