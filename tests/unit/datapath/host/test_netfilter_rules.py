"""The rules as text: what is promised about them for any plan."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.datapath.host.netfilter import Netfilter, restore_text
from gateway.datapath.host.netfilter_rules import (
    DROPPED_BY_RULES,
    DiversionPlan,
    QueueNumbers,
    instance_name,
    ipv4_chains,
    ipv6_chains,
)
from gateway.schema.drop_reasons import DropReason

PLAN = DiversionPlan(
    inside=("lan0", "lan1"),
    outside="wan0",
    public_ips=(IPv4Address("203.0.113.10"), IPv4Address("203.0.113.11")),
    private_prefixes=(IPv4Network("10.0.0.0/16"),),
    queues=QueueNumbers(2017, 2018),
)
ALL_RULES = [rule for chain in ipv4_chains(PLAN) if not chain.counts for rule in chain.rules]
FORGED_INSIDE, FORGED_OUTSIDE, PRIVATE, UNKNOWN, ELSEWHERE, REDIRECT, IPV6 = (
    f"-g snatgw-wan0-drop{n}" for n in range(7)
)


TO_PUBLIC_IPS = tuple(f"-d {address}/32" for address in PLAN.public_ips)
"""From wherever they come: this host and its other networks reach public IPs, too."""


def rules(end: str, plan: DiversionPlan = PLAN, **options: bool) -> tuple[str, ...]:
    found = {c.rules for c in ipv4_chains(plan, **options) if c.name == f"snatgw-wan0-{end}"}
    (same,) = found  # where two tables have a chain by the same name
    return same


def test_nothing_fails_open_and_nothing_is_marked() -> None:
    for rule in ALL_RULES:
        assert "bypass" not in rule
        assert "MARK" not in rule
        assert "ctmark" not in rule


def test_every_rule_names_an_interface_of_ours() -> None:
    ours = {"-i lan0", "-i lan1", "-i wan0", "-o lan0", "-o lan1", "-o wan0", *TO_PUBLIC_IPS}
    for rule in set(ALL_RULES) - set(rules("queue")):
        assert any(rule.startswith(name) for name in ours) or "-m socket" in rule


def test_tcp_has_a_queue_of_its_own_and_nothing_is_in_neither() -> None:
    assert rules("queue") == ("-p tcp -j NFQUEUE --queue-num 2017", "-j NFQUEUE --queue-num 2018")
    chains = [chain for chain in ipv4_chains(PLAN) if chain.name == "snatgw-wan0-queue"]
    assert {chain.table for chain in chains} == {"raw", "mangle"}
    assert not any(chain.hook for chain in chains)  # only rules of ours lead there
    assert not [rule for rule in set(ALL_RULES) - set(rules("queue")) if "NFQUEUE" in rule]


def test_every_way_from_inside_ends_in_the_queue_or_a_drop() -> None:
    forward = rules("fwd")
    for name in PLAN.inside:
        last = [rule for rule in forward if rule.startswith(f"-i {name} ")][-1]
        assert last == f"-i {name} -g snatgw-wan0-queue"
    assert not [rule for rule in forward if rule.endswith("-j ACCEPT")]


def test_only_hairpins_pass_from_inside_untouched() -> None:
    passing = [r for r in rules("fwd") if r.startswith("-i lan") and r.endswith("-j RETURN")]
    assert passing
    for rule in passing:
        assert "-o lan" in rule
        assert "-s 203.0.113.1" in rule


def test_whatever_drops_does_so_in_the_chain_of_a_reason_that_names_it() -> None:
    ipv4, ipv6 = ipv4_chains(PROBED, reverse_path=False), ipv6_chains(PROBED)
    names = {reason: f"snatgw-wan0-drop{n}" for n, reason in enumerate(DROPPED_BY_RULES)}
    for chains in (ipv4, ipv4_chains(PROBED), ipv6):
        for chain in chains:
            if chain.counts is not None:
                assert chain.rules == (f"-m comment --comment {chain.counts.value} -j DROP",)
                assert (chain.hook, chain.name) == ("", names[chain.counts])
            else:
                assert not [rule for rule in chain.rules if "DROP" in rule]
            there = {other.name for other in chains if other.table == chain.table}
            for target in (rule.split(" -g ")[1] for rule in chain.rules if " -g " in rule):
                assert target in there
    assert {chain.counts for chain in (*ipv4, *ipv6)} - {None} == set(DROPPED_BY_RULES)


def test_each_kind_of_forged_address_has_the_reason_that_the_engine_would_give() -> None:
    assert DROPPED_BY_RULES[:4] == (
        DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK,
        DropReason.SOURCE_NOT_OUTSIDE,
        DropReason.PRIVATE_ADDRESS_OUTSIDE,
        DropReason.PUBLIC_ADDRESS_UNKNOWN,
    )
    raw = rules("raw")
    private = [rule for rule in raw if "10.0.0.0/16" in rule and "wan0" in rule]
    assert private == [
        f"-i wan0 -s 10.0.0.0/16 {FORGED_OUTSIDE}",
        f"-i wan0 -d 10.0.0.0/16 {UNKNOWN}",
    ]


def test_forged_public_sources_are_dropped_on_every_interface_before_tracking_is_off() -> None:
    raw = rules("raw")
    reasons = {"lan0": FORGED_INSIDE, "lan1": FORGED_INSIDE, "wan0": FORGED_OUTSIDE}
    for name, reason in reasons.items():
        for address in PLAN.public_ips:
            drop = raw.index(f"-i {name} -s {address}/32 {reason}")
            assert all(drop < raw.index(rule) for rule in raw if "--notrack" in rule)


def test_no_redirect_is_taken_for_what_this_host_asks_a_public_ip() -> None:
    out = rules("out")
    redirects = [place for place, rule in enumerate(out) if f"type 5 {REDIRECT}" in rule]
    assert len(redirects) == len(PLAN.inside)
    assert max(redirects) < min(out.index(f"{to} -g snatgw-wan0-queue") for to in TO_PUBLIC_IPS)


def test_what_vms_send_to_the_hosts_outside_addresses_is_looked_at_before_tracking() -> None:
    raw = rules("raw")
    for name in PLAN.inside:
        local = [rule for rule in raw if rule.startswith(f"-i {name} ") and "LOCAL" in rule]
        assert local == [
            f"-i {name} -m addrtype --dst-type LOCAL -m rpfilter --invert {ELSEWHERE}",
            f"-i {name} -d 10.0.0.0/16 -m addrtype --dst-type LOCAL -j RETURN",
            f"-i {name} -m addrtype --dst-type LOCAL -g snatgw-wan0-queue",
        ]


def test_the_last_word_is_that_no_private_address_leaves() -> None:
    assert rules("post") == (
        f"-o wan0 -s 10.0.0.0/16 {PRIVATE}",
        f"-o wan0 -d 10.0.0.0/16 {PRIVATE}",
    )


def test_the_outside_interface_is_guarded_only_where_forwarding_is_ours() -> None:
    assert rules("fwd")[-1] == f"-i wan0 {UNKNOWN}"
    assert f"-i wan0 {UNKNOWN}" not in rules("fwd", guard_outside=False)


def test_a_restore_declares_each_chain_so_that_it_is_replaced_in_one_step() -> None:
    text = restore_text(ipv4_chains(PLAN))
    for chain in ipv4_chains(PLAN):
        assert f":{chain.name} - [0:0]\n" in text
    assert text.count("*") == text.count("COMMIT\n") == 3


def test_ipv6_leaves_the_inside_nowhere() -> None:
    chain, drop = ipv6_chains(PLAN)
    assert chain.rules[-2:] == (f"-i lan0 {IPV6}", f"-i lan1 {IPV6}")
    assert drop.counts is DropReason.IPV6_NOT_SUPPORTED


@pytest.mark.parametrize("interface", ["wan0", "enp0s31f6.4094", "abcdefghijklmno", "w+n/0", "ü"])
def test_names_fit_into_netfilter(interface: str) -> None:
    plan = DiversionPlan(("lan0",), interface, (), (), QueueNumbers(1, 2))
    for chain in (*ipv4_chains(plan), *ipv6_chains(plan)):
        assert len(chain.name) <= 28
        assert chain.name.isascii()
        assert chain.name.startswith("snatgw-" + instance_name(interface))


SAVED = """\
*mangle
:PREROUTING ACCEPT [0:0]
:snatgw-wan0-fwd - [0:0]
:snatgw-wan0-1-fwd - [0:0]
-A FORWARD -j snatgw-wan0-fwd
-A FORWARD -j snatgw-wan0-1-fwd
-A FORWARD -s 192.0.2.1/32 -j ACCEPT
-A snatgw-wan0-fwd -i lan0 -j NFQUEUE --queue-num 2020
-A snatgw-wan0-1-fwd -i lan1 -j NFQUEUE --queue-balance 7:9
COMMIT
"""


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be given to iptables-restore; iptables-save says ``SAVED``."""
    given: list[str] = []

    def run(command: list[str], **options: str) -> subprocess.CompletedProcess[str]:
        given.append(options["input"])
        return subprocess.CompletedProcess(command, 0, SAVED, "")

    monkeypatch.setattr(subprocess, "run", run)
    return given


