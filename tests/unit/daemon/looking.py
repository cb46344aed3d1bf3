"""Facts for a diagnosis from a real engine: two looks at a scenario, as the API process takes them.

``Look`` is what lies between them: the scenario goes on in the block, and ``diagnosed`` judges it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.core.observe.listings import machine_records
from gateway.daemon.api_process.diagnosis.diagnose import diagnose
from gateway.daemon.api_process.diagnosis.facts import Gatherer
from gateway.daemon.api_process.diagnosis.finding import Finding
from gateway.daemon.channel.event_views import event_document
from gateway.daemon.channel.probe_messages import Result
from gateway.schema.records import PortRecord
from tests.scenario import Scenario
from tests.unit.daemon.scraping import status_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


class Look:
    """The first look at a scenario; ``diagnosed`` is the second."""

    def __init__(self, world: Scenario, vm: str | None = None, scale: float = 1.0) -> None:
        self.world, self.vm, self.scale = world, vm, scale
        engine = world.engine
        machines = [m for m in engine.outbound.machines.values() if vm is None or m.name == vm]
        self.gatherer = Gatherer(
            engine.profile.name, machine_records(engine.configuration, machines)
        )
        self.gatherer.first_ports(self._ports())
        self.earlier = self._status()
        self.began = world.now
        self.results: dict[str, Result] = {}
        """What probes said last, by VM."""

    def _ports(self) -> list[PortRecord]:
        return [r for r in self.world.engine.port_records(self.world.now) if r is not None]

    def _status(self) -> dict[str, Any]:
        uptime = self.world.now / self.scale
        own = {"timeScale": self.scale, "uptimeSeconds": uptime}
        return status_of(self.world.engine) | own

    def diagnosed(
        self, events: list[dict[str, Any]] | None = None, status: dict[str, Any] | None = None
    ) -> list[Finding]:
        """The findings; ``events`` besides those of the scenario, ``status`` over the true one."""
        world = self.world
        self.gatherer.second_ports(self._ports())
        for record in world.flow_list():
            self.gatherer.flow(record)
        engine = world.engine
        for health in engine.health.records(engine.configuration, engine.admission.policy):
            self.gatherer.health(health, self.results.get(health.vm))
        told = [event_document(e, NOON + e.time / self.scale) for e in world.events]
        facts = self.gatherer.facts(
            self._status() | (status or {}),
            self.earlier,
            [*told, *(events or [])],
            real=(world.now - self.began) / self.scale,
            events_window=300.0,
        )
        return diagnose(facts, one=self.vm is not None)
