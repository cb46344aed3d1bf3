"""A backend goes down and up again while somebody looks."""

from __future__ import annotations

import sys

from playwright.sync_api import Playwright, expect

from tests.netns.gateway import FRONTENDS, Gateway
from tests.netns.topology import Topology, eventually
from tests.web.browser import PATIENCE, POINTS_NEAR_THE_AXIS, Visit, chromium
from tests.web.conftest import HTTP, URL

WARN = [133, 86, 0]  # --warn in light colours


def test_probes_and_their_events(playwright: Playwright, fresh: Topology) -> None:
    gateway = Gateway(fresh, http=HTTP, timeScale=10)
    balancer = gateway.configuration["loadBalancers"][0]
    balancer["probes"] = [
        {
            "name": "web-probe",
            "protocol": "Tcp",
            "port": 80,
            "intervalInSeconds": 5,
            "probeThreshold": 2,
        }
    ]
    for rule in balancer["loadBalancingRules"]:
        rule["probe"] = "web-probe"
    gateway.start()
    with chromium(playwright, fresh) as browser:
        visit = Visit(browser, URL, color_scheme="light")
        visit.open()
        visit.shows("#health-count", "2 of 2 down")
        row = visit.find("#health-rows tr").first
        expect(row).to_contain_text(f"vm2lb / rule1, Tcp {FRONTENDS[0]}:80Down", timeout=PATIENCE)
        visit.shows("#event-list", "vm2 is down by probe web-probe")
        visit.shows("#event-list", f"rule rule1 on {FRONTENDS[0]}:80, 1 of 1 down")

        fresh.start("vm2", sys.executable, "-m", "http.server", "80")
        visit.shows("#health-count", "0 of 2 down")
        visit.shows("#event-list", "vm2 is up by probe web-probe")
        (first, _) = gateway._list("health")
        assert first["status"] == "Up"
        expect(row.locator(".level")).to_have_text("Up", timeout=PATIENCE)
        # and it stands on the plots' time axis
        plot = visit.find("#plots canvas").first
        eventually(lambda: plot.evaluate(POINTS_NEAR_THE_AXIS, WARN), lambda points: points > 10)
        assert visit.complaints == []
        visit.close()
