"""Flow log entries in Azure's shapes: NSG flow log version 2, VNet flow log version 4.
Runs in the API process.

Pure: entries and times in, JSON-ready records out. Sources: the overviews of NSG and VNet flow logs
(docs/flow-logs.md lists what they leave open). Identifiers that only Azure could give, GUIDs, MAC
addresses and resource IDs, are made from names and private addresses: the same in each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID, uuid5

from gateway.core.observe.flow_log import BEGIN, DENY, FlowLogEntry
from gateway.schema.protocols import TCP, UDP

Timed = tuple[float, FlowLogEntry]
"""An entry and the Unix time at which it happened."""

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
NAMESPACE = UUID("6f0e4a2c-52a5-5d5e-9a0b-0c7b5d1f6a11")
"""Of the GUIDs made here (version 5, RFC 9562)."""
UNSPECIFIED = "unspecified"
"""As Azure writes where no access control list decided."""

_LETTERS = {TCP: "T", UDP: "U"}
_RESOURCES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups"
_TARGET = f"{_RESOURCES}/snatgw/providers/Microsoft.Network/virtualNetworks/snatgw"
_FLOW_LOG = (
    f"{_RESOURCES}/NetworkWatcherRG/providers/Microsoft.Network/networkWatchers/"
    "NetworkWatcher_snatgw/flowLogs/snatgw"
).upper()


def guid(name: str) -> str:
    """A GUID for a resource: ``networkSecurityGroups/NAME`` or ``flowLogs/snatgw``."""
    return str(uuid5(NAMESPACE, name))


def mac(address: bytes) -> str:
    """The MAC address by which logs know the interface of a private address (4 bytes).

    Locally administered: 02-00, then the address. The engine sees no Ethernet headers.
    """
    return f"0200{address.hex().upper()}"


def nsg_tuple(wall: float, entry: FlowLogEntry) -> str:
    """A tuple of the NSG flow log; the protocol is TCP or UDP."""
    if entry.state == DENY:
        decision = "D,B,,,,"
    elif entry.state == BEGIN:
        decision = "A,B,,,,"
    else:
        decision = f"A,{entry.state},{_statistics(entry)}"
    letter, way = _LETTERS[entry.protocol], "I" if entry.inbound else "O"
    return f"{int(wall)},{_ends(entry)},{letter},{way},{decision}"


def vnet_tuple(wall: float, entry: FlowLogEntry) -> str:
    """A tuple of the VNet flow log."""
    way = "I" if entry.inbound else "O"
    return (
        f"{int(wall * 1000)},{_ends(entry)},{entry.protocol},{way},{entry.state},NX,"
        f"{_statistics(entry)}"
    )


def _ends(entry: FlowLogEntry) -> str:
    return (
        f"{IPv4Address(entry.source)},{IPv4Address(entry.destination)},"
        f"{entry.source_port},{entry.destination_port}"
    )


def _statistics(entry: FlowLogEntry) -> str:
    return (
        f"{entry.packets_sent},{entry.bytes_sent},{entry.packets_received},{entry.bytes_received}"
    )


def _interface(entry: FlowLogEntry) -> str:
    return mac(entry.destination if entry.inbound else entry.source)


def nsg_records(entries: Iterable[Timed], now: float) -> list[dict[str, Any]]:
    """A record for each group, in the order in which they come; TCP and UDP only, as in Azure."""
    groups: dict[str, dict[str, dict[str, list[str]]]] = {}
    for wall, entry in entries:
        if entry.group is None or entry.rule is None or entry.protocol not in _LETTERS:
            continue
        rule = ("DefaultRule_" if entry.default else "UserRule_") + entry.rule
        interfaces = groups.setdefault(entry.group, {}).setdefault(rule, {})
        interfaces.setdefault(_interface(entry), []).append(nsg_tuple(wall, entry))
    return [
        {
            "time": _time(now),
            "systemId": guid(f"networkSecurityGroups/{group}"),
            "category": "NetworkSecurityGroupFlowEvent",
            "resourceId": _group_id(group),
            "operationName": "NetworkSecurityGroupFlowEvents",
            "properties": {
                "Version": 2,
                "flows": [
                    {
                        "rule": rule,
                        "flows": [
                            {"mac": interface, "flowTuples": tuples}
                            for interface, tuples in interfaces.items()
                        ],
                    }
                    for rule, interfaces in rules.items()
                ],
            },
        }
        for group, rules in groups.items()
    ]


def vnet_records(entries: Sequence[Timed], now: float) -> list[dict[str, Any]]:
    """A record for each interface, in the order in which they come."""
    interfaces: dict[str, dict[str, dict[str, list[str]]]] = {}
    for wall, entry in entries:
        acl = UNSPECIFIED if entry.group is None else guid(f"networkSecurityGroups/{entry.group}")
        rule = UNSPECIFIED if entry.rule is None else entry.rule
        if entry.default:
            rule = f"DefaultRule_{rule}"
        rules = interfaces.setdefault(_interface(entry), {}).setdefault(acl, {})
        rules.setdefault(rule, []).append(vnet_tuple(wall, entry))
    return [
        {
            "time": _time(now),
            "flowLogVersion": 4,
            "flowLogGUID": guid("flowLogs/snatgw"),
            "macAddress": interface,
            "category": "FlowLogFlowEvent",
            "flowLogResourceID": _FLOW_LOG,
            "targetResourceID": _TARGET,
            "operationName": "FlowLogFlowEvent",
            "flowRecords": {
                "flows": [
                    {
                        "aclID": acl,
                        "flowGroups": [
                            {"rule": rule, "flowTuples": tuples} for rule, tuples in rules.items()
                        ],
                    }
                    for acl, rules in acls.items()
                ]
            },
        }
        for interface, acls in interfaces.items()
    ]


def _group_id(group: str) -> str:
    path = f"{_RESOURCES}/snatgw/providers/Microsoft.Network/networkSecurityGroups/{group}"
    return path.upper()


def _time(wall: float) -> str:
    """As Azure writes it: UTC, seven digits of a second."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"
