"""Which stages a packet passed, and what each said: ``explain --trace``, ``capture --trace``.

A context that notes its stages takes the place of the plain one; stages and paths know nothing of
it, and where no trace is asked for nothing is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import NamedTuple

from gateway.core.flows.flow import Flow
from gateway.core.packet.view import PORTED, PacketView
from gateway.core.stages import PacketContext, Path, Verdict
from gateway.model.profile import Method
from gateway.schema.drop_reasons import DropReason

ESTABLISHED = "established"
"""In the place of stages: a data packet of a live flow meets none (``established.py``)."""


class Step(NamedTuple):
    """A stage, whether it decided, and what it found."""

    stage: str
    result: str
    """Continue, Forward or Drop."""
    detail: str


class TracedContext(PacketContext):
    """Keeps what each stage said."""

    __slots__ = ("steps",)

    steps: list[Step]

    def walk(self, path: Path) -> Verdict:
        """As every context does, with notes."""
        for stage in path:
            name = stage.__name__
            place = len(self.steps)
            self.steps.append(Step(name, "Continue", ""))
            verdict = stage(self)
            self.steps[place] = _step(name, self, verdict)
            if verdict is not None:
                return self.walk(verdict) if isinstance(verdict, tuple) else verdict
        raise AssertionError(f"no stage decided: {path}")


def noting(passed: list[str]) -> type[PacketContext]:
    """A context that adds the names of the stages which its packet passes."""

    class Noting(PacketContext):
        __slots__ = ()

        def walk(self, path: Path) -> Verdict:
            for stage in path:
                passed.append(stage.__name__)
                verdict = stage(self)
                if verdict is not None:
                    return self.walk(verdict) if isinstance(verdict, tuple) else verdict
            raise AssertionError(f"no stage decided: {path}")

    return Noting


def _step(name: str, packet: PacketContext, verdict: Verdict | Path | None) -> Step:
    if isinstance(verdict, DropReason):
        return Step(name, "Drop", verdict.value)
    if isinstance(verdict, tuple):
        return Step(name, "Continue", f"goes on with {verdict[0].__name__}")
    if isinstance(verdict, bytes):
        changed = "unchanged" if verdict == packet.packet else _endpoints(verdict)
        return Step(name, "Forward", changed)
    say = _SAYS.get(name)
    return Step(name, "Continue", "" if say is None else say(packet))


def _found(packet: PacketContext) -> str:
    return "no flow" if packet.flow is None else f"{_name(packet.flow)}, {packet.flow.state_name}"


def _superseded(packet: PacketContext) -> str:
    flow = packet.superseded
    return "" if flow is None else f"a new connection: {_name(flow)} makes way"


def _admitted(packet: PacketContext) -> str:
    if packet.flow is not None:
        return "not asked: it belongs to a flow"
    said = [f"{match.rule.name} of {match.group} allows it" for match in packet.rule_matches]
    if packet.listener is not None:
        said.append(f"{packet.listener.rule} of {packet.listener.balancer}")
    return ", ".join([packet.vm.name, *said])


def _opened(packet: PacketContext) -> str:
    flow = packet.flow
    if flow is None or flow.slot >= 0:
        return "not needed: it belongs to a flow"
    if flow.method is Method.VIRTUAL_NETWORK:
        return flow.method.value
    port = f":{flow.snat_port}" if flow.protocol in PORTED else ""
    return f"{flow.method.value}, {IPv4Address(flow.public)}{port}"


def _turned_back(packet: PacketContext) -> str:
    return f"comes in again: {_endpoints(packet.packet)}"


_SAYS: dict[str, Callable[[PacketContext], str]] = {
    "find_by_original": _found,
    "find_by_reply": _found,
    "find_either": _found,
    "supersede_reused_tuple": _superseded,
    "admit_outbound": _admitted,
    "admit_inbound": _admitted,
    "admit_lateral": _admitted,
    "admit_probe": _admitted,
    "open_outbound_flow": _opened,
    "open_inbound_flow": _opened,
    "open_lateral_flow": _opened,
    "first_half_out": _turned_back,
}


def _name(flow: Flow) -> str:
    return f"flow {flow.id}"


def _endpoints(packet: bytes) -> str:
    view = PacketView.parse(packet)
    if view is None:
        return ""
    ends = str(IPv4Address(view.source)), str(IPv4Address(view.destination))
    if view.protocol not in PORTED:
        return " > ".join(ends)
    ports = view.ports[0:2], view.ports[2:4]
    return " > ".join(
        f"{end}:{int.from_bytes(port, 'big')}" for end, port in zip(ends, ports, strict=True)
    )
