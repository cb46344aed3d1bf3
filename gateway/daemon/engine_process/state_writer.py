"""Keeps the engine's state written down while packets flow, and puts a left one back at the start.
Runs in the engine process.

A flow that opens, changes its state or ends is written within ``FLUSH_INTERVAL``; counters and the
time of the last packet, which change with every packet, by a round over all flows of which a part
falls to each second. All else is compared once a second with what is written. Nothing here waits,
and nothing is done for a packet but to note its flow's slot when the flow changes.

A state that cannot be written costs one line and one event; the gateway goes on without, makes what
is there void, and begins a new one as soon as it can.
"""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.engine import Engine
from gateway.core.flows.flow import Flow
from gateway.core.persistence.flow_record import EMPTY, SIZE, Seen, pack, unpack
from gateway.core.persistence.restore import (
    ContradictionError,
    hand_back,
    resume_flow,
    resume_state,
)
from gateway.core.persistence.snapshot import SavedState, save
from gateway.daemon.channel.json_views import iso
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.fast_path_offload import FastPathOffload
from gateway.daemon.engine_process.state_store import (
    SavedRun,
    StateRefusedError,
    StateStore,
    allocations_in_parts,
)
from gateway.model.configuration import Configuration
from gateway.model.reading.load import Loaded

FLUSH_INTERVAL = 0.1
"""Seconds (real) that a flow's change may wait."""
FLUSHED = 32
"""Flows that are written between two chances to handle packets."""
ROUND = 16_384
"""Flows a second whose counters and times are read."""
SLICE = 64
AGAIN = 30.0
"""Seconds (real) after which a state that could not be written is tried again."""
_TAKEN = "another gateway keeps its state in this directory"
STOP_PATIENCE = 2.5
"""Seconds (real) for the last writing; the whole stop has five."""


@dataclass(frozen=True)
class Resumed:
    """What a start went on with."""

    flows: int
    carried: int
    """Of these, flows that the fast path had carried on meanwhile."""
    lost: int
    """Records that were damaged, or contradicted others."""
    since: float
    """Unix time of the last writing."""

    def status(self) -> dict[str, Any]:
        """For events and the status."""
        return {
            "flows": self.flows,
            "carriedMeanwhile": self.carried,
            "lost": self.lost,
            "writtenAt": iso(self.since),
        }


