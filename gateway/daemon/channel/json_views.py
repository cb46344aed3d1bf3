"""The contract's JSON for what the engine reports: field names, spellings and roundings live here.
Runs in the engine process and the API process.

A record comes as the plain tuple that the control channel carries. Durations are seconds of Azure
time; ports are numbers, null where the profile's destinations have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from gateway.daemon.channel.probe_messages import Result
from gateway.schema.protocols import protocol_name
from gateway.schema.records import FlowRecord, HealthRecord, PortRecord, SecurityRuleRecord

BUSIEST = 10
"""Destinations that a port record shows."""


def iso(wall: float) -> str:
    """A Unix time as ISO 8601 UTC, to the millisecond."""
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flow_document(record: FlowRecord) -> dict[str, Any]:
    """One line of ``flows``."""
    return {
        "id": record.id,
        "protocol": protocol_name(record.protocol),
        "state": record.state,
        "direction": record.direction,
        "method": record.method,
        "vm": record.vm,
        "private": {"ip": record.private_ip, "port": record.private_port},
        "public": (
            None
            if record.public_ip is None
            else {"ip": record.public_ip, "port": record.public_port}
        ),
        "remote": {"ip": record.remote_ip, "port": record.remote_port},
        "packetsOut": record.packets_out,
        "bytesOut": record.bytes_out,
        "packetsIn": record.packets_in,
        "bytesIn": record.bytes_in,
        "ageSeconds": round(record.age, 3),
        "idleSeconds": round(record.idle, 3),
        "expiresInSeconds": round(record.expires_in, 3),
        "offloaded": record.offloaded,
        "awaitingRemoval": record.awaiting_removal,
    }


def port_document(record: PortRecord) -> dict[str, Any]:
    """One line of ``ports``."""
    return {
        "vm": record.vm,
        "publicIp": record.public_ip,
        "protocol": record.protocol,
        "method": record.method,
        "allocated": record.allocated,
        "used": record.used,
        "free": record.free,
        "highWater": record.high_water,
        "failed": record.failed,
        "coolDown": record.cooling,
        "ranges": [f"{first}-{last}" for first, last in record.ranges],
        "reserved": [f"{first}-{last}" for first, last in record.reserved],
        "destinations": [
            {"remote": {"ip": ip, "port": port}, "used": used}
            for ip, port, used in record.destinations[:BUSIEST]
        ],
    }


def health_document(
    record: HealthRecord, latest: tuple[Result, float, float] | None
) -> dict[str, Any]:
    """One line of ``health``; ``latest``: the last probe's result, when it came, and since when
    the health is what it is (Unix times)."""
    status = "NotProbed"
    if record.probe is not None:
        status = {True: "Up", False: "Down", None: "Unknown"}[record.up]
    result, came, since = latest or (None, 0.0, 0.0)
    return {
        "loadBalancer": record.balancer,
        "rule": record.rule,
        "method": record.method,
        "protocol": protocol_name(record.protocol),
        "frontend": {"ip": record.public_ip, "port": record.frontend_port},
        "vm": record.vm,
        "backend": {"ip": record.private_ip, "port": record.backend_port},
        "probe": record.probe,
        "status": status,
        "takesNewFlows": record.takes_flows,
        "since": None if result is None or record.up is None else iso(since),
        "lastProbe": None
        if result is None
        else {
            "time": iso(came),
            "success": result.success,
            "reason": result.reason,
            "milliseconds": result.milliseconds,
            "inARow": abs(result.in_a_row),
        },
        "deniedBy": record.denied_by,
    }


def health_documents(part: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The lines of ``health`` that a part of the engine's answer has."""
    for fields, latest in part:
        result = None
        if latest is not None:
            result = (Result._make(latest[0]), latest[1], latest[2])
        yield health_document(HealthRecord._make(fields), result)


def security_rule_document(
    record: SecurityRuleRecord, level: str | None, *, expand: bool
) -> dict[str, Any]:
    """One line of ``nsg``: Azure's effective security rule, and what we know besides.

    Source: "List effective network security groups" (REST; az network nic list-effective-nsg).
    """
    protocol = "All" if record.protocol == "*" else record.protocol
    document: dict[str, Any] = {
        "networkSecurityGroup": record.group,
        "level": level,
        "associations": [{"level": place, "name": name} for place, name in record.associations],
        "name": security_rule_name(record),
        "priority": record.priority,
        "direction": record.direction,
        "access": record.access,
        "protocol": protocol,
        **_forms("sourceAddressPrefix", "es", record.sources, "0.0.0.0/0"),
        **_forms("sourcePortRange", "s", record.source_ports, "0-65535"),
        **_forms("destinationAddressPrefix", "es", record.destinations, "0.0.0.0/0"),
        **_forms("destinationPortRange", "s", record.destination_ports, "0-65535"),
    }
    if expand:
        document["expandedSourceAddressPrefix"] = record.expanded_sources
        document["expandedDestinationAddressPrefix"] = record.expanded_destinations
    document["hits"] = record.hits
    return document


def security_rule_name(record: SecurityRuleRecord) -> str:
    """``securityRules/no-smtp``, as Azure's effective rules are named."""
    prefix = "defaultSecurityRules" if record.default else "securityRules"
    return f"{prefix}/{record.name}"


def _forms(name: str, plural: str, values: tuple[str, ...], every: str) -> dict[str, Any]:
    """The single form (null where there are several values) and the plural one."""
    written = [every if value == "*" else value for value in values]
    return {name: written[0] if len(written) == 1 else None, f"{name}{plural}": written}
