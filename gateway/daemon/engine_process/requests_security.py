"""The engine process's answers about VMs and their rules: ``explain``, ``nsg``, ``machines``.
Runs in the engine process.

What the API process asks is checked again. An explanation is one bounded answer; a listing comes
in parts, one a turn of the loop. For a VM that there is not, the answer is the names of those that
there are (the end of it has no object): which of them was meant is the API process's to work out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.core.engine import Engine
from gateway.core.explain import address_of, explain_inbound, explain_outbound
from gateway.core.observe.listings import machine_records
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.rule_encoding import rule_parts
from gateway.daemon.engine_process.requests import (
    Parameters,
    RequestHandler,
    Steps,
    in_slices,
)
from gateway.schema.explain_query import ExplainQuery
from gateway.schema.queries import parse_flag

NAMES_PER_PART = 1024
MACHINES_PER_PART = 64


class RulesQuery(NamedTuple):
    """Which security rules: all, or those in front of ``vm``."""

    vm: str | None
    expand: bool

    @classmethod
    def parse(cls, values: Parameters) -> RulesQuery:
        """Raises QueryError."""
        return cls(_vm(values), parse_flag(values, "expand"))


class SecurityRequests:
    """Handlers about one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.handlers: Mapping[str, RequestHandler] = {
            "explain": in_slices(ExplainQuery.parse, self.explain),
            "nsg": in_slices(RulesQuery.parse, self.rules),
            "machines": in_slices(_vm, self.machines),
        }

    def explain(self, query: ExplainQuery) -> Steps:
        """What a packet would meet: the contract's object."""
        if query.remote is not None:
            yield (
                Kind.END,
                explain_inbound(
                    self._engine,
                    query.remote,
                    query.remote_port,
                    query.protocol,
                    query.to,
                    query.to_port,
                    trace=query.trace,
                ),
            )
            return
        assert query.vm is not None
        source = address_of(self._engine, query.vm)
        if source is None:
            yield from self._names()
            return
        yield (
            Kind.END,
            explain_outbound(
                self._engine,
                source,
                query.protocol,
                query.to,
                query.to_port,
                query.from_port,
                trace=query.trace,
            ),
        )

    def rules(self, query: RulesQuery) -> Steps:
        """Security rules: all, or those in front of a VM; the end says which level has which."""
        levels: list[tuple[str, str]] | None = None
        if query.vm is not None:
            address = address_of(self._engine, query.vm)
            if address is None:
                yield from self._names()
                return
            found = self._engine.admission.policy.levels(int(address))
            levels = [(level, group.name) for level, group in found]
        records = self._engine.security_records()
        yield None
        if levels is not None:
            names = {group for _, group in levels}
            records = [record for record in records if record.group in names]
        for part in rule_parts(records, expand=query.expand):
            yield Kind.PART, part
        yield Kind.END, {"levels": levels}

    def machines(self, vm: str | None) -> Steps:
        """How VMs go out, all or one."""
        outbound = self._engine.outbound
        machines = list(outbound.machines.values())
        if vm is not None:
            address = address_of(self._engine, vm)
            if address is None:
                yield from self._names()
                return
            machines = [outbound.peek(address.packed)]
        part: list[tuple[Any, ...]] = []
        for record in machine_records(self._engine.configuration, machines):
            part.append(tuple(record))
            if len(part) >= MACHINES_PER_PART:
                yield Kind.PART, part
                part = []
        if part:
            yield Kind.PART, part
        yield Kind.END, {}

    def _names(self) -> Steps:
        names = [machine.name for machine in self._engine.outbound.machines.values()]
        for start in range(0, len(names), NAMES_PER_PART):
            yield Kind.PART, names[start : start + NAMES_PER_PART]
        yield Kind.END, None


def _vm(values: Parameters) -> str | None:
    return values.get("vm")