def test_removal_takes_one_instances_chains_and_jumps_and_no_others(restored: list[str]) -> None:
    Netfilter("iptables").remove("wan0")
    assert restored[-1].splitlines() == [
        "*mangle",
        "-D FORWARD -j snatgw-wan0-fwd",
        "-F snatgw-wan0-fwd",
        "-X snatgw-wan0-fwd",
        "COMMIT",
    ]


def test_queue_numbers_that_rules_name_are_known(restored: list[str]) -> None:
    assert Netfilter("iptables").queue_numbers() == {2020, 7, 8, 9}


PROBED = replace(PLAN, probe_source=IPv4Address("168.63.129.16"))
SOURCE = "168.63.129.16/32"
SYN = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"


def test_without_probes_no_rule_knows_their_source() -> None:
    assert not [rule for rule in ALL_RULES if "168.63" in rule]
    assert rules("in") == ()


def test_a_probe_is_judged_when_it_opens_and_nobody_else_has_its_source() -> None:
    for name in PLAN.inside:
        assert f"-o {name} -s {SOURCE} {SYN} -g snatgw-wan0-queue" in rules("out", PROBED)
    raw = rules("raw", PROBED)
    reasons = {"lan0": FORGED_INSIDE, "lan1": FORGED_INSIDE, "wan0": FORGED_OUTSIDE}
    for name, reason in reasons.items():
        drop = raw.index(f"-i {name} -s {SOURCE} {reason}")
        assert all(drop < raw.index(rule) for rule in raw if "RETURN" in rule)
    assert f"-i wan0 -d {SOURCE} {UNKNOWN}" in raw
    assert f"-o wan0 -s {SOURCE} {PRIVATE}" in rules("post", PROBED)


