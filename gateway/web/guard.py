"""Who may read over TCP: clients with the token or, on a loopback address, this host's own pages.

Any local user and any page in a local browser can send requests to a loopback address. A hostile
page is kept out by three things: requests only read; a request that says that it comes from another
origin is rejected; and on a loopback listener so is one for a host name that is not this host's,
which is what DNS rebinding gives (the page's own name, made to lead here). Elsewhere the token does
that: a browser sends its cookie for this very host name only.

The token comes as ``Authorization: Bearer``, or once as ``?token=`` on the page's own address,
which answers with a cookie and leads to the address without it.
"""

from __future__ import annotations

import hmac
import html
import re
from ipaddress import ip_address

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(
    r"(?:(?P<plain>[A-Za-z0-9.-]+)|\[(?P<bracketed>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?"
)
"""A Host header, RFC 9110 section 7.2, of a name or an address that this host could have."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
METHODS = ("GET", "HEAD")
HOME = "/"


class Guard:
    """An ASGI application that hands on what may pass."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """``token`` None: the listener is on a loopback address, and none is asked for."""
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject, or pass on; either way with the headers that keep the page to itself."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        answer = self._refusal(request) or self._unknown(request) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What no token helps."""
        if request.method not in METHODS:
            line = f"{request.method}: requests over TCP only read; allowed: {', '.join(METHODS)}"
            return _problem(405, f"{line}. What changes something is for the API's Unix socket")
        host = request.headers.get("host", "")
        if self._token is None and not _is_this_host(host):
            return _problem(
                421, f"Host {host!r}: not this host; use its loopback address, or localhost"
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _problem(403, f"Origin {origin!r}: another site's pages may not read this")
        # browsers say where a request comes from; following a link is no way to read the answer
        site, mode = (request.headers.get(f"sec-fetch-{name}") for name in ("site", "mode"))
        if site in ("cross-site", "same-site") and mode != "navigate":
            return _problem(403, "another site's pages may not read this")
        return None

    def _unknown(self, request: Request) -> Response | None:
        """The answer to a client without a token; None: it has one, or needs none."""
        if self._token is None:
            return None
        given = request.query_params.get("token") if request.url.path == HOME else None
        if given is not None and self._is_token(given):
            return _welcome(_cookie_name(request), self._token)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.casefold() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(request.cookies.get(_cookie_name(request), "")):
            return None
        return _unauthorized(request, wrong=given is not None)

    def _is_token(self, text: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(text.encode(), self._token.encode())


def _is_this_host(host: str) -> bool:
    """Whether a Host header names a loopback address; any port: a tunnel's is another."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["plain"] or found["bracketed"]
    try:
        return name.lower() == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _cookie_name(request: Request) -> str:
    """By port: cookies do not distinguish the ports of a host."""
    return f"snatgw-{(request.scope.get('server') or ('', 0))[1]}"


def _welcome(cookie: str, token: str) -> Response:
    """Leads to the page. Not by a redirect: after a link on another site, the browser would
    follow it without a SameSite cookie."""
    page = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>snatgw</title>'
    response = HTMLResponse(f'{page}<a href="/">To the dashboard</a>')
    response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/")
    return response


def _unauthorized(request: Request, *, wrong: bool) -> Response:
    line = "this token is not the right one" if wrong else "a token is required"
    where = "it is in <stateDirectory>/dashboard-token, and the daemon prints it at its start"
    headers = {"WWW-Authenticate": 'Bearer realm="snatgw"', "Connection": "close"}
    if "text/html" not in request.headers.get("accept", ""):
        problem = f"{line}: Authorization: Bearer TOKEN, or /?token=TOKEN; {where}"
        return JSONResponse({"problems": [problem]}, 401, headers)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>snatgw</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<h1>snatgw</h1><p>{line.capitalize()}: {html.escape(where)}.</p>"
        '<form method="get" action="/"><label>Token <input name="token" type="password" '
        'autocomplete="off" autofocus required></label> <button>Open</button></form></html>'
    )
    return HTMLResponse(page, 401, headers)


def _problem(status: int, line: str) -> Response:
    return JSONResponse({"problems": [line]}, status, {"Connection": "close"})
