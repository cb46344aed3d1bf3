"""What flow logs are told by the engine: begin, continue, end, deny, and nothing when off."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any
from unittest.mock import Mock, patch

import pytest

from gateway.core.observe import flow_log
from gateway.core.observe.flow_log import FlowLog, FlowLogEntry
from tests.scenario import Scenario, build

TEXT = """
gateway: {inside: [lan0], outside: wan0, flowLogs: %s}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: subnet-nsg}
    - {name: data, addressPrefix: 10.0.2.0/24}
    - {name: guarded, addressPrefix: 10.0.3.0/24, networkSecurityGroup: data-nsg}
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-vm2, ipAddress: 203.0.113.30, idleTimeoutInMinutes: 30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2, networkSecurityGroup: nic-nsg}
  - {name: vm3, privateIPAddress: 10.0.2.4}
  - {name: vm4, privateIPAddress: 10.0.3.4}
networkSecurityGroups:
  - name: subnet-nsg
    securityRules:
      - {name: no-smtp, priority: 100, direction: Outbound, access: Deny, protocol: Tcp,
         sourceAddressPrefix: '*', sourcePortRange: '*',
         destinationAddressPrefix: Internet, destinationPortRange: '25'}
      - {name: web, priority: 110, direction: Inbound, access: Allow, protocol: Tcp,
         sourceAddressPrefix: Internet, sourcePortRange: '*',
         destinationAddressPrefix: '*', destinationPortRange: '80'}
  - name: nic-nsg
    securityRules:
      - {name: web-too, priority: 110, direction: Inbound, access: Allow, protocol: Tcp,
         sourceAddressPrefix: '*', sourcePortRange: '*',
         destinationAddressPrefix: '*', destinationPortRange: '80'}
  - name: data-nsg
    securityRules:
      - {name: no-22, priority: 100, direction: Inbound, access: Deny, protocol: Tcp,
         sourceAddressPrefix: '*', sourcePortRange: '*',
         destinationAddressPrefix: '*', destinationPortRange: '22'}
"""


def scenario(mode: str = "both") -> Scenario:
    return Scenario(TEXT % mode)


def log_of(run: Scenario) -> FlowLog:
    assert run.engine.flow_log is not None
    return run.engine.flow_log


def line(entry: FlowLogEntry) -> str:
    """An entry as a test reads it."""
    source, destination = (IPv4Address(a) for a in (entry.source, entry.destination))
    return (
        f"{entry.time:g} {entry.state} {'in' if entry.inbound else 'out'} {entry.protocol} "
        f"{source}:{entry.source_port} > {destination}:{entry.destination_port} "
        f"{entry.group}/{entry.rule}{' (default)' if entry.default else ''} "
        f"{entry.packets_sent}/{entry.bytes_sent} {entry.packets_received}/{entry.bytes_received}"
    )


def told(run: Scenario) -> list[str]:
    return [line(entry) for entry in log_of(run).take(1 << 20)]


OUT = "10.0.1.4:40000 > 198.51.100.1:443 subnet-nsg/AllowInternetOutBound (default)"


def test_a_flow_begins_goes_on_every_five_minutes_and_ends_idle() -> None:
    run = scenario()
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        after          3 min
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=60
        after          119 s
    """)
    assert told(run) == [f"0 B out 6 {OUT} 0/0 0/0"]
    run.play("""
        after          1 s
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=10
        after          2 min
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack len=100
        after          3 min
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=10
        after          241 s
        flows          vm1 none
    """)
    assert told(run) == [
        f"300 C out 6 {OUT} 2/140 1/40",
        f"600 C out 6 {OUT} 1/50 1/140",
        f"840 E out 6 {OUT} 1/50 0/0",
    ]


