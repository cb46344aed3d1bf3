"""Rules that stand are compared with the plan, not with what stood before."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.datapath.errors import DatapathError
from gateway.datapath.host import fragment_marks, netlink, rule_fingerprints, ruleset
from gateway.datapath.host.netfilter_rules import Chain, DiversionPlan, QueueNumbers, ipv4_chains
from gateway.datapath.host.rule_fingerprints import WHOLE_TABLE
from gateway.datapath.host.ruleset import Ruleset, is_whole

PLAN = DiversionPlan(
    inside=("lan0",),
    outside="wan0",
    public_ips=(IPv4Address("203.0.113.10"),),
    private_prefixes=(IPv4Network("10.0.0.0/16"),),
    queues=QueueNumbers(3, 4),
)


def saved(chains: list[Chain]) -> list[str]:
    """Lines as ``Netfilter.standing`` gives them, words in another order."""
    lines = []
    for chain in chains:
        lines.append(f"{chain.table} -N {chain.name}")
        if chain.hook:
            lines.append(f"{chain.table} -A {chain.hook} -j {chain.name}")
        for rule in chain.rules:
            words = rule.split()
            lines.append(f"{chain.table} -A {chain.name} {' '.join(words[2:] + words[:2])}")
    return lines


class TestIsWhole:
    chains = ipv4_chains(PLAN)
    lines = saved(chains)

    def test_as_loaded(self) -> None:
        assert is_whole(self.chains, self.lines)

    def test_nothing_is_not(self) -> None:
        assert not is_whole(self.chains, [])

    def test_without_any_one_line_it_is_not(self) -> None:
        for line in self.lines:
            if " -A " in line:
                rest = list(self.lines)
                rest.remove(line)
                assert not is_whole(self.chains, rest), line
                assert not is_whole(self.chains, rest, exactly=False), line

    def test_with_one_more_or_in_another_order_it_is_not(self) -> None:
        ours = "mangle -A snatgw-wan0-fwd"
        place = next(n for n, line in enumerate(self.lines) if line.startswith(ours))
        more = [*self.lines[:place], f"{ours} -j ACCEPT", *self.lines[place:]]
        assert not is_whole(self.chains, more)
        swapped = list(self.lines)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        assert not is_whole(self.chains, swapped)
        assert is_whole(self.chains, swapped, exactly=False)


class Kernel:
    """Two tables' rules, and somebody who flushes them ``flushes`` times, after each loading."""

    def __init__(self, flushes: int = 0, rename: tuple[str, str] = ("", "")) -> None:
        self.flushes = flushes
        self.rename = rename
        self.loaded = 0
        self.lines: list[str] = []

    def available(self) -> bool:
        return True

    def load(self, chains: list[Chain]) -> None:
        self.loaded += 1
        self.lines = [line.replace(*self.rename) for line in saved(chains)]
        if self.flushes:
            self.flushes -= 1
            self.lines = []

    def place(self, chains: list[Chain]) -> list[str]:
        return []

    def standing(self, instance: str) -> list[str]:
        return self.lines


def load(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> Ruleset:
    monkeypatch.setattr(ruleset, "IPV4", kernel)
    monkeypatch.setattr(ruleset, "IPV6", Kernel())
    monkeypatch.setattr(fragment_marks, "load", lambda plan: None)
    monkeypatch.setattr(fragment_marks, "standing", lambda instance: [])
    monkeypatch.setattr(
        ruleset, "mark", lambda places, prefix, legacy: "\n".join(kernel.lines).encode()
    )
    rules = Ruleset()
    rules.load(PLAN, guard_outside=True)
    return rules


def test_what_is_flushed_while_it_is_loaded_is_loaded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(flushes=3)
    rules = load(monkeypatch, kernel)
    assert is_whole(ipv4_chains(PLAN), kernel.lines)
    assert rules.stand()
    kernel.lines = []
    assert not rules.stand()


def test_a_war_over_the_rules_is_an_error_and_not_taken_for_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DatapathError, match="as fast as"):
        load(monkeypatch, Kernel(flushes=1000))


def test_an_iptables_that_prints_other_words_is_believed_when_it_says_the_same_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(rename=("--icmp-type 5", "--icmp-type redirect"))
    rules = load(monkeypatch, kernel)
    assert kernel.loaded == 2
    assert rules.stand()


class Legacy:
    """The legacy tables of a host: how often all their rules were read, and what that takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.rules, self.sizes, self.cost = b"rules", [b"size"], cost
        self.reads = 0
        self.now = self.spent = 100.0
        monkeypatch.setattr(ruleset, "legacy_mark", self._mark)
        monkeypatch.setattr(ruleset, "legacy_sizes", lambda: self.sizes)
        self.ruleset = Ruleset(lambda: self.now, lambda: self.spent)

    def _mark(self) -> bytes:
        self.reads += 1
        self.spent += self.cost
        return self.rules

    def seconds(self, number: int) -> list[bool]:
        """Looks, one a second."""
        answers = []
        for _ in range(number):
            self.now += 1
            answers.append(self.ruleset.others_changed())
        return answers


@pytest.mark.parametrize(
    ("cost", "reads"), [(0.0001, 60), (0.085, 60 // 9), (0.3, 2), (5.0, 1)], ids=str
)
def test_the_more_legacy_rules_there_are_the_more_seldom_all_are_read(
    monkeypatch: pytest.MonkeyPatch, cost: float, reads: int
) -> None:
    legacy = Legacy(monkeypatch, cost)
    legacy.ruleset._look()
    legacy.reads = 0
    assert not any(legacy.seconds(60))
    assert legacy.reads == reads


def test_what_changes_the_size_of_a_legacy_table_is_seen_without_reading_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    legacy = Legacy(monkeypatch, 0.085)
    legacy.ruleset._look()
    legacy.reads, legacy.sizes = 0, [b"another"]
    assert legacy.seconds(1) == [True]
    assert legacy.reads == 0


def test_a_legacy_rule_of_the_same_length_is_seen_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    legacy = Legacy(monkeypatch, 0.085)
    legacy.ruleset._look()
    legacy.rules = b"other"
    assert legacy.seconds(9) == [False] * 8 + [True]


def test_where_there_are_no_legacy_tables_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = Legacy(monkeypatch, 0.0)
    legacy.sizes = []
    legacy.ruleset._look()
    legacy.reads = 0
    assert not any(legacy.seconds(5))
    assert legacy.reads == 0


def test_chains_of_others_whose_names_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """``iptables -N`` takes any bytes."""
    rule = b"".join(netlink.attribute(kind, name) for kind, name in ((1, b"raw\0"), (2, b"\xfc\0")))
    monkeypatch.setattr(netlink, "dump", lambda kind, body, protocol: iter([bytes(4) + rule]))
    place = (socket.AF_INET, "raw")
    nothing = rule_fingerprints.mark([], "snatgw-wan0-", b"")
    assert rule_fingerprints.mark([(*place, WHOLE_TABLE)], "snatgw-wan0-", b"") != nothing
    assert rule_fingerprints.mark([(*place, "PREROUTING")], "snatgw-wan0-", b"") == nothing
