"""A VM runs out of ports while somebody looks."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Playwright, expect

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually
from tests.web.browser import PATIENCE, POINTS_NEAR_THE_AXIS, Visit, chromium
from tests.web.conftest import HTTP, URL

PORTS, WANTED = 1024, 1100
CARD = ".pool[data-vm='vm1'][data-protocol='Tcp']"

BAD = [179, 38, 30]  # --bad in light colours


def test_a_vm_runs_out_and_gets_ports_back(playwright: Playwright, fresh: Topology) -> None:
    gateway = Gateway(fresh, http=HTTP)
    gateway.start()
    vm1 = fresh.client("vm1")
    assert vm1.peer("Tcp", SERVER2).startswith(DEFAULT)
    with chromium(playwright, fresh) as browser:
        visit = Visit(browser, URL, color_scheme="light")
        page = visit.open()
        visit.has(CARD, "data-level", "ok")
        visit.shows(f"{CARD} .use", f"of {PORTS:,} in use")
        assert visit.find("#alarm").is_hidden()
        canvas = visit.find(f"{CARD} canvas")
        assert canvas.evaluate(POINTS_NEAR_THE_AXIS, BAD) == 0

        vm1.open(WANTED, SERVER)
        eventually(vm1.connections, lambda seen: seen["connected"] == PORTS)
        visit.has(CARD, "data-level", "exhausted")
        visit.shows(f"{CARD} .level", "Exhausted")
        visit.shows(f"{CARD} .use", f"{PORTS:,}of {PORTS:,} in use")
        visit.has(f"{CARD} canvas", "aria-valuetext", re.compile(rf": {PORTS:,} of {PORTS:,}$"))
        visit.shows(f"{CARD} .rest", "0 free")
        visit.shows("#alarm", f"vm1: Tcp ports on {DEFAULT} exhausted")
        visit.shows("#announcement", f"vm1 has run out of Tcp ports on {DEFAULT}")
        assert "1 exhausted" in page.title()
        visit.shows("#figures", f"100%vm1 Tcp, {PORTS:,} of {PORTS:,}")
        eventually(lambda: canvas.evaluate(POINTS_NEAR_THE_AXIS, BAD), lambda points: points > 20)

        # the event, as the API has it
        event = gateway.event(eventDescription="Ports exhausted")
        first = visit.find("#event-list li[data-kind='exhaustion']").first
        assert first.locator("time").get_attribute("datetime") == event["time"]
        assert f"{DEFAULT} → {SERVER}:7" in first.inner_text()
        record = gateway.ports("vm1", "Tcp")
        assert (record["used"], record["free"], record["highWater"]) == (PORTS, 0, PORTS)
        shown = int(visit.find(f"{CARD} .rest .bad b").inner_text().replace(",", ""))
        assert 0 < shown <= gateway.ports("vm1", "Tcp")["failed"]

        # what the gateway thinks of it, the advice open
        worst = "#findings li[data-severity='critical']"
        expect(visit.find(worst).first).to_be_visible(timeout=PATIENCE)

        def both() -> tuple[dict[str, Any], str]:
            """What the gateway finds, and what the page shows: it asks every few seconds."""
            found = json.loads(gateway.cli("diagnose", "vm1", "--json").stdout)["findings"][0]
            return found, visit.find(worst).first.inner_text()

        eventually(
            both, lambda seen: all(t in seen[1] for t in (seen[0]["title"], seen[0]["advice"][-1]))
        )
        expect(visit.find(f"{worst} ul")).to_be_visible()

        # who comes later sees when it was, too
        later = Visit(browser, URL, color_scheme="light")
        later.open()
        eventually(
            lambda: later.find(f"{CARD} canvas").evaluate(POINTS_NEAR_THE_AXIS, BAD),
            lambda points: points > 20,
        )
        assert later.find("#event-list li[data-kind='exhaustion']").count() >= 1

        vm1.reset(PORTS)  # held for 15 s; what was pending is given up
        vm1.close()
        visit.has(CARD, "data-level", re.compile("ok|near"))
        visit.shows("#announcement", f"vm1 has Tcp ports on {DEFAULT} again")
        visit.shows(f"{CARD} .rest", f"{PORTS:,} high water")
        assert visit.find("#alarm").is_hidden()
        for each in (visit, later):
            assert each.complaints == []
            each.close()
    assert gateway.losses() == {}


def test_the_page_outlives_the_daemon(playwright: Playwright, fresh: Topology) -> None:
    gateway = Gateway(fresh, http=HTTP)
    gateway.start()
    fresh.client("vm1").open(5, SERVER)
    with chromium(playwright, fresh) as browser:
        visit = Visit(browser, URL)
        visit.open()
        visit.shows("#flow-count", "5 shown")
        assert gateway.stop() == 0
        visit.has("#connection", "data-state", "lost")
        visit.shows("#connection", "No connection since")
        gateway.start()
        visit.shows("#connection", "Live")
        visit.shows("#flow-count", "5 shown")
        fresh.client("vm2").open(7, SERVER)
        visit.shows("#flow-count", "12 shown")
        assert visit.find("#event-list").inner_text().count("Started") == 2
        # what a browser says of a server that is not there is no mistake of the page
        assert [line for line in visit.complaints if "net::ERR_" not in line] == []
        visit.close()
