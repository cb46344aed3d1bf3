"""What the TCP listener serves: the page, and the part of the API that only reads.

A path of the API is served here if it is named below, so that what is added to the API (captures,
faults, changes) stays on the Unix socket unless this is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.guard import HOME, Guard

PUBLISHED = frozenset(
    {
        "/metrics",
        "/v1/diagnose",
        "/v1/events",
        "/v1/explain",
        "/v1/flows",
        "/v1/health",
        "/v1/history",
        "/v1/live",
        "/v1/nsg",
        "/v1/ports",
        "/v1/status",
    }
)
"""Of the API, what clients that the guard admits may read."""
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Site:
    """The page's files by path, read before the process that serves them may no longer do so."""

    pages: Mapping[str, tuple[str, bytes]]

    @classmethod
    def load(cls) -> Site:
        """Read the page."""
        pages = {}
        for file in files("gateway.web").joinpath("page").iterdir():
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is not None:
                path = HOME if file.name == "index.html" else f"/{file.name}"
                pages[path] = kind, file.read_bytes()
        return cls(pages)

    def __call__(self, api: ASGIApp, token: str | None) -> ASGIApp:
        """The application that answers by TCP. ``token`` None: none is asked for."""

        async def site(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"]
            page = self.pages.get(path)
            answer: ASGIApp
            if page is not None:
                answer = Response(page[1], media_type=page[0])
            elif path in PUBLISHED:
                answer = api
            else:
                line = f"{path}: nothing is served by TCP there; see docs/dashboard.md"
                answer = JSONResponse({"problems": [line]}, 404)
            await answer(scope, receive, send)

        return Guard(site, token)