def test_the_deltas_add_up_to_the_counters_of_the_flow() -> None:
    run = scenario()
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53 len=1")
    totals = (0, 0, 0, 0)
    for step in range(30):
        run.play(f"""
            vm1 sends      udp 10.0.1.4:40000 > 198.51.100.1:53 len={step}
            outside sends  udp 198.51.100.1:53 > 203.0.113.10:1024 len={2 * step}
            after          70 s
        """)
        totals = (
            run.flow_list()[0].packets_out,
            run.flow_list()[0].bytes_out,
            run.flow_list()[0].packets_in,
            run.flow_list()[0].bytes_in,
        )
    run.wait(241)
    entries = log_of(run).take(1 << 20)
    assert "".join(entry.state for entry in entries) == "BCCCCCCCE"
    assert tuple(sum(column) for column in zip(*(e[-4:] for e in entries), strict=True)) == totals


@pytest.mark.parametrize(
    ("closing", "counters"),
    [
        (
            """
            vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack
            outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 fin ack
            vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
            """,
            "4/160 2/80",
        ),
        ("vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 rst", "3/120 1/40"),
        ("outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 rst", "2/80 2/80"),
    ],
)
def test_a_closed_flow_ends_when_it_closed_with_its_last_packets(
    closing: str, counters: str
) -> None:
    run = scenario()
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        after          5 s
    """)
    run.play(closing)
    run.wait(9)
    assert told(run) == [f"0 B out 6 {OUT} 0/0 0/0"]
    run.wait(1)
    assert told(run) == [f"5 E out 6 {OUT} {counters}"]
    run.wait(1000)
    assert told(run) == []


def test_what_timed_out_while_nobody_looked_ended_when_it_did() -> None:
    run = scenario()
    run.play("vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 syn")
    run.engine.expire(100_000.0)
    assert told(run)[1:] == [f"240 E out 6 {OUT} 1/40 0/0"]


def test_a_process_that_ends_tells_what_the_next_one_cannot_know() -> None:
    run = scenario()
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 rst
        after          5 s
    """)
    log_of(run).leave()
    assert told(run)[2:] == [
        f"0 E out 6 {OUT.replace('40000', '40001')} 2/80 0/0",
        f"5 C out 6 {OUT} 1/40 0/0",
    ]
    log_of(run).leave()
    run.wait(20)
    assert told(run) == []


def test_one_fin_ends_a_flow_when_its_port_is_released() -> None:
    run = scenario()
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack
        after          241 s
    """)
    assert told(run)[1:] == [f"240 E out 6 {OUT} 2/80 0/0"]


def test_a_connection_that_follows_at_once_ends_the_one_before() -> None:
    run = scenario("nsg")
    run.play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 rst ack
        after          2 s
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
    """)
    inward = "198.51.100.1:4000 > 10.0.1.5:80 nic-nsg/web-too"
    assert told(run) == [
        f"0 B in 6 {inward} 0/0 0/0",
        f"0 E in 6 {inward} 1/40 1/40",
        f"2 B in 6 {inward} 0/0 0/0",
    ]


def test_an_inbound_flow_has_its_private_destination_and_the_last_group() -> None:
    run = scenario("nsg")
    run.play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 syn ack
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 ack
        after          301 s
    """)
    inward = "198.51.100.1:4000 > 10.0.1.5:80 nic-nsg/web-too"
    assert told(run) == [f"0 B in 6 {inward} 0/0 0/0", f"301 C in 6 {inward} 2/80 1/40"]


def test_an_enforced_rule_ends_a_flow() -> None:
    run = scenario()
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53")
    run.wait(10)
    harder = (TEXT % "both").replace("protocol: Tcp,", "protocol: '*',", 1).replace("'25'", "'53'")
    run.reconfigure(harder)
    for _ in run.engine.review(enforce=True):
        pass
    rest = "10.0.1.4:40000 > 198.51.100.1:53 subnet-nsg/AllowInternetOutBound (default)"
    assert told(run)[1:] == [f"10 E out 17 {rest} 1/28 0/0"]


def test_a_denial_is_told_once_a_minute_for_each_five_tuple() -> None:
    run = scenario()
    for port in (40000, 40000, 40001):
        run.play(f"vm1 sends  tcp 10.0.1.4:{port} > 198.51.100.1:25 syn")
    rest = "198.51.100.1:25 subnet-nsg/no-smtp 0/0 0/0"
    assert told(run) == [f"0 D out 6 10.0.1.4:{port} > {rest}" for port in (40000, 40001)]
    run.wait(60)
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        outside sends  udp 198.51.100.1:4000 > 203.0.113.30:161
    """)
    assert told(run) == [
        f"60 D out 6 10.0.1.4:40000 > {rest}",
        "60 D in 17 198.51.100.1:4000 > 10.0.1.5:161 subnet-nsg/DenyAllInBound (default) 0/0 0/0",
    ]


