"""The contract's JSON for what the engine reports: field names, spellings and roundings live here.

A record comes as the plain tuple that the control channel carries. Durations are seconds of Azure
time; ports are numbers, null where the profile's destinations have none.
"""

from __future__ import annotations

from typing import Any

from gateway.core.flow import FlowRecord
from gateway.core.ports import PortRecord

PROTOCOLS = {1: "Icmp", 6: "Tcp", 17: "Udp", 47: "Gre", 50: "Esp", 51: "Ah", 132: "Sctp"}
BUSIEST = 10
"""Destinations that a port record shows."""


def protocol_name(number: int) -> str:
    """``Tcp``; a protocol without a usual name is ``Protocol99``."""
    return PROTOCOLS.get(number) or f"Protocol{number}"


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
        "offloaded": False,
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
        "destinations": [
            {"remote": {"ip": ip, "port": port}, "used": used}
            for ip, port, used in record.destinations[:BUSIEST]
        ],
    }
