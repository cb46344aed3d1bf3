"""Flows without an engine: for tests of what keeps, counts and rewrites them."""

from __future__ import annotations

from gateway.core.flows.flow import Flow
from gateway.core.snat.allocations import Vm
from gateway.core.snat.plan import VmPlan
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP

PRIVATE, PUBLIC, REMOTE = bytes((10, 0, 1, 4)), bytes((203, 0, 113, 10)), bytes((198, 51, 100, 1))
DEFAULT = Method.DEFAULT_OUTBOUND_ACCESS


def vm(name: str = "vm1", address: bytes = PRIVATE, method: Method | None = DEFAULT) -> Vm:
    """A VM of the configuration that has not sent anything yet."""
    return Vm(VmPlan(name, address, method, method, None, 240.0), named=True)


def flow(
    port: int = 40000,
    public_port: int = 1024,
    *,
    protocol: int = TCP,
    method: Method = DEFAULT,
    public: bytes = PUBLIC,
    remote: bytes = REMOTE,
    remote_port: int = 443,
) -> Flow:
    """A flow of vm1 to a remote that is in no table yet."""
    far = remote_port.to_bytes(2, "big")
    original = PRIVATE + remote + port.to_bytes(2, "big") + far
    reply = remote + public + far + public_port.to_bytes(2, "big")
    if protocol not in (TCP, UDP):
        original, reply = original + bytes([protocol]), reply + bytes([protocol])
    return Flow(protocol, original, reply, vm(), public, method, None, 240.0, 0.0)