def test_vms_reach_nothing_at_the_probes_source_but_what_they_answer() -> None:
    queue = "-g snatgw-wan0-queue"
    for name in PLAN.inside:
        own = [r for r in rules("pre", PROBED) if r.startswith(f"-i {name} -d {SOURCE}")]
        assert own == [
            f"-i {name} -d {SOURCE} {SYN} {queue}",
            f"-i {name} -d {SOURCE} -p tcp -j RETURN",
            f"-i {name} -d {SOURCE} {queue}",
        ]


def test_every_rule_for_probes_names_an_interface_too() -> None:
    ours = ("-i lan0", "-i lan1", "-i wan0", "-o lan0", "-o lan1", "-o wan0", *TO_PUBLIC_IPS)
    for chain in ipv4_chains(PROBED):
        for rule in () if chain.counts else set(chain.rules) - set(rules("queue")):
            assert rule.startswith(ours) or "-m socket" in rule
            assert "bypass" not in rule


def test_a_forged_source_gets_no_answer_by_another_way_than_it_came() -> None:
    raw = rules("raw")
    for name in PLAN.inside:
        drop = f"-i {name} -m addrtype --dst-type LOCAL -m rpfilter --invert {ELSEWHERE}"
        assert raw.index(drop) < min(
            at for at, rule in enumerate(raw) if f"-i {name} " in rule and rule.endswith("RETURN")
        )
    assert not [rule for rule in rules("out") if "addrtype" in rule]
    without = rules("out", reverse_path=False)
    assert [
        r for r in without if "172.16.0.0/12" in r and r.endswith(f"--limit-iface-out {ELSEWHERE}")
    ]


def test_broadcasts_and_multicasts_of_vms_are_tracked_as_the_host_wants_it() -> None:
    raw = rules("raw")
    for name in PLAN.inside:
        for kind in ("BROADCAST", "MULTICAST"):
            returning = raw.index(f"-i {name} -m addrtype --dst-type {kind} -j RETURN")
            assert returning < raw.index(f"-i {name} -j CT --notrack")