def test_a_hairpin_is_denied_at_the_private_address_or_at_the_sender() -> None:
    run = scenario()
    run.play("""
        vm3 sends      tcp 10.0.2.4:40000 > 203.0.113.30:22 syn
        vm1 sends      tcp 10.0.1.4:40000 > 203.0.113.30:25 syn
    """)
    assert told(run) == [
        "0 B out 6 10.0.2.4:40000 > 203.0.113.30:22 None/None 0/0 0/0",
        "0 D in 6 203.0.113.10:2048 > 10.0.1.5:22 subnet-nsg/DenyAllInBound (default) 0/0 0/0",
        "0 D out 6 10.0.1.4:40000 > 203.0.113.30:25 subnet-nsg/no-smtp 0/0 0/0",
    ]


def lateral(run: Scenario, text: str) -> None:
    run.send_between(build(text))


def test_a_flow_between_vms_is_seen_from_both() -> None:
    run = scenario()
    lateral(run, "tcp 10.0.1.4:40000 > 10.0.3.4:443 syn")
    lateral(run, "tcp 10.0.3.4:443 > 10.0.1.4:40000 syn ack")
    lateral(run, "tcp 10.0.1.4:40000 > 10.0.3.4:443 rst")
    run.wait(15)
    out = "10.0.1.4:40000 > 10.0.3.4:443 subnet-nsg/AllowVnetOutBound (default)"
    inward = "10.0.1.4:40000 > 10.0.3.4:443 data-nsg/AllowVnetInBound (default)"
    assert told(run) == [
        f"0 B out 6 {out} 0/0 0/0",
        f"0 B in 6 {inward} 0/0 0/0",
        f"0 E out 6 {out} 2/80 1/40",
        f"0 E in 6 {inward} 2/80 1/40",
    ]
    lateral(run, "tcp 10.0.1.4:40000 > 10.0.3.4:22 syn")
    assert told(run) == ["15 D in 6 10.0.1.4:40000 > 10.0.3.4:22 data-nsg/no-22 0/0 0/0"]


def test_each_side_of_a_flow_between_vms_has_its_own_groups_only() -> None:
    run = scenario("nsg")
    lateral(run, "udp 10.0.2.4:40000 > 10.0.3.4:53")
    lateral(run, "udp 10.0.1.4:40000 > 10.0.2.4:53")
    assert told(run) == [
        "0 B in 17 10.0.2.4:40000 > 10.0.3.4:53 data-nsg/AllowVnetInBound (default) 0/0 0/0",
        "0 B out 17 10.0.1.4:40000 > 10.0.2.4:53 subnet-nsg/AllowVnetOutBound (default) 0/0 0/0",
    ]


def test_the_nsg_log_alone_is_told_of_judged_tcp_and_udp_only() -> None:
    script = """
        vm3 sends      udp 10.0.2.4:40000 > 198.51.100.1:53
        vm2 sends      echo 10.0.1.5 > 198.51.100.1 id=7
        outside sends  echo 198.51.100.2 > 203.0.113.30 id=7
    """
    run = scenario("nsg")
    run.play(script)
    assert told(run) == []
    run = scenario("vnet")
    run.play(script)
    assert told(run) == [
        "0 B out 17 10.0.2.4:40000 > 198.51.100.1:53 None/None 0/0 0/0",
        "0 B out 1 10.0.1.5:0 > 198.51.100.1:0 subnet-nsg/AllowInternetOutBound (default) 0/0 0/0",
        "0 D in 1 198.51.100.2:0 > 10.0.1.5:0 subnet-nsg/DenyAllInBound (default) 0/0 0/0",
    ]


