"""Goes on with flows of a killed gateway, as a restart does: run in the gateway's namespace."""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.flow import Flow
from gateway.daemon.engine_process.fast_path_offload import FastPathOffload
from gateway.datapath.fastpath import FastPath
from gateway.model.profile import Method
from gateway.schema.protocols import TCP


def flow_of(listed: dict[str, Any]) -> Flow:
    """A flow as it was listed; the first ones have their slots in the order of their ids."""

    def end(name: str) -> tuple[bytes, bytes]:
        side = listed[name]
        return IPv4Address(side["ip"]).packed, int(side["port"]).to_bytes(2, "big")

    (private, private_port), (public, public_port) = end("private"), end("public")
    remote, remote_port = end("remote")
    flow = Flow(
        TCP,
        private + remote + private_port + remote_port,
        remote + public + remote_port + public_port,
        cast(Any, SimpleNamespace(address=private)),
        public,
        Method(listed["method"]),
        None,
        240.0,
        0.0,
    )
    flow.id, flow.slot = listed["id"], listed["id"] - 1
    return flow


def main() -> None:
    """Arguments: for how many flows; the listing, of which all but the last are adopted."""
    path = FastPath(["lan0"], "wan0", int(sys.argv[1]))
    offloading = FastPathOffload(path, lambda real: real, 1.0)
    flows = [flow_of(listed) for listed in json.loads(sys.argv[2])]
    told: list[list[int]] = []

    def on_offloaded_segment(slot: int, flow: int, side: object, flags: int, now: float) -> None:
        told.append([slot, flow, flags])

    stranger = flow_of(json.loads(sys.argv[2])[0])
    stranger.id += 1
    refused = [offloading.adopt(stranger, (0, 0, 0, 0))]
    adopted = [offloading.adopt(flow, (0, 0, 0, 0)) for flow in flows[:-1]]
    counted = []
    for flow in flows[:-1]:
        carried = offloading.carried(flow)
        counted.append([0, 0, 0, 0] if carried is None else [*carried[:4]])
    recorder = cast(FlowLifecycle, SimpleNamespace(on_offloaded_segment=on_offloaded_segment))
    removed = offloading.settle(recorder)
    print(json.dumps([refused, adopted, counted, removed, told]))


if __name__ == "__main__":
    main()
