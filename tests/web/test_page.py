"""What the page shows of a gateway at work, against what the API says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Route, expect

from gateway.daemon.api_process.diagnosis.finding import percent
from tests.netns.gateway import DEFAULT, FRONTENDS, Gateway
from tests.netns.topology import SERVER, SERVER2, eventually
from tests.web.browser import PATIENCE, Visit

Begin = Callable[..., Visit]
NDJSON = "application/x-ndjson"


def column(visit: Visit, number: int) -> list[str]:
    return visit.find(f"#flow-rows td:nth-child({number})").all_inner_texts()


def test_the_flows_are_the_apis(town: Gateway, visit: Begin) -> None:
    seen = visit()
    seen.open()
    flows = town.flows()
    seen.shows("#flow-count", f"{len(flows)} shown")
    expect(seen.find("#flow-rows tr")).to_have_count(len(flows), timeout=PATIENCE)
    rows = seen.find("#flow-rows tr").all_inner_texts()
    for flow in flows:
        public = flow["public"]
        private, remote = (
            f"{flow[side]['ip']}:{flow[side]['port']}" for side in ("private", "remote")
        )
        texts = (flow["protocol"], flow["vm"], private, remote, f"{public['ip']}:{public['port']}")
        assert any(all(text in row for text in texts) for row in rows), flow


def test_flows_are_searched_and_sorted_by_the_api(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    page.get_by_label("Search").fill(SERVER2)
    toward = [flow for flow in town.flows() if flow["remote"]["ip"] == SERVER2]
    seen.shows("#flow-count", f"{len(toward)} shown, {len(town.flows())} in all")
    assert set(column(seen, 6)) == {f"{SERVER2}:7"}
    assert any(f"match={SERVER2}" in url for url in seen.requests)
    page.get_by_role("button", name="Clear").click()
    seen.shows("#flow-count", f"{len(town.flows())} shown")

    page.get_by_role("button", name="VM", exact=True).click()
    seen.has("#flow-head th:nth-child(3)", "aria-sort", "ascending")
    eventually(lambda: column(seen, 3), lambda vms: vms == sorted(vms))
    page.get_by_role("button", name="VM", exact=True).click()
    seen.has("#flow-head th:nth-child(3)", "aria-sort", "descending")
    eventually(lambda: column(seen, 3), lambda vms: vms[0] == "vm3" and vms == sorted(vms)[::-1])

    page.get_by_label("Search").fill("no such thing")
    seen.shows("#flows-empty", "No flow matches.")
    page.get_by_label("Search").fill("")
    page.get_by_label("State").select_option("Opening")
    seen.shows("#flow-count", "0 shown")
    page.get_by_label("State").select_option("Established")
    page.get_by_label("Rows").select_option("25")
    seen.shows("#flow-count", "25 of ")
    expect(seen.find("#flow-rows tr")).to_have_count(25, timeout=PATIENCE)


def test_rates_and_totals_of_real_traffic(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    vm2 = town.net.client("vm2")
    vm2.keep_asking(SERVER)
    try:
        page.get_by_label("Protocol").first.select_option("Udp")
        row = seen.find("#flow-rows tr").first
        expect(row).to_contain_text("vm2", timeout=PATIENCE)
        for cell in (8, 9):  # out, in
            expect(row.locator(f"td:nth-child({cell})")).to_have_text(
                re.compile(r"^[1-9][\d.]* [kM]bit/s$"), timeout=PATIENCE
            )
        expect(seen.find("#figures")).to_contain_text(
            re.compile(r"Out[\d.]+[kM]bit/s"), timeout=PATIENCE
        )
        seen.has("#plots canvas >> nth=1", "aria-valuetext", re.compile(r": [1-9][\d,]* a second$"))
        seen.shows("#busiest-rows", f"{SERVER}:7")
    finally:
        vm2.stop()


def test_shares_are_rounded_as_the_diagnosis_rounds_them(visit: Begin) -> None:
    """One page shows both."""
    page = visit().open()
    parts = [0, 1, 10, 11, 128, 512, 640, 900, 1018, 1023, 1024, 1030]
    shown = page.evaluate(
        "async (parts) => { const { percent } = await import('/format.js');"
        " return parts.map((part) => percent(part / 1024) + ' %'); }",
        parts,
    )
    assert shown == [percent(part, 1024).replace("under ", "<") for part in parts]


def test_ports_destinations_rules_and_drops(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    for vm, public in (("vm1", DEFAULT), ("vm2", FRONTENDS[0])):
        card = f".pool[data-vm='{vm}'][data-public-ip='{public}'][data-protocol='Tcp']"
        record = next(
            record
            for record in town._list("ports", "--vm", vm)
            if (record["publicIp"], record["protocol"]) == (public, "Tcp")
        )
        seen.shows(f"{card} .use", f"{record['used']}of {record['allocated']:,} in use")
    seen.shows("#busiest-rows", f"{SERVER2}:7")
    seen.shows("#rule-rows", "web-nsg / no-smtpDeny out")
    seen.shows("#drop-rows", "Denied by security rule")
    hits = next(rule["hits"] for rule in town._list("nsg") if rule["name"].endswith("no-smtp"))
    row = seen.find(
        "#rule-rows tr",
    ).filter(has_text="no-smtp")
    assert int(row.locator("td").nth(2).inner_text()) <= hits
    # a card's flows, a destination's flows
    page.get_by_role("button", name="Flows of vm1").first.click()
    eventually(lambda: set(column(seen, 3)), lambda vms: vms == {"vm1"})
    page.get_by_role("button", name=f"Flows toward {SERVER2}:7").click()
    eventually(lambda: set(column(seen, 6)), lambda remotes: remotes == {f"{SERVER2}:7"})


def test_pools_beyond_the_first_are_shown_when_asked_for(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    every = len(town._list("ports"))
    expect(seen.find(".pool")).to_have_count(6, timeout=PATIENCE)
    more = page.get_by_role("button", name=f"Show {every - 6} more")
    assert more.get_attribute("aria-expanded") == "false"
    more.click()
    expect(seen.find(".pool")).to_have_count(every, timeout=PATIENCE)
    seen.has(".pool[data-vm='idle'] >> nth=0", "data-level", "unused")
    page.get_by_role("button", name="Show fewer").click()
    expect(seen.find(".pool")).to_have_count(6, timeout=PATIENCE)


def explained(town: Gateway, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(town.cli("explain", *arguments, "--json").stdout)
    return answer


def test_explain_both_directions(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    form = page.locator("#explain-form")
    explain = form.get_by_role("button", name="Explain")
    form.get_by_label("VM").fill("vm1")
    form.get_by_label("To", exact=True).fill(SERVER)
    form.get_by_label("To port").fill("25")
    explain.click()
    answer = explained(town, "--vm", "vm1", "--to", f"{SERVER}:25/tcp")
    seen.shows("#explain-answer .verdict", f"Denied{answer['reason']}")
    seen.shows("#explain-answer", "Deny by no-smtp of web-nsg, subnet")

    form.get_by_label("To port").fill("443")
    explain.click()
    answer = explained(town, "--vm", "vm1", "--to", f"{SERVER}:443/tcp")
    seen.shows("#explain-answer .verdict", f"Allowed{answer['reason']}")
    seen.shows("#explain-answer", "default outbound access")
    (candidate,) = answer["candidates"]
    seen.shows("#explain-answer td >> nth=0", candidate["publicIp"])
    seen.shows("#explain-answer td >> nth=1", f"{candidate['portsFree']:,} free")

    flow = town.flows("--vm", "vm1")[0]
    form.get_by_label("Source port").fill(str(flow["private"]["port"]))
    form.get_by_label("To port").fill("7")
    explain.click()
    seen.shows("#explain-answer", f"It belongs to live flow {flow['id']}.")

    form.get_by_label("ICMP").check()
    assert form.get_by_label("To port").is_hidden()
    explain.click()
    answer = explained(town, "--vm", "vm1", "--to", f"{SERVER}/icmp")
    seen.shows("#explain-answer .verdict", f"Dropped{answer['reason']}")

    form.get_by_label("Inbound").check()
    form.get_by_label("TCP").check()
    assert form.get_by_label("VM").is_hidden()
    form.get_by_label("From", exact=True).fill(SERVER)
    form.get_by_label("From port").fill("50000")
    form.get_by_label("To public IP").fill(DEFAULT)
    form.get_by_label("To port").fill("1024")
    explain.click()
    answer = explained(
        town, "--inbound", "--from", f"{SERVER}:50000", "--to", f"{DEFAULT}:1024/tcp"
    )
    seen.shows("#explain-answer .verdict", answer["reason"])

    form.get_by_label("To public IP").fill("nonsense")
    explain.click()
    seen.shows("#explain-answer .problem", "is neither IP:PORT/tcp")
    form.get_by_label("Outbound").check()
    form.get_by_label("VM").fill("vm9")
    form.get_by_label("To", exact=True).fill(SERVER)
    explain.click()
    seen.shows("#explain-answer .problem", "did you mean vm")
    # the browser tells of an answer that is not 200; that is all it may complain about
    assert len(seen.complaints) == 2
    assert all("404" in line or "400" in line for line in seen.complaints)
    seen.complaints.clear()


def event(operation: str, level: str, **properties: Any) -> dict[str, Any]:
    return {
        "time": "2026-01-31T12:00:00.000Z", "category": "any", "operationName": operation, "level": level,
        "resource": "any", "properties": properties,
    }  # fmt: skip


EXHAUSTED = {
    "eventDescription": "Ports exhausted", "eventProperties": {"public ip address": DEFAULT}, "vm": "vm1",
    "protocol": "Tcp", "remote": {"ip": SERVER, "port": 7}, "count": 3,
}  # fmt: skip


def test_events_of_all_shapes(visit: Begin) -> None:
    events = {
        "exhaustion": event("LoadBalancerProbeHealthStatus", "Warning", **EXHAUSTED),
        # as Azure has it for Standard load balancers
        "exhaustion2": event(
            "Microsoft.Network/loadBalancers/healthEvents/SnatPortExhaustion", "Error",
            Description="Backend IP 10.0.1.4 has exhausted …", **EXHAUSTED,
        ),
        "warning": event(
            "Microsoft.Network/loadBalancers/healthEvents/HighSnatPortUsage", "Warning",
            Description="Backend IP 10.0.1.4 is utilizing more than 75% of SNAT ports",
        ),
        "probe": event(
            "LoadBalancerProbeHealthStatus", "Warning", vm="vm2", probe="p", rule="web", status="Down",
            publicIpAddress=DEFAULT, port="80", totalDipCount=3, dipDownCount=1, healthPercentage=66.7,
        ),
        "error": event("FlowTableFull", "Error", count=4),
        "start": event("Reloaded", "Informational", changes=["one", "two"], count=2),
        "over": event("HostRestored", "Informational", restored=[], over=["lan0 is down"]),
        "plain": event(
            "PacketsDropped", "Informational", reason="DeniedBySecurityRule", vm="vm2", protocol="Tcp",
            source="10.0.1.5:1", destination=f"{SERVER}:25", count=9, rule="web-nsg/no-smtp",
        ),
    }  # fmt: skip
    for second, each in enumerate(events.values()):
        each["time"] = f"2026-01-31T12:00:0{second}.000Z"
    seen = visit()
    body = "".join(json.dumps(each) + "\n" for each in events.values())
    seen.page.route(
        "**/v1/events*",
        lambda route: route.fulfill(body=body, content_type="application/x-ndjson"),
    )
    page = seen.open()
    items = seen.find("#event-list li")
    expect(items.filter(has_text="vm1 ran out of Tcp ports")).to_have_count(2, timeout=PATIENCE)
    kinds = [
        ("warning", "High snat port usage", "is utilizing more than 75%"),
        ("probe", "vm2 is down by probe p", f"rule web on {DEFAULT}:80, 1 of 3 down"),
        ("error", "Flow table full", "count 4"),
        ("start", "Reloaded", "one; two, count 2"),
        ("start", "Host restored", "over: lan0 is down"),
    ]
    for kind, title, more in kinds:
        item = seen.find(f"#event-list li[data-kind='{kind}']").filter(has_text=title)
        expect(item).to_contain_text(more, timeout=PATIENCE)
    denied = items.filter(has_text="Denied by security rule by web-nsg/no-smtp")
    expect(denied).to_have_count(0)
    page.get_by_label("All", exact=True).check()
    expect(denied).to_contain_text(f"9 dropped: vm2 Tcp 10.0.1.5:1 → {SERVER}:25", timeout=PATIENCE)


MARKUP = "<img src=x onerror=\"document.title='run'\"><b>bold</b>"


def test_data_is_text_whatever_it_says(town: Gateway, visit: Begin) -> None:
    """Names cannot have markup in them; should one ever, it is shown as it is."""
    seen = visit()
    status = town.status() | {"profile": MARKUP, "version": MARKUP}
    seen.page.route("**/v1/status*", lambda route: route.fulfill(json=status))
    event = {
        "time": "2026-01-31T12:00:00.000Z", "category": MARKUP, "operationName": MARKUP, "level": "Error",
        "resource": MARKUP, "properties": {MARKUP: MARKUP, "vm": MARKUP},
    }  # fmt: skip
    seen.page.route(
        "**/v1/events*",
        lambda route: route.fulfill(body=json.dumps(event), content_type="application/x-ndjson"),
    )
    seen.page.route(
        "**/v1/diagnose*",
        lambda route: route.fulfill(json={"findings": [
            {"severity": MARKUP, "vm": MARKUP, "title": MARKUP, "text": MARKUP, "advice": [MARKUP]}
        ]}),
    )  # fmt: skip
    page = seen.open()
    for place in ("#where", "#event-list", "#findings", "#about"):
        seen.shows(place, "<b>bold</b>")
    assert page.locator("img").count() == 0
    assert "run" not in page.title()


def test_a_page_that_arrived_in_part_is_loaded_again(town: Gateway, visit: Begin) -> None:
    seen = visit()
    missing: list[str] = []

    def fail_once(route: Route) -> None:
        if missing:
            route.continue_()
        else:
            missing.append(route.request.url)
            route.abort()

    seen.page.route("**/plot.js", fail_once)
    seen.open()
    assert len(missing) == 1
    assert len([url for url in seen.requests if url.endswith("/main.js")]) == 2
    assert len(seen.complaints) == 1
    assert "net::ERR_FAILED" in seen.complaints.pop()


HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
HURRY = """
const patiently = setTimeout;
const sooner = {60000: 50, 10000: 50};
window.setTimeout = (work, delay) => patiently(work, sooner[delay] ?? delay);
"""
"""A minute without a look, and the pause between looks at probes, are short."""


def test_a_page_that_nobody_looks_at_asks_for_nothing(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.page
    page.add_init_script(HURRY)
    page.route("**/v1/health*", lambda route: route.fulfill(body="", content_type=NDJSON))

    def asked() -> list[str]:
        page.evaluate("0")  # what the browser tells comes with an answer
        return [url for url in seen.requests if "/v1/health" in url]

    seen.open()
    eventually(lambda: len(asked()), lambda count: count > 20)
    page.evaluate(HIDE, True)
    seen.has("#connection", "data-state", "resting")
    before = len(asked())
    page.wait_for_timeout(500)  # in which it would have asked several times
    assert len(asked()) == before
    page.evaluate(HIDE, False)
    seen.shows("#connection", "Live")
    eventually(lambda: len(asked()), lambda count: count > before)