class StateWriter:
    """The state of one gateway. Without a ``store``, ``unavailable_reason`` says why."""

    def __init__(
        self,
        store: StateStore | None,
        unavailable_reason: str | None = None,
        again: Callable[[], StateStore] | None = None,
    ) -> None:
        """``again`` opens the directory once more; None: it is not for this one."""
        self._store = store
        self._again = again
        self._again_at = 0.0
        self._left: SavedRun | None = None
        self.unavailable_reason = unavailable_reason
        self.refused: str | None = None
        self.resumed: Resumed | None = None
        self.seed = secrets.randbits(64)
        if store is not None:
            try:
                self._left = store.read()
            except StateRefusedError as error:
                self._refuse(str(error))
        self._engine: Engine | None = None
        self._offloading: FastPathOffload | None = None
        self._base = self._scale = 0.0
        self._flush_at = 0.0
        self._round: Iterator[tuple[int, list[Flow]]] = iter(())
        """The walk over all flows, a part of which falls to each second."""
        self._under_way = False
        self._written: SavedState | None = None
        self._is_behind = False
        # Of each slot's flow as it was written: a packet in the same turn changes no time.
        self._last_seen = array("d")
        self._packets = array("Q")

    @classmethod
    def open(cls, state_directory: Path) -> StateWriter:
        """The state that is kept in a directory."""
        try:
            return cls(StateStore(state_directory), again=lambda: StateStore(state_directory))
        except BlockingIOError:
            return cls(None, _TAKEN)
        except OSError as error:
            return cls(None, f"{error.filename or state_directory}: {error.strerror}")

    # -- the start

    def base(self, now: float, scale: float) -> float:
        """The CLOCK_MONOTONIC at which the engine's clock is, or was, 0."""
        self._scale = scale
        if self._left is None:
            return now
        index = self._left.index
        return now - (now - index.base) * index.time_scale / scale

    def resume(
        self,
        configuration: Configuration,
        build: Callable[[Configuration, int], Engine],
        offloading: FastPathOffload | None,
        now: float,
    ) -> Engine:
        """An engine that goes on where the earlier one was, or one that begins; not more than
        ``build`` raises. ``now``: the engine's time."""
        left, self._left = self._left, None
        if left is not None:
            try:
                engine = self._resumed(left, configuration, build, offloading, now)
            except StateRefusedError as error:
                self._refuse(str(error))
            else:
                return engine
            finally:
                left.flows.close()
        engine = build(configuration, self.seed)
        if offloading is not None:
            offloading.settle(engine.lifecycle)
        return engine

    def _resumed(
        self,
        left: SavedRun,
        configuration: Configuration,
        build: Callable[[Configuration, int], Engine],
        offloading: FastPathOffload | None,
        now: float,
    ) -> Engine:
        before = left.configuration.gateway
        if before.profile != configuration.gateway.profile:
            raise StateRefusedError(f"it is of the profile {before.profile}")
        engine = build(left.configuration, left.index.seed)
        try:
            resume_state(engine, left.index.state)
        except ContradictionError as error:
            raise StateRefusedError(f"it contradicts its configuration: {error}") from None
        self.seed = left.index.seed
        adopt = _nobody if offloading is None else offloading.adopt
        flows = carried = lost = 0
        for slot, record in left.flows:
            saved = unpack(record)
            flow = None if saved is None else resume_flow(engine, slot, saved, adopt, now)
            if flow is None:
                lost += 1
                continue
            flows += 1
            carried += flow.offloaded
        if offloading is not None:
            offloading.settle(engine.lifecycle)
            hand_back(engine, time_scale_changed=left.index.time_scale != self._scale)
        if left.configuration != configuration:
            engine.reconfigure(configuration, now)
        self.resumed = Resumed(flows, carried, lost, left.index.written)
        return engine

    def begin(
        self, engine: Engine, offloading: FastPathOffload | None, *, base: float, scale: float
    ) -> None:
        """Write everything that there is now, and from now on what changes."""
        self._engine, self._offloading = engine, offloading
        self._round = engine.flows.walk(SLICE)
        self._base, self._scale = base, scale
        if self._store is not None:
            for _ in self._write_all(self._store, engine):
                pass

    def _write_all(self, store: StateStore, engine: Engine) -> Iterator[None]:
        """In slices; what changes meanwhile is noted."""
        try:
            store.begin(engine.configuration)
            engine.flows.touched = set()
            for first, flows in engine.flows.walk(SLICE):
                records = bytearray(SLICE * SIZE)
                for flow in flows:
                    at = (flow.slot - first) * SIZE
                    records[at : at + SIZE] = self._record(engine, flow)
                if flows:
                    store.write_flows(first, records)
                yield
                if self._store is not store:
                    return  # given up meanwhile
            self._write_index(store, _all_of(save(engine)))
            store.remove_others()
        except OSError as error:
            self._give_up(error)

    # -- while packets flow

    def register(self, loop: EventLoop) -> None:
        """Write what changes from now on, and the rest when the loop has ended."""
        loop.every_tick(self.flush_due)
        loop.every(1.0, lambda real: loop.spawn(self.each_second()))
        loop.at_end(self.finish)

    def flush_due(self) -> None:
        """Once a turn: write flows that have changed."""
        store, engine = self._store, self._engine
        if store is None or engine is None or engine.flows.touched is None:
            return
        real = time.monotonic()
        if real < self._flush_at:
            return
        touched = engine.flows.touched
        self._flush_at = real if len(touched) > FLUSHED else real + FLUSH_INTERVAL
        try:
            for _ in range(min(FLUSHED, len(touched))):
                self._write(store, touched.pop())
        except OSError as error:
            self._give_up(error)

    def each_second(self) -> Iterator[None]:
        """A part of the round over all flows, and all else if it changed; in slices."""
        engine = self._engine
        if engine is None or self._under_way:
            return
        self._under_way = True
        try:
            if self._store is not None:
                yield from self._part(engine)
            elif self._again is not None and time.monotonic() >= self._again_at:
                yield from self._begin_again(engine, self._again)
        finally:
            self._under_way = False

    def _begin_again(self, engine: Engine, again: Callable[[], StateStore]) -> Iterator[None]:
        try:
            self._store = again()
        except BlockingIOError:
            self.unavailable_reason, self._again = _TAKEN, None
            return
        except OSError as error:
            self._give_up(error)
            return
        yield from self._write_all(self._store, engine)
        if self._store is not None:
            self.unavailable_reason = None

    def _part(self, engine: Engine) -> Iterator[None]:
        for _ in range(ROUND // SLICE):
            yield
            if engine.flows.touched is None:
                return
            part = next(self._round, None)
            if part is None:
                self._round = engine.flows.walk(SLICE)
                break
            for flow in part[1]:
                if self._has_moved(engine, flow):
                    engine.flows.touch(flow)
        for state in save(engine):
            if state is None:
                yield
            elif not self._is_behind and state != self._written and self._store is not None:
                try:
                    self._write_index(self._store, state)
                except OSError as error:
                    self._give_up(error)

    def reconfiguring(self, configuration: Configuration) -> Iterator[None]:
        """The engine does what another configuration says now; None after each slice."""
        if self._store is None or self._engine is None:
            return
        self._is_behind = True  # the state is of a configuration that is not written
        try:
            text: list[str] = []
            for part in Loaded(configuration=configuration).json_parts():
                text.append(part)
                yield
            saved: SavedState | None = None
            for state in save(self._engine):
                saved = state
                yield
            if self._store is None or saved is None:
                return
            self._store.write_configuration("".join(text))
            yield  # until the next index the earlier configuration is what counts
            if self._store is None or self._written is None:
                return  # ``_write_all`` is under way, and does both
            yield from self._write_index_in_slices(self._store, saved)
            if self._store is not None:
                self._store.remove_others()
        except OSError as error:
            self._give_up(error)
        finally:
            self._is_behind = False

    def finish(self) -> None:
        """The last writing, as far as time allows: what changed, then counters and times."""
        store, engine = self._store, self._engine
        if store is None or engine is None or self._written is None:
            return
        assert engine.flows.touched is not None
        until = time.monotonic() + STOP_PATIENCE
        try:
            for slot in engine.flows.touched:
                self._write(store, slot)
                if time.monotonic() > until:
                    break  # the rest is as old as after a crash
            self._write_index(store, _all_of(save(engine)))
            for flow in engine.flows:
                if self._has_moved(engine, flow):
                    self._write(store, flow.slot)
                if time.monotonic() > until:
                    break
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Let another gateway have the directory."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def status(self) -> dict[str, Any]:
        """For the status."""
        return {
            "kept": self._store is not None,
            **({} if self.unavailable_reason is None else {"reason": self.unavailable_reason}),
            **({} if self.refused is None else {"refused": self.refused}),
            **({} if self.resumed is None else {"resumed": self.resumed.status()}),
        }

    def _write(self, store: StateStore, slot: int) -> None:
        engine = self._engine
        assert engine is not None
        flow = engine.flows.at(slot)
        store.write_flows(slot, EMPTY if flow is None else self._record(engine, flow))

    def _record(self, engine: Engine, flow: Flow) -> bytes:
        """A flow's record, which is taken to be written."""
        slot = flow.slot
        missing = slot + 1 - len(self._last_seen)
        if missing > 0:
            self._last_seen.extend([-1.0] * missing)
            self._packets.extend([0] * missing)
        self._last_seen[slot] = flow.last_seen
        self._packets[slot] = flow.packets_out + flow.packets_in
        return pack(flow, engine.flows, self._seen)

    def _has_moved(self, engine: Engine, flow: Flow) -> bool:
        """Whether packets passed since it was written, here or in the kernel."""
        if flow.offloaded:
            engine.lifecycle.fold(flow)
        slot = flow.slot
        return (
            slot >= len(self._last_seen)
            or self._last_seen[slot] != flow.last_seen
            or self._packets[slot] != flow.packets_out + flow.packets_in
        )

    def _seen(self, flow: Flow) -> Seen:
        return (0, 0, 0, 0) if self._offloading is None else self._offloading.seen(flow)

    def _write_index_in_slices(self, store: StateStore, state: SavedState) -> Iterator[None]:
        parts = []
        for part in allocations_in_parts(state.allocations):
            parts.append(part)
            yield
        if self._store is store and self._written is not None:
            self._write_index(store, state, ",".join(parts))
        yield

    def _write_index(
        self, store: StateStore, state: SavedState, allocations: str | None = None
    ) -> None:
        store.write_index(
            state,
            base=self._base,
            time_scale=self._scale,
            seed=self.seed,
            written=time.time(),
            allocations=allocations,
        )
        self._written = state

    def _give_up(self, error: OSError) -> None:
        self.unavailable_reason = f"it cannot be written: {error.strerror or error}"
        self._written = None
        self._again_at = time.monotonic() + AGAIN
        if self._engine is not None:
            self._engine.flows.touched = None
        if self._store is not None:
            self._store.invalidate()
        self.close()

    def _refuse(self, why: str) -> None:
        assert self._store is not None
        self.refused = f"{why}; kept in {self._store.quarantine()}"


def _nobody(_flow: Flow, _seen: Seen) -> bool:
    return False


def _all_of(slices: Iterator[SavedState | None]) -> SavedState:
    return next(state for state in slices if state is not None)
