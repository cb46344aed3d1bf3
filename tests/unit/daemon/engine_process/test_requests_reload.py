"""What carrying a configuration out means: host first, then the engine, then the other parts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.core.engine import Engine
from gateway.daemon.channel.api_messages import Kind, Request
from gateway.daemon.channel.reload_messages import pack
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.requests_reload import ReloadRequests
from gateway.datapath.errors import DatapathError
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load_text
from tests.unit.daemon.serving import GUARDED, judging_engine, requests_with


class Bench:
    """A host and a reader of ours around a real engine."""

    def __init__(self, *, file: bool = True) -> None:
        self.engine: Engine = judging_engine()
        self.done: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.said: list[tuple[Kind, Any]] = []
        self.refuses: set[int] = set()
        self.text = GUARDED
        self.loop = EventLoop(lambda real: real)
        self.reload = ReloadRequests(
            self.engine,
            self,  # type: ignore[arg-type]
            __file__ if file else None,  # type: ignore[arg-type]
            self.loop,
            read=self._read,
            parts=(self._part("first"), self._part("second")),
            post=lambda name, level, about: self.events.append((name, about)),
        )
        self.requests = requests_with(self.reload.handlers)

    def _part(self, name: str) -> Callable[[Configuration], Iterator[None]]:
        def reconfiguring(_: Configuration) -> Iterator[None]:
            yield
            self.done.append(name)

        return reconfiguring

    def with_real_names(self, configuration: Configuration) -> Configuration:
        return configuration

    def change(self, configuration: Configuration) -> None:
        self.done.append("host")
        if len(self.done) in self.refuses:
            raise DatapathError(["the kernel refuses"])

    def _read(self) -> int:
        reader, writer = os.pipe()
        os.write(writer, b"".join(pack(load_text(self.text, "gateway.yaml"))))
        os.close(writer)
        return reader

    def ask(self, **parameters: str) -> tuple[Kind, Any]:
        """The last message of the answer."""
        asked = Request(1, "reload", parameters)
        for step in self.requests.answer(asked, lambda *message: self.said.append(message)):
            if step is not None:
                self.said.append(step)
        self.turn()
        return self.said[-1]

    def turn(self) -> None:
        while self.loop._readers or self.loop._slices:
            for reader in list(self.loop._readers.values()):
                reader()
            if self.loop._slices:
                self.loop._do_slice()


def test_host_then_engine_then_parts() -> None:
    bench = Bench()
    bench.text = GUARDED.replace("name: vm3", "name: vm33")
    assert bench.ask()[0] is Kind.END
    assert bench.done == ["host", "first", "second"]
    assert [vm.name for vm in bench.engine.configuration.virtual_machines][-1] == "vm33"
    assert [name for name, _ in bench.events] == ["Reloaded"]


def test_what_takes_a_restart_changes_nothing() -> None:
    bench = Bench()
    bench.text = GUARDED.replace("outside: wan0", "outside: wan1")
    kind, (line,) = bench.ask()
    assert kind is Kind.FAILED
    assert "restart snatgw for that" in line
    assert bench.done == []
    assert [name for name, _ in bench.events] == ["ReloadRefused"]


def test_a_host_that_refuses_has_its_earlier_rules_again() -> None:
    bench = Bench()
    bench.refuses = {1}
    before = bench.engine.configuration
    kind, (line,) = bench.ask()
    assert kind is Kind.FAILED
    assert line == "the rules could not be changed: the kernel refuses"
    assert bench.done == ["host", "host"]
    assert bench.engine.configuration is before


def test_and_where_they_cannot_be_restored_it_says_so() -> None:
    bench = Bench()
    bench.refuses = {1, 2}
    assert len(bench.ask()[1]) == 2


def test_without_a_file_there_is_nothing_to_reload(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(file=False)
    kind, (line,) = bench.ask()
    assert (kind, bench.done) == (Kind.FAILED, [])
    bench.reload.on_hangup()
    assert capsys.readouterr().err.count(line) == 2


def test_a_hangup_reloads_and_answers_nobody() -> None:
    bench = Bench()
    bench.reload.on_hangup()
    bench.turn()
    assert (bench.done, bench.said) == (["host", "first", "second"], [])
    assert json.dumps(bench.events)
