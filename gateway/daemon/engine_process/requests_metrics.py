"""The engine process's answer to a scrape: rows of plain numbers, gathered in slices.
Runs in the engine process.

Each slice covers ``FLOWS_PER_SLICE`` flows, ``POOLS_PER_SLICE`` port pools or one message of
``ROWS_PER_PART`` rows, so that a scrape of a full table holds no packet up. How many rows there can
be is bounded (``SERIES``): what has no row of its own is added up under ``OTHER_NAME``. Names and
texts of metrics are the API process's (``metrics.py``); here is only what it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from socket import inet_ntoa
from typing import Any

from gateway.core.engine import Engine
from gateway.core.flows.counters import OTHER, OTHER_PAIR, SERIES, UNTRANSLATED, Pair, TrafficSums
from gateway.core.observe.listings import live_pools
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.engine_process.requests import RequestHandler, Steps, in_slices, nothing
from gateway.model.profile import Method
from gateway.schema.protocols import protocol_name

OTHER_NAME = "other"
POOLS_PER_SLICE = 64
ROWS_PER_PART = 128
RULES_PER_SLICE = 256

Rule = tuple[str, str, str, str]
"""Group, direction, name, access."""


class MetricsRequests:
    """The handler about one engine. ``now`` gives the engine's time."""

    def __init__(self, engine: Engine, now: Callable[[], float], series: int = SERIES) -> None:
        self._engine = engine
        self._now = now
        self._series = series
        self._rules = RuleHits(series)
        self.handlers: Mapping[str, RequestHandler] = {"metrics": in_slices(nothing, self.metrics)}

    def metrics(self, _: None = None) -> Steps:
        """PART messages are ``(section, rows)``; END has the single numbers."""
        engine = self._engine
        sums: TrafficSums | None = None
        for sums in engine.flows.traffic.walk(engine.flows):
            if sums is None:
                yield None
        assert sums is not None
        yield from _parts("flows", _flows(sums))
        yield from _parts("traffic", self._traffic(sums))
        yield from self._ports()
        yield from _parts("connections", self._connections())
        yield from self._backends()
        yield from self._rule_hits()
        single = {
            "opened": engine.flows.opened,
            "live": len(engine.flows),
            "expiryLag": engine.lifecycle.expiry.lag(self._now()),
        }
        yield Kind.END, single

    def _traffic(self, sums: TrafficSums) -> Iterator[tuple[Any, ...]]:
        syns = self._engine.flows.traffic.syns
        for key in sums.rows.keys() | syns.keys():
            public, method, protocol = key
            carried = sums.rows.get(key, (0, 0, 0, 0))
            opened = syns.get(key, (0, 0))
            yield (_address(public), method.value, protocol_name(protocol), *carried, *opened)

    def _ports(self) -> Steps:
        """Pools of pairs without a row are added up; the largest usage among them is kept.

        Each gets its counters, too, before it needs them: what grows from nothing is no growth to
        Prometheus.
        """
        connections = self._engine.lifecycle.connections
        rows: dict[tuple[Pair, int, str, bool], list[Any]] = {}
        for number, live in enumerate(live_pools(self._engine.outbound), 1):
            pool = live.pool
            pair = connections.expect(live.vm, live.address, live.protocol)
            key = pair, live.protocol, live.method.value, live.retired
            row = rows.get(key)
            if row is None:
                row = rows[key] = [0, 0, 0, 0, 0, 0.0]
            row[0] += 1
            row[1] += pool.count
            row[2] += pool.used
            row[3] += pool.cooling
            row[4] += pool.high_water
            row[5] = max(row[5], pool.used / pool.count if pool.count else 0.0)
            if not number % POOLS_PER_SLICE:
                yield None
        yield from _parts(
            "ports",
            (
                (*_text(pair), protocol_name(protocol), method, retired, *row)
                for (pair, protocol, method, retired), row in rows.items()
            ),
        )

    def _connections(self) -> Iterator[tuple[Any, ...]]:
        for (pair, protocol), row in list(self._engine.lifecycle.connections.rows.items()):
            yield (*_text(pair), protocol_name(protocol), *row)

    def _backends(self) -> Steps:
        """Load balancing rules with how many are behind them, and what probes say of each VM."""
        rules: list[tuple[Any, ...]] = []
        members: list[tuple[Any, ...]] = []
        looked_at = 0
        for listener in self._engine.balancer.listeners():
            if listener.method is not Method.LOAD_BALANCING_RULE:
                continue
            name = listener.balancer, listener.rule
            port, protocol = str(listener.port), protocol_name(listener.protocol)
            public = inet_ntoa(listener.address)
            backends = len(listener.members)
            if len(rules) < self._series:
                rules.append((*name, public, port, protocol, backends, len(listener.healthy)))
            looked_at += backends
            if listener.probe is not None:
                backend = str(int.from_bytes(listener.backend_port, "big"))
                for vm, member in listener.members.items():
                    if len(members) < self._series and member.up is not None:
                        members.append((*name, public, port, protocol, vm, backend, member.up))
            if looked_at >= POOLS_PER_SLICE:
                looked_at = 0
                yield None
        yield from _parts("backends", members)
        yield from _parts("balanced", rules)

    def _rule_hits(self) -> Steps:
        rows: list[tuple[Rule, int]] = []
        for step in self._rules.walk(self._every_rule()):
            if step is None:
                yield None
            else:
                rows = step
        yield from _parts("rules", ((*rule, count) for rule, count in rows))

    def _every_rule(self) -> Iterator[tuple[Rule, int]]:
        for name, group in self._engine.admission.policy.groups.items():
            for direction, rules in (("Inbound", group.inbound), ("Outbound", group.outbound)):
                for rule, hits in zip(rules.rules, rules.hits, strict=True):
                    yield (name, direction, rule.name, rule.access), hits


