"""Samples of ``/v1/live`` for an event loop, and past events; no screen, no table.

A stream ends with a reason in a sentence (``LostError``: worth trying again; ``RefusedError``: not
with this query). Leaving the iteration closes the connection, so that the daemon stops working.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx

from gateway.cli.api_client import CONNECT_SECONDS, problems_in, reason

Sample = dict[str, Any]


class LostError(Exception):
    """There is no daemon, or no longer."""


class RefusedError(Exception):
    """The daemon rejects the query."""


class Source:
    """The daemon behind the socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def samples(self, query: Mapping[str, str]) -> AsyncGenerator[Sample]:
        """Without end; raises LostError and RefusedError."""
        async with self._client() as client:
            try:
                async with client.stream("GET", "/v1/live", params=dict(query)) as response:
                    if response.status_code != 200:
                        raise _refusal(response.status_code, await response.aread())
                    async for line in response.aiter_lines():
                        yield json.loads(line)
            except httpx.TransportError as error:
                raise LostError(reason(self._path, _cause(error))) from error
        raise LostError(f"the daemon on {self._path} ended")

    async def events(self, limit: int) -> list[dict[str, Any]]:
        """The latest events, oldest first; none without a daemon."""
        async with self._client() as client:
            try:
                response = await client.get("/v1/events", params={"limit": limit}, timeout=10.0)
            except httpx.TransportError:
                return []
        return [json.loads(line) for line in response.text.splitlines()] if response else []

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self._path),
            base_url="http://snatgw",
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )


def _refusal(status: int, body: bytes) -> Exception:
    problems = "; ".join(problems_in(status, body))
    return RefusedError(problems) if status < 500 else LostError(problems)


def _cause(error: httpx.TransportError) -> OSError:
    """The operating system's own error, which says most."""
    if isinstance(error, httpx.TimeoutException):
        return TimeoutError()
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or ConnectionResetError()
