"""Who gets what by TCP: the guard and the site, asked as a browser, a hostile page, a script would."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.web.site import PUBLISHED, Site

TOKEN = "a-token-of-some-length"
COOKIE = "snatgw-8480"


async def api(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"path": scope["path"]})(scope, receive, send)


def ask(
    target: str, token: str | None = None, method: str = "GET", **headers: str
) -> httpx.Response:
    host = headers.pop("host", "127.0.0.1:8480")
    names: dict[str, Any] = {
        name.replace("_", "-"): value.encode("latin-1") for name, value in headers.items()
    }

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(Site.load()(api, token))
        async with httpx.AsyncClient(transport=transport, base_url="http://x:8480") as client:
            return await client.request(method, target, headers={"host": host.encode(), **names})

    return asyncio.run(request())


def refusal(response: httpx.Response) -> str:
    (line,) = response.json()["problems"]
    return line


def test_the_page_and_the_published_api() -> None:
    page = ask("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in PUBLISHED:
        assert ask(path).json() == {"path": path}
    for path in (
        "/v1/capture",
        "/v1/reload",
        "/v1/",
        "/index.html",
        "/../etc/passwd",
        "/v1/flows/",
    ):
        response = ask(path)
        assert response.status_code == 404, path
        assert "nothing is served" in refusal(response)


@pytest.mark.parametrize("target", ["/", "/v1/flows", "/nothing"])
def test_every_answer_keeps_the_page_to_itself(target: str) -> None:
    for token in (None, TOKEN):
        headers = ask(target, token).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_nothing_is_changed_by_tcp(method: str, token: str | None) -> None:
    response = ask("/v1/flows", token, method, authorization=f"Bearer {TOKEN}")
    assert response.status_code == 405
    assert method in refusal(response)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8480", "localhost:8480", "LOCALHOST", "[::1]:8480", "127.0.0.9:9000"]
)
def test_this_hosts_names(host: str) -> None:
    assert ask("/v1/status", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8480", "localhost.evil.example", "203.0.113.9:8480",
             "127.0.0.1.evil.example", "", "user@evil.example", "[::1", "[::2]:8480",
             "evil.example:8480@127.0.0.1", "127.0.0.1:8480, evil.example", "localhost:999999",
             "l\xf8calhost", "127.0.0.1:"],
)  # fmt: skip
def test_a_rebound_name_is_refused(host: str) -> None:
    response = ask("/v1/status", host=host)
    assert response.status_code == 421
    assert "not this host" in refusal(response)


def test_pages_of_other_origins_are_refused() -> None:
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null", "http://localhost:8480"):
        assert ask("/v1/status", origin=origin).status_code == 403, origin
        assert (
            ask("/v1/status", TOKEN, origin=origin, authorization=f"Bearer {TOKEN}").status_code
            == 403
        )
    assert ask("/v1/status", origin="http://127.0.0.1:8480").status_code == 200
    # an image or a script on another page; a link on another page, which is fine
    assert (
        ask("/v1/flows", sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status_code == 403
    )
    assert ask("/v1/flows", sec_fetch_site="same-site", sec_fetch_mode="cors").status_code == 403
    assert ask("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status_code == 200
    assert ask("/v1/flows", sec_fetch_site="same-origin", sec_fetch_mode="cors").status_code == 200


def test_without_the_token_there_is_nothing() -> None:
    for target in ("/", "/style.css", "/v1/flows", "/metrics", "/nothing", "/?token=", "/?token=wrong",
                   f"/v1/flows?token={TOKEN}"):  # fmt: skip
        response = ask(target, TOKEN)
        assert response.status_code == 401, target
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "dashboard-token" in refusal(response)
        assert TOKEN not in response.text
    for credentials in (
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        "Bearer \xe9",
    ):
        assert ask("/v1/flows", TOKEN, authorization=credentials).status_code == 401, credentials
    for cookie in (f"other={TOKEN}", f"{COOKIE}=wrong", f"snatgw-8481={TOKEN}"):
        assert ask("/v1/flows", TOKEN, cookie=cookie).status_code == 401, cookie


def test_a_browser_without_the_token_is_asked_for_it() -> None:
    response = ask("/", TOKEN, accept="text/html,*/*;q=0.8")
    assert response.status_code == 401
    assert '<input name="token"' in response.text
    assert "a token is required" in response.text.casefold()
    response = ask("/?token=<b>wrong", TOKEN, accept="text/html")
    assert "not the right one" in response.text
    assert "<b>" not in response.text


def test_the_token_by_header_by_address_and_by_cookie() -> None:
    assert ask("/v1/flows", TOKEN, authorization=f"Bearer {TOKEN}").status_code == 200
    assert ask("/v1/flows", TOKEN, authorization=f"bearer  {TOKEN}").status_code == 200
    welcome = ask(f"/?token={TOKEN}", TOKEN)
    assert welcome.status_code == 200
    assert 'content="0; url=/"' in welcome.text
    cookie: Any = welcome.headers["set-cookie"]
    assert cookie == f"{COOKIE}={TOKEN}; HttpOnly; Path=/; SameSite=strict"
    assert ask("/", TOKEN, cookie=f"{COOKIE}={TOKEN}").status_code == 200
    # a name that leads here is a name that its owner chose, once there is a token
    named = ask("/v1/flows", TOKEN, host="gateway.lan:8480", authorization=f"Bearer {TOKEN}")
    assert named.status_code == 200