class RuleHits:
    """Hits of at most ``series`` rules by name, and of all others by direction and access.

    A rule that has a row keeps it while it is there. What others had stays in their sum when they
    go, and when a reload sets them to zero, so that it never falls.
    """

    def __init__(self, series: int) -> None:
        self._series = series
        self._named: set[Rule] = set()
        self._others: dict[Rule, int] = {}
        self._sums: dict[Rule, int] = {}

    def walk(self, hits: Iterable[tuple[Rule, int]]) -> Iterator[list[tuple[Rule, int]] | None]:
        """The rows for these hits, which are of all rules; None after each slice, then the rows."""
        rows: list[tuple[Rule, int]] = []
        newcomers: list[tuple[Rule, int]] = []
        named: set[Rule] = set()
        others: dict[Rule, int] = {}
        for number, (rule, count) in enumerate(hits, 1):
            if rule in self._named:
                named.add(rule)
                rows.append((rule, count))
            elif rule in self._others:
                self._add(rule, count, others)
            else:
                newcomers.append((rule, count))
            if not number % RULES_PER_SLICE:
                yield None
        for number, (rule, count) in enumerate(newcomers, 1):
            if len(named) < self._series:
                named.add(rule)
                rows.append((rule, count))
            else:
                self._add(rule, count, others)
            if not number % RULES_PER_SLICE:
                yield None
        self._named, self._others = named, others
        yield [*rows, *self._sums.items()]

    def _add(self, rule: Rule, count: int, others: dict[Rule, int]) -> None:
        shared = OTHER_NAME, rule[1], OTHER_NAME, rule[3]
        before = self._others.get(rule, 0)
        grown = count - before if count >= before else count
        self._sums[shared] = self._sums.get(shared, 0) + grown
        self._others[rule] = others[rule] = count


def _flows(sums: TrafficSums) -> Iterator[tuple[Any, ...]]:
    for (method, protocol, state), count in sums.flows.items():
        yield method.value, protocol_name(protocol), state, count


def _parts(section: str, rows: Iterable[tuple[Any, ...]]) -> Steps:
    part: list[tuple[Any, ...]] = []
    for row in rows:
        part.append(row)
        if len(part) >= ROWS_PER_PART:
            yield Kind.PART, (section, part)
            part = []
    if part:
        yield Kind.PART, (section, part)


def _text(pair: Pair) -> tuple[str, str]:
    return (OTHER_NAME, OTHER_NAME) if pair == OTHER_PAIR else (pair[0], _address(pair[1]))


def _address(public: bytes) -> str:
    if public == UNTRANSLATED:
        return ""
    return OTHER_NAME if public == OTHER else inet_ntoa(public)
