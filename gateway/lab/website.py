"""The web server of the lab's load balanced VMs: ``python -m gateway.lab.website NAME``.

`/` says which VM answers and whom it sees; `/health` is what the load balancer's probe asks for.
`/sick` makes `/health` answer 503 from then on, `/well` 200 again: so a backend goes down and comes
back without being stopped. Listens on two ports, one for a load balancing rule and one for an
inbound NAT rule. Runs in the foreground until it is killed.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

PORT, OTHER_PORT = 80, 8080


def website(name: str) -> Starlette:
    """The server of the VM of this name."""
    state = {"status": 200}

    def page(request: Request) -> PlainTextResponse:
        assert request.client is not None
        return PlainTextResponse(f"{name} sees {request.client.host}:{request.client.port}\n")

    def health(_request: Request) -> PlainTextResponse:
        return PlainTextResponse(_told(name, state["status"]), state["status"])

    def become(status: int) -> Route:
        def change(_request: Request) -> PlainTextResponse:
            state["status"] = status
            return PlainTextResponse(_told(name, status))

        return Route("/well" if status == 200 else "/sick", change)

    return Starlette(routes=[Route("/", page), Route("/health", health), become(200), become(503)])


def _told(name: str, status: int) -> str:
    return f"{name} is {'well' if status == 200 else 'sick'}\n"


def main() -> int:
    """Serve as the VM that the command line names."""
    if len(sys.argv) != 2:
        print("usage: python -m gateway.lab.website NAME", file=sys.stderr)
        return 2
    sockets = [socket.create_server(("0.0.0.0", port), backlog=1024) for port in (PORT, OTHER_PORT)]
    configuration = uvicorn.Config(website(sys.argv[1]), access_log=False)
    uvicorn.Server(configuration).run(sockets=sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