def test_denials_are_bounded_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_log, "MAXIMUM_DENIALS", 5)
    run = scenario()
    for port in range(40000, 40020):
        run.play(f"vm1 sends  tcp 10.0.1.4:{port} > 198.51.100.1:25 syn")
    assert len(told(run)) == 5
    assert log_of(run).denials_not_logged == 15


def test_entries_are_bounded_and_a_lost_one_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = scenario()
    log = log_of(run)
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53")
    run.wait(200)
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53")
    monkeypatch.setattr(log, "_maximum", 2)
    run.wait(100)
    run.play("vm1 sends  tcp 10.0.1.4:40000 > 198.51.100.1:443 syn")
    assert len(log) == 1
    assert log.lost == 2
    assert told(run)[0].startswith("0 B")
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53")
    run.wait(241)
    (end,) = [text for text in told(run) if ":53 " in text]
    assert end.startswith("540 E out 17 10.0.1.4:40000 > 198.51.100.1:53 ")
    assert end.endswith(" 3/84 0/0")


def test_a_look_at_the_clock_is_bounded() -> None:
    run = scenario()
    for port in range(40000, 40010):
        run.play(f"vm2 sends  udp 10.0.1.5:{port} > 198.51.100.1:53")
    told(run)
    run.engine.expire(300.0, 4)
    assert len(told(run)) == 4
    run.engine.expire(300.0, 100)
    assert len(told(run)) == 6


def test_what_ended_is_forgotten() -> None:
    run = scenario()
    for port in range(40000, 40040, 2):
        run.play(f"""
            vm1 sends      tcp 10.0.1.4:{port} > 198.51.100.1:443 syn
            vm1 sends      tcp 10.0.1.4:{port} > 198.51.100.1:443 rst
            vm1 sends      udp 10.0.1.4:{port} > 198.51.100.1:53
        """)
    run.wait(300)
    log: Any = log_of(run)
    assert len(log._live) == len(log._closing) == 0


def test_off_is_the_default_and_calls_nothing() -> None:
    script = """
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 rst
        after          10 min
    """
    with patch.object(FlowLog, "__init__", side_effect=AssertionError):
        run = Scenario((TEXT % "off").replace(", flowLogs: off", ""))
        run.play(script)
    assert run.engine.flow_log is None


def test_packets_of_a_live_flow_call_nothing() -> None:
    run = scenario()
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
    """)
    hooks = ("opened", "closed", "forgotten", "denied", "look")
    refusing: dict[str, Any] = {name: Mock(side_effect=AssertionError) for name in hooks}
    with patch.multiple(FlowLog, **refusing):
        run.play("""
            vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 ack len=5
            outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 ack
            vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack
        """)


def test_a_reload_turns_it_on_and_off_and_keeps_what_goes_on() -> None:
    run = scenario("off")
    run.play("vm1 sends  udp 10.0.1.4:40000 > 198.51.100.1:53")
    changes = run.reconfigure(TEXT % "nsg")
    assert changes == ["gateway.flowLogs: off -> nsg"]
    run.play("vm1 sends  udp 10.0.1.4:40001 > 198.51.100.1:53")
    log = log_of(run)
    run.reconfigure(TEXT % "both")
    assert log_of(run) is log
    run.wait(241)  # the flow that began before is not told of
    assert [text.split()[1] for text in told(run)] == ["B", "E"]
    run.reconfigure(TEXT % "off")
    assert run.engine.flow_log is None
    run.play("vm1 sends  udp 10.0.1.4:40001 > 198.51.100.1:53")
