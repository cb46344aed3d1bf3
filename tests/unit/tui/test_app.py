"""``snatgw top`` driven by keys at 80×24, against the real API over an engine of records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from gateway.daemon.channel.event_views import gateway_event
from gateway.tui.app import Top
from tests.unit.daemon.serving import Served, flow, pool, served
from tests.unit.tui.screen import SIZE, hides, lines, shows, until

Test = Callable[[Pilot[Any], Served], Awaitable[None]]


@asynccontextmanager
async def top(path: Path, **query: str) -> AsyncIterator[Pilot[Any]]:
    async with Top(str(path), query).run_test(size=SIZE, notifications=True) as pilot:
        yield pilot


def play(directory: Path, test: Test, **query: str) -> None:
    """Run a test's coroutine against an API with three flows and two pools."""
    with served(directory) as daemon:
        daemon.engine.flows = [
            flow(1),
            flow(2, vm="web2", protocol=17, remote_ip="192.0.2.9", remote_port=53, bytes_in=9000),
            flow(3, vm="web3", state="CoolDown", remote_ip="192.0.2.77"),
        ]
        daemon.engine.ports = [
            pool("web3"),
            pool("vm1", used=1024, free=0, high_water=1024, cooling=200, failed=37),
        ]

        async def run() -> None:
            async with top(daemon.path, **query) as pilot:
                await shows(pilot, "3 flows", "web3")
                await test(pilot, daemon)

        asyncio.run(run())


def row(seen: list[str], text: str) -> str:
    (found,) = (line for line in seen if text in line)
    return found


def order(seen: list[str]) -> list[str]:
    """The VMs of the flow table, top down."""
    flows = [line for line in seen if re.match(r"(Tcp|Udp) ", line)]
    return [line.split()[2] for line in flows]


