"""Who gets at the dashboard, in a real browser: with a token, without, and from hostile pages."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Browser, Playwright

from tests.netns.gateway import Gateway
from tests.netns.topology import OUTSIDE, Topology, eventually
from tests.web.browser import Visit, chromium
from tests.web.conftest import HTTP, URL

Begin = Callable[..., Visit]


def curl(net: Topology, namespace: str, url: str, *arguments: str) -> tuple[int, str]:
    """HTTP status and body."""
    output = net.run(namespace, "curl", "-s", "-m", "30", "-w", "\n%{http_code}", *arguments, url)
    body, _, status = output.rpartition("\n")
    return int(status), body


def test_other_addresses_take_a_token(playwright: Playwright, fresh: Topology) -> None:
    gateway = Gateway(fresh, http="0.0.0.0:8480")
    gateway.start()
    file = gateway.state / "dashboard-token"
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o640
    assert f"dashboard: http://127.0.0.1:8480/?token={token}\n" in gateway.errors.read_text()
    url = f"http://{OUTSIDE}:8480"
    for path in ("/", "/v1/flows", "/metrics", "/main.js"):
        assert curl(fresh, "internet", url + path)[0] == 401
        assert curl(fresh, "gw", f"http://127.0.0.1:8480{path}")[0] == 401
    bearer = ("-H", f"Authorization: Bearer {token}")
    assert curl(fresh, "internet", f"{url}/v1/status", *bearer)[0] == 200
    assert curl(fresh, "internet", f"{url}/v1/reload", *bearer, "-X", "POST")[0] == 405
    assert curl(fresh, "internet", f"{url}/v1/capture", *bearer)[0] == 404

    with chromium(playwright, fresh, "internet") as browser:
        visit = Visit(browser, f"{url}/")
        page = visit.page
        assert page.goto(visit.url).status == 401  # type: ignore[union-attr]
        visit.shows("body", "token is required")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button").click()
        visit.shows("body", "not the right one")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button").click()
        visit.shows("#connection", "Live")
        assert page.url == f"{url}/"
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        assert page.evaluate("document.cookie") == ""
        page.reload()
        visit.shows("#connection", "Live")
        visit.close()

        linked = Visit(browser, f"{url}/")
        linked.page.route(
            "http://chat.example/*",
            lambda route: route.fulfill(
                body=f"<a href='{url}/?token={token}'>look</a>", content_type="text/html"
            ),
        )
        linked.page.goto("http://chat.example/")
        linked.page.get_by_text("look").click()
        linked.shows("#connection", "Live")
        assert linked.page.url == f"{url}/"
        linked.close()

    # the same token after a restart
    assert gateway.stop() == 0
    gateway.start()
    assert curl(fresh, "internet", f"{url}/v1/status", *bearer)[0] == 200


def test_a_rebound_name_gets_nothing(playwright: Playwright, town: Gateway) -> None:
    for host in ("evil.example", "evil.example:8480", "127.0.0.1.evil.example:8480"):
        status, body = curl(town.net, "gw", f"{URL}v1/status", "-H", f"Host: {host}")
        assert status == 421, host
        assert "not this host" in body
    for target, wanted in ((f"{URL}v1/status", 200), ("http://evil.example:8480/v1/status", 421)):
        assert curl(town.net, "gw", f"{URL}v1/status", "--request-target", target)[0] == wanted
    assert curl(town.net, "gw", f"{URL}v1/status")[0] == 200
    assert curl(town.net, "gw", f"{URL}metrics")[0] == 200
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    with chromium(playwright, town.net, "gw", rule) as browser:
        visit = Visit(browser, "http://evil.example:8480/")
        response = visit.page.goto(visit.url)
        assert response is not None
        assert response.status == 421
        assert visit.page.locator(".pool").count() == 0
        visit.close()


HOSTILE = f"""<!doctype html><title>hostile</title><iframe src="{URL}"></iframe><img src="{URL}v1/flows">
<script>
  window.seen = [];
  const note = (name) => (value) => window.seen.push(`${{name}} ${{value}}`);
  fetch("{URL}v1/status").then(note("read"), () => note("fetch")("failed"));
  fetch("{URL}v1/status", {{mode: "no-cors"}}).then(r => r.text()).then(note("opaque"), () => note("blind")("failed"));
  fetch("{URL}v1/reload", {{method: "POST", mode: "no-cors"}}).then(() => note("post")("sent"), () => note("post")("failed"));
  new EventSource("{URL}v1/live?format=sse").addEventListener("error", () => note("stream")("failed"));
</script>"""


def test_a_hostile_page_reads_and_changes_nothing(town: Gateway, browser: Browser) -> None:
    visit = Visit(browser, "http://evil.example/")
    answers: dict[str, int] = {}
    visit.page.on("response", lambda response: answers.update({response.url: response.status}))
    visit.page.route(
        "http://evil.example/*", lambda route: route.fulfill(body=HOSTILE, content_type="text/html")
    )
    visit.page.goto(visit.url)
    seen = eventually(lambda: visit.page.evaluate("window.seen"), lambda seen: len(seen) >= 4)
    assert "fetch failed" in seen
    assert "stream failed" in seen
    assert not any(line.startswith("read") for line in seen)
    assert all(
        status in (403, 405) for url, status in answers.items() if url.startswith(f"{URL}v1/")
    ), answers
    frame = visit.page.frames[1]
    assert frame.locator(".pool").count() == 0
    assert not any(e["operationName"].startswith("Reload") for e in town.events())
    visit.close()


def test_the_page_stays_on_its_own_host(visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    responses: list[dict[str, str]] = []
    page.on("response", lambda response: responses.append(response.headers))
    page.reload()
    seen.shows("#connection", "Live")
    assert len(responses) > 10
    for headers in responses:
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
    # the policy is at work: neither scripts in the page nor requests elsewhere
    assert (
        page.evaluate("fetch('http://198.51.100.1:37/').then(() => 'sent', () => 'refused')")
        == "refused"
    )
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.inline = true";
      document.body.append(script);
    }""")
    assert page.evaluate("window.inline") is None
    assert len(seen.complaints) >= 2
    assert all(re.search("Content Security Policy|violates", line) for line in seen.complaints)
    seen.complaints.clear()
    seen.requests[:] = [url for url in seen.requests if "198.51.100.1" not in url]


def test_http_is_what_was_configured(town: Gateway) -> None:
    listening = town.net.run("gw", "ss", "-Hltn")
    assert [line.split()[3] for line in listening.splitlines()] == [HTTP]


def test_a_dashboard_without_a_file(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    place = ("--inside", "lan0", "--outside", "wan0", "--public-ip", "203.0.113.40")
    gateway.start(*place, "--state-directory", str(gateway.state), "--http", HTTP)
    status, body = curl(fresh, "gw", URL)
    assert status == 200
    assert "<h1>snatgw</h1>" in body
    assert f"dashboard: {URL}\n" in gateway.errors.read_text()
    assert gateway.status()["http"] == HTTP
    (wrong,) = Gateway(fresh).refused(*place, "--http", "8480")
    assert "gateway.http = 8480: has no address; did you mean 127.0.0.1:8480?" in wrong
