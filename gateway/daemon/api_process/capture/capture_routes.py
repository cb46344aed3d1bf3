"""``/v1/capture``: what crosses the gateway, as a stream of pcapng, and a way to end it well.
Runs in the API process.

Packets are more than figures: these routes belong on the daemon's Unix socket, whose permissions
say who may read them, and on nothing that is open to more.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.daemon.api_process.capture.streams import CaptureStream, CaptureStreams
from gateway.daemon.api_process.engine_client import Answer
from gateway.schema.queries import suggestion

MEDIA_TYPE = "application/x-pcapng"
NUMBER_HEADER = "Capture"
"""The header that names the capture, to end it by."""


class _Stream(StreamingResponse):
    """A capture for as long as its reader reads."""

    def __init__(self, capture: CaptureStream) -> None:
        headers = {NUMBER_HEADER: str(capture.number), "Cache-Control": "no-store"}
        super().__init__(capture.pieces(), headers=headers, media_type=MEDIA_TYPE)
        self._capture = capture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._capture.abandon()


def capture_routes(streams: CaptureStreams) -> list[Route]:
    """The routes over the API process's captures."""

    async def begin(request: Request) -> Response:
        values = dict(request.query_params)
        opened = await streams.open(values)
        if isinstance(opened, Answer):
            names = [name for part in opened.records() for name in part]
            vm = values["vm"]
            line = f"vm: there is no virtual machine {vm!r}{suggestion(vm, names)}"
            return JSONResponse({"problems": [line]}, 404)
        return _Stream(opened)

    async def end(request: Request) -> Response:
        number: int = request.path_params["number"]
        if not await streams.close(number):
            return JSONResponse({"problems": [f"capture: {number} is not running"]}, 404)
        return JSONResponse({"capture": number})

    return [
        Route("/v1/capture", begin),
        Route("/v1/capture/{number:int}", end, methods=["DELETE"]),
    ]
