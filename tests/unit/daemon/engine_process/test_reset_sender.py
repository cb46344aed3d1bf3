"""Resets are sent a few a turn, each shown to the captures first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from gateway.daemon.engine_process.reset_sender import RESETS_PER_TURN, ResetSender


class Bench:
    def __init__(self, *, told: bool = True) -> None:
        self.waiting = [SimpleNamespace(packet=bytes([n % 256])) for n in range(200)]
        self.order: list[tuple[str, bytes]] = []
        self.engine: Any = SimpleNamespace(
            profile=SimpleNamespace(tcp_reset_on_idle=told, nat_gateway=None),
            lifecycle=SimpleNamespace(reset_queue=self),
        )
        self.suppressed = 3
        socket: Any = SimpleNamespace(
            send=lambda packet: self.order.append(("sent", packet)), sent=0, failed=0
        )
        self.sender = ResetSender(
            self.engine,  # type: ignore[arg-type]
            socket,
            lambda reset: self.order.append(("shown", reset.packet)),
        )

    def __len__(self) -> int:
        return len(self.waiting)

    def take(self) -> Any:
        return self.waiting.pop(0)


def test_a_turn_sends_so_many_and_shows_each_first() -> None:
    bench = Bench()
    bench.sender.tick()
    assert len(bench.order) == 2 * RESETS_PER_TURN
    assert bench.order[:2] == [("shown", b"\x00"), ("sent", b"\x00")]
    assert bench.sender.status()["waiting"] == 200 - RESETS_PER_TURN
    bench.sender.tick()
    bench.sender.tick()
    assert (len(bench.order), len(bench)) == (400, 0)


def test_it_costs_nothing_where_no_ends_are_told() -> None:
    loop = Mock()
    Bench(told=False).sender.register(loop)
    assert loop.mock_calls == []
    Bench().sender.register(loop)
    loop.every_tick.assert_called_once()
