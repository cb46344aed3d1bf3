"""The engine process's answers about VMs and their rules: ``explain``, ``nsg``, ``machines``.

What the API process asks is checked again. An explanation is one bounded answer; a listing comes
in parts, one a turn of the loop. For a VM that there is not, the answer is the names of those that
there are (the end of it has no object): which of them was meant is the API process's to work out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.engine import Engine
from gateway.core.explain import address_of, explain_inbound, explain_outbound
from gateway.core.observe.listings import machine_records
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.rule_encoding import rule_parts
from gateway.daemon.engine_process.request_channel import Answers
from gateway.schema.explain_query import ExplainQuery
from gateway.schema.queries import QueryError, parse_flag

NAMES_PER_PART = 1024
MACHINES_PER_PART = 64

Steps = Iterator[tuple[Kind, Any] | None]


class SecurityRequests:
    """Answers for the control channel, about one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.questions: dict[str, Answers] = {
            "explain": self.explain,
            "nsg": self.rules,
            "machines": self.machines,
        }

    def explain(self, values: Mapping[str, str]) -> Steps:
        """What a packet would meet: the contract's object."""
        try:
            query = ExplainQuery.parse(values)
        except QueryError as error:
            yield Kind.FAILED, error.problems
            return
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
                self._engine, source, query.protocol, query.to, query.to_port, query.from_port
            ),
        )

    def rules(self, values: Mapping[str, str]) -> Steps:
        """Security rules: all, or those in front of a VM; the end says which level has which."""
        try:
            expand = parse_flag(values, "expand")
        except QueryError as error:
            yield Kind.FAILED, error.problems
            return
        levels: list[tuple[str, str]] | None = None
        if "vm" in values:
            address = address_of(self._engine, values["vm"])
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
        for part in rule_parts(records, expand=expand):
            yield Kind.PART, part
        yield Kind.END, {"levels": levels}

    def machines(self, values: Mapping[str, str]) -> Steps:
        """How VMs go out, all or one."""
        outbound = self._engine.outbound
        machines = list(outbound.machines.values())
        if "vm" in values:
            address = address_of(self._engine, values["vm"])
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