def test_everything_is_on_one_screen(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        daemon.post(gateway_event(0.0, "Reloaded", "Informational", {"changes": ["vm9 added"]}))
        seen = await shows(pilot, "vm9 added", "by bytesPerSecond ▼")
        assert len(seen) <= 24
        assert max(map(len, seen)) <= 80
        flow_row = row(seen, "198.51.100.7:443")
        assert flow_row.split()[:5] == [
            "Tcp", "Estab", "vm1", "203.0.113.10:1025", "198.51.100.7:443",
        ]  # fmt: skip
        exhausted, other = row(seen, "1024/1024"), row(seen, "3/1024")
        assert "█▓▓▓" in exhausted
        assert "·" not in exhausted
        assert exhausted.endswith("1024/1024  1024   200     37")
        assert len(exhausted) <= 78  # off the scroll bar
        assert seen.index(exhausted) < seen.index(other)  # the fullest stands first
        for key in ("Details", "/ Filter", "Sort", "r Reverse", "p Pause", "? Keys", "q Quit"):
            assert key in seen[-1]

    play(tmp_path, test)


def test_rates_come_alive(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await until(pilot, lambda seen: row(seen, ".7:443").endswith("0      0"), "known rates")
        later = flow(1, age=22.34567, packets_in=12, bytes_in=15120)  # a sixth of a second, at 60:1
        daemon.engine.flows = [later, *daemon.engine.flows[1:]]
        seen = await until(pilot, lambda seen: "90.0k" in row(seen, ".7:443"), "a rate")
        assert order(seen)[0] == "vm1"

    play(tmp_path, test)


def test_filter_while_typing_and_clear(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("slash", *"udp 53")
        seen = await shows(pilot, '1 of 3 match "udp 53"')
        assert order(seen) == ["web2"]
        await pilot.press("enter")
        await shows(pilot, '1 of 3 match "udp 53"')
        assert pilot.app.focused is not None
        assert pilot.app.focused.id == "flows"
        await pilot.press("escape")
        seen = await hides(pilot, "match")
        assert len(order(seen)) == 3

    play(tmp_path, test)


def test_letters_in_the_filter_are_no_commands(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("slash", *"qprz")
        await shows(pilot, '0 of 3 match "qprz"', "qprz")

    play(tmp_path, test)


def test_order_by_keys_and_by_clicks_on_heads(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("greater_than_sign", "greater_than_sign")
        await shows(pilot, "by bytesInPerSecond ▼", "IN/s▼")
        await pilot.press(*["less_than_sign"] * 5)
        seen = await shows(pilot, "by vm ▲", "VM▲")
        assert order(seen) == ["vm1", "web2", "web3"]
        await pilot.press("r")
        seen = await shows(pilot, "by vm ▼", "VM▼")
        assert order(seen) == ["web3", "web2", "vm1"]
        head = next(line for line in seen if "REMOTE" in line)
        await pilot.click("#flows", offset=(head.index("REMOTE"), 0))
        seen = await shows(pilot, "by remote ▲")
        assert order(seen) == ["web2", "web3", "vm1"]
        await pilot.click("#flows", offset=(head.index("REMOTE"), 0))
        await shows(pilot, "by remote ▼")
        await pilot.press("less_than_sign")
        await shows(pilot, "by public ▲")

    play(tmp_path, test)


def test_pause_holds_the_screen_and_frees_the_daemon(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("p")
        await shows(pilot, "PAUSED")
        daemon.engine.flows = [flow(9, vm="later")]
        listings = daemon.engine.listings
        await asyncio.sleep(2.5)
        assert daemon.engine.listings - listings <= 1  # one may have been under way
        assert "later" not in "\n".join(lines(pilot.app))
        await pilot.press("p")
        await shows(pilot, "later", "1 flow")
        await hides(pilot, "PAUSED")

    play(tmp_path, test)


def test_what_is_typed_ahead_after_the_filter_is_for_the_flows(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        for key, letter in (("slash", "/"), ("w", "w"), ("2", "2"), ("enter", "\r"), ("p", "p")):
            pilot.app.post_message(events.Key(key, letter))  # as a slow terminal does
        await shows(pilot, "PAUSED")
        assert pilot.app.query_one("#filter", Input).value == "w2"

    play(tmp_path, test)


def test_a_flow_whole_until_it_ends(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("slash", *"web2", "enter")
        await shows(pilot, '1 of 3 match "web2"')
        await pilot.press("enter")
        await shows(pilot, "Flow 2", "10.0.1.4:40002", "192.0.2.9:53", "2 packets, 9.0kB")
        flows = daemon.engine.flows
        daemon.engine.flows = [flows[0], flows[1]._replace(bytes_in=77000), flows[2]]
        await shows(pilot, "2 packets, 77.0kB")
        daemon.engine.flows = [flows[0], flows[2]]
        await shows(pilot, "Flow 2: it has ended")
        await pilot.press("escape")
        await hides(pilot, "Flow 2")
        await shows(pilot, '0 of 2 match "web2"')

    play(tmp_path, test)


def test_ports_lead_to_the_flows_that_hold_them(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("tab", "enter")
        seen = await shows(pilot, '1 of 3 match "vm1 203.0.113.10 Tcp"')
        assert order(seen) == ["vm1"]

    play(tmp_path, test)


def test_zoom_help_and_an_event_whole(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        event = gateway_event(0.0, "ReloadRefused", "Error", {"problems": ["line 3: no such key"]})
        daemon.post(event)
        await shows(pilot, "no such key")
        await pilot.press("tab", "tab", "z")
        seen = await hides(pilot, "REMOTE")
        assert row(seen, "EVENTS")
        await pilot.press("enter")
        await shows(pilot, "Error: ReloadRefused", "1970-01-01T00:00:00.000Z", "GatewayEvent")
        await pilot.press("escape", "z")
        await shows(pilot, "REMOTE", "SNAT PORTS")
        await pilot.press("question_mark")
        await shows(pilot, "high-water mark", "order by another column")
        await pilot.press("escape")
        await hides(pilot, "high-water mark")

    play(tmp_path, test)


def test_the_cursor_stays_on_its_flow_and_on_the_first_row(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        await pilot.press("less_than_sign", "less_than_sign", "less_than_sign")
        await shows(pilot, "by vm ▲")
        table: Any = pilot.app.query_one("#flows")
        daemon.engine.flows = [*daemon.engine.flows, flow(4, vm="a0")]
        await shows(pilot, "4 flows")
        assert table.chosen == "4"  # the first row, whichever flow it is
        await pilot.press("down", "down")
        assert table.chosen == "2"
        daemon.engine.flows = [*daemon.engine.flows, flow(5, vm="a1")]
        await shows(pilot, "5 flows")
        assert table.chosen == "2"

    play(tmp_path, test)


def test_a_daemon_that_goes_and_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            daemon = ExitStack()
            first = daemon.enter_context(served(tmp_path))
            first.engine.flows = [flow(1)]
            path = first.path
            pilot = await stack.enter_async_context(top(path))
            await shows(pilot, "1 flow", "vm1")
            daemon.close()
            seen = await shows(pilot, "no daemon: trying again", str(path)[:60])
            assert "vm1" in "\n".join(seen)  # what was there is there still
            path.unlink()
            second = stack.enter_context(served(tmp_path))
            second.engine.flows = [flow(2, vm="anew")]
            await shows(pilot, "anew", "the daemon is back")
            await hides(pilot, "trying again")

    asyncio.run(run())


def test_a_query_that_the_daemon_refuses_is_shown(tmp_path: Path) -> None:
    async def run(daemon: Served) -> None:
        async with top(daemon.path, sort="colour") as pilot:
            await shows(pilot, "'colour' is no field")

    with served(tmp_path) as daemon:
        asyncio.run(run(daemon))


def test_probes_are_shown_once_the_api_has_them(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        backends = [
            {"status": "Up", "vm": "vm1", "rule": "web", "loadBalancer": "lb"},
            {
                "status": "Down", "vm": "web2", "rule": "web", "loadBalancer": "lb", "probe": "p",
                "backend": {"ip": "10.0.1.5", "port": 80}, "lastProbe": {"reason": "refused", "inARow": 3},
            },
        ]  # fmt: skip
        assert app._sample is not None
        app.workers.cancel_all()
        app._take({**app._sample, "health": {"backends": backends}})
        seen = await shows(pilot, "PROBES", "web2 10.0.1.5:80  lb/web  p: refused x3", "Down")
        assert seen.index(row(seen, "Down ")) < seen.index(row(seen, "Up  "))

    play(tmp_path, test)


def test_narrow_and_wide(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        assert "PKT/s" not in "\n".join(lines(pilot.app))
        await pilot.resize_terminal(200, 50)
        seen = await shows(pilot, "PKT/s", "EXPIRES", "PRIVATE")
        assert "10.0.1.4:40001" in row(seen, ".7:443")
        await pilot.resize_terminal(40, 10)
        await hides(pilot, "PKT/s")

    play(tmp_path, test)


def test_lines_that_one_pane_does_not_need_are_the_flows(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        daemon.engine.flows = [flow(n, vm="vm1") for n in range(1, 101)]
        await shows(pilot, "100 flows")
        await pilot.resize_terminal(200, 60)
        # 5 lines of figures and keys, 3 of ports, 2 of events; the rest of 60
        seen = await until(pilot, lambda seen: len(order(seen)) > 45, "a screen full of flows")
        assert "SNAT PORTS" in "\n".join(seen)
        for number in range(30):
            said = {"changes": [f"change {number}"]}
            daemon.post(gateway_event(float(number), "Reloaded", "Informational", said))
        seen = await shows(pilot, "change 29", "change 22")
        assert len(order(seen)) > 25

    play(tmp_path, test)


@pytest.mark.parametrize("number", [0, 64_000])
def test_what_is_drawn_is_what_is_seen(tmp_path: Path, number: int) -> None:
    """A thousand rows cost what a screenful costs: only lines on the screen are laid out."""

    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        daemon.engine.flows = [flow(n, vm="vm1") for n in range(1, number + 1)]
        await shows(pilot, f"{number:,} flows")
        table: Any = pilot.app.query_one("#flows")
        assert len(table.rows) == min(number, 1000)
        drawn: list[int] = []
        draw = table.render_line

        def render_line(y: int) -> Any:
            drawn.append(y)
            return draw(y)

        table.render_line = render_line
        await pilot.press("end")
        await pilot.pause()
        assert len(drawn) <= 2 * 24

    play(tmp_path, test, limit="1000")


def test_letters_that_come_with_the_slash_are_the_filters(tmp_path: Path) -> None:
    """A fast typist's, or a terminal's that sends them all at once: p would pause."""

    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        for key in ("slash", "u", "d", "p"):
            pilot.app.post_message(events.Key(key, None if key == "slash" else key))
        await shows(pilot, '1 of 3 match "udp"')
        await hides(pilot, "PAUSED")
        assert "Esc Clear" in lines(pilot.app)[-1]

    play(tmp_path, test)


def test_a_reason_is_shown_as_it_is(tmp_path: Path) -> None:
    """Brackets in it are no markup, which would end the program where it is wrong."""

    async def run() -> None:
        async with top(tmp_path / "[/none]" / "api.sock") as pilot:
            await shows(pilot, "[/none]")

    asyncio.run(run())
