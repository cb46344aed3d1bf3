"""Events as the contract's JSON, made in the engine process and carried to the API process as they
are. Runs in the engine process.

``event_document`` gives a core event the shape of Azure's logs (exhaustion: docs/fidelity.md,
category LoadBalancerAlertEvent); what Azure has no event for is a GatewayEvent of ours.
"""

from __future__ import annotations

from typing import Any

from gateway.core.events import (
    Event,
    FlowsEnded,
    FlowTableFull,
    HighSnatPortUsage,
    NoHealthyBackends,
    PacketsDropped,
    PortsExhausted,
    ProbeHealthChanged,
    SnatPortsReclaimed,
)
from gateway.daemon.channel.json_views import iso
from gateway.model.profile import ExhaustionEvent
from gateway.schema.protocols import protocol_name


def document(
    wall: float,
    category: str,
    operation: str,
    level: str,
    resource: str,
    properties: dict[str, Any],
) -> dict[str, Any]:
    """An event as the contract has it. ``level``: Informational, Warning or Error."""
    return {
        "time": iso(wall),
        "category": category,
        "operationName": operation,
        "level": level,
        "resource": resource,
        "properties": properties,
    }


def gateway_event(
    wall: float, operation: str, level: str, properties: dict[str, Any]
) -> dict[str, Any]:
    """An event of this program itself."""
    return document(wall, "GatewayEvent", operation, level, "gateway", properties)


def event_document(event: Event, wall: float) -> dict[str, Any]:
    """A core event that happened at the Unix time ``wall``."""
    if isinstance(event, PortsExhausted):
        return _exhausted(event, wall)
    if isinstance(event, HighSnatPortUsage):
        return _high_usage(event, wall)
    if isinstance(event, PacketsDropped):
        resource = "gateway" if event.vm is None else f"virtualMachines/{event.vm}"
        return document(
            wall,
            "GatewayEvent",
            "PacketsDropped",
            "Informational",
            resource,
            {
                "reason": event.reason.value,
                "description": event.reason.sentence,
                "vm": event.vm,
                "protocol": None if event.protocol is None else protocol_name(event.protocol),
                "source": None if event.protocol is None else event.source,
                "destination": None if event.protocol is None else event.remote,
                "count": event.count,
                "rule": event.rule,
            },
        )
    if isinstance(event, SnatPortsReclaimed):
        return document(
            wall,
            "GatewayEvent",
            "AllotmentReclaimed",
            "Warning",
            f"virtualMachines/{event.vm}",
            {
                "vm": event.vm,
                "publicIp": event.public_ip,
                "ports": event.ports,
                "flowsBroken": event.flows,
            },
        )
    if isinstance(event, FlowsEnded):
        properties = {"flows": event.flows, "reason": event.reason}
        return gateway_event(wall, "FlowsEnded", "Warning", properties)
    if isinstance(event, ProbeHealthChanged):
        return _probe_health(event, wall)
    if isinstance(event, NoHealthyBackends):
        return _no_healthy_backends(event, wall)
    assert isinstance(event, FlowTableFull)
    return gateway_event(wall, "FlowTableFull", "Error", {"count": event.count})


def _exhausted(event: PortsExhausted, wall: float) -> dict[str, Any]:
    """Port exhaustion, as the alert or the health event that Azure would write, or as our own.

    The alert's properties are in all of them.
    """
    properties = {
        "eventName": "Resource Limits Hit",
        "eventDescription": "Ports exhausted",
        "eventProperties": {"public ip address": event.public_ip},
        "vm": event.vm,
        "protocol": event.protocol,
        "remote": {"ip": event.remote_ip, "port": event.remote_port},
        "count": event.count,
    }
    if event.shape is ExhaustionEvent.ALERT:
        operation = "LoadBalancerProbeHealthStatus"  # as Azure has it
        resource = f"publicIPAddresses/{event.public_ip}"
        return document(wall, "LoadBalancerAlertEvent", operation, "Warning", resource, properties)
    kind, level = "SnatPortExhaustion", "Error"
    if event.shape is None:
        return document(wall, "GatewayEvent", kind, level, event.owner, properties)
    description = (
        f"Backend IP {event.private_ip} has exhausted all SNAT ports allocated to it. New outbound "
        f"connections through frontend IP {event.public_ip} fail until ports are released."
    )
    health = _health(kind, "Critical", description, event.public_ip)
    return document(wall, *_health_event(kind), level, event.owner, health | properties)


def _high_usage(event: HighSnatPortUsage, wall: float) -> dict[str, Any]:
    kind, level = "HighSnatPortUsage", "Warning"
    description = (
        f"Backend IP {event.private_ip} is utilizing more than 75% of SNAT ports allocated from "
        f"frontend IP {event.public_ip}"
    )
    properties = _health(kind, level, description, event.public_ip) | {
        "vm": event.vm,
        "protocol": event.protocol,
        "used": event.used,
        "allocated": event.allocated,
    }
    return document(wall, *_health_event(kind), level, event.owner, properties)


def _health_event(kind: str) -> tuple[str, str]:
    """Category and operation of a Standard load balancer's event ("Health event logs")."""
    return "LoadBalancerHealthEvent", f"Microsoft.Network/loadBalancers/healthEvents/{kind}"


def _health(kind: str, severity: str, description: str, public_ip: str) -> dict[str, Any]:
    """The properties that each of these has."""
    return {
        "HealthEventType": kind,
        "Severity": severity,
        "Description": description,
        "Frontend Ip": public_ip,
    }


def _probe_health(event: ProbeHealthChanged, wall: float) -> dict[str, Any]:
    """Azure's probe event ("Azure Monitor logs for public Basic Load Balancer"), and which VM."""
    return document(
        wall,
        "LoadBalancerProbeHealthStatus",
        "LoadBalancerProbeHealthStatus",
        "Informational" if event.up else "Warning",
        f"loadBalancers/{event.balancer}",
        {
            "publicIpAddress": event.public_ip,
            "port": str(event.port),
            "totalDipCount": event.total,
            "dipDownCount": event.down,
            "healthPercentage": round(100 * (event.total - event.down) / event.total, 6),
            "rule": event.rule,
            "probe": event.probe,
            "vm": event.vm,
            "status": "Up" if event.up else "Down",
        },
    )


def _no_healthy_backends(event: NoHealthyBackends, wall: float) -> dict[str, Any]:
    kind = "NoHealthyBackends"
    description = (
        f"the frontend IP {event.public_ip} is completely unreachable because all backend "
        "instances configured to the following protocol:port "
        f"{event.protocol}:{event.port} are unhealthy"
    )
    properties = _health(kind, "Critical", description, event.public_ip) | {"rule": event.rule}
    resource = f"loadBalancers/{event.balancer}"
    return document(wall, *_health_event(kind), "Error", resource, properties)
