"""A page whose every text is as long as it gets: what the layout must have room for.

Names of 80 characters (the longest that a configuration may have), addresses and ports of three and
five digits, counters of twelve: more than a test's traffic reaches, told to the page in the API's
place.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

NAME = "production-westeurope-batch-processing-scale-set-instance-000000000000000000042x"
UNBROKEN = "W" * 79 + "x"
"""Wider than any name that means something, and nowhere to break it."""
MUCH = 987_654_321_098
METHODS = (
    "DefaultOutboundAccess", "LoadBalancer", "OutboundRule", "InstanceLevelPublicIP", "NatGateway",
    "LoadBalancingRule", "InboundNatRule", "VirtualNetwork",
)  # fmt: skip
STATES = ("Opening", "Established", "Closing", "Closed", "CoolDown")
PLACE = {"ip": "255.255.255.255", "port": 65535}
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def _moment(second: float) -> str:
    return (NOW + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")


def flow(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "protocol": ("Tcp", "Udp", "Icmp", "Protocol255")[number % 4],
        "state": STATES[number % len(STATES)],
        "awaitingRemoval": number % 7 == 3,
        "direction": "Outbound",
        "method": METHODS[number % len(METHODS)],
        "vm": (NAME, "vm1", UNBROKEN, "255.255.255.255")[number % 4],
        "private": PLACE,
        "public": PLACE,
        "remote": PLACE,
        **dict.fromkeys(("packetsOut", "bytesOut", "packetsIn", "bytesIn"), MUCH * 1000),
        **dict.fromkeys(("bytesOutPerSecond", "bytesInPerSecond"), 123_450_000),
        **dict.fromkeys(("ageSeconds", "idleSeconds"), 364 * 86400 + 23 * 3600),
        "expiresInSeconds": 119 * 60 + 59,
        "offloaded": True,
    }  # fmt: skip


def pool(number: int) -> dict[str, Any]:
    return {
        "vm": (UNBROKEN, NAME)[number % 2],
        "publicIp": PLACE["ip"],
        "protocol": ("Tcp", "Udp", "Icmp")[number % 3],
        "method": METHODS[number],
        "allocated": 1_032_192,
        "used": (1_032_192, 900_000, 512_512)[number % 3],
        "free": 1_032_191,
        "highWater": 1_032_192,
        "coolDown": 1_032_191,
        "failed": MUCH,
        "destinations": [],
    }


GATEWAY = {
    "flows": 10_000_000,
    "maximumFlows": 10_000_000,
    "newFlowsPerSecond": 12_345_678,
    "packetsPerSecond": 123_456_789,
    **dict.fromkeys(("packetsOutPerSecond", "packetsInPerSecond", "dropsPerSecond"), 123_456_789),
    **dict.fromkeys(("bytesOutPerSecond", "bytesInPerSecond"), 123_450_000_000),
    "drops": {
        "DeniedBySecurityRule": MUCH,
        "NoPortAvailable": MUCH,
        UNBROKEN: MUCH,
    },
    "queue": {"kernelDropped": MUCH, "socketDropped": MUCH},
}
RULES = [
    {
        "networkSecurityGroup": group, "name": f"securityRules/{rule}", "access": access, "direction": "Outbound",
        "hits": MUCH, "hitsPerSecond": 123_456_789,
    }
    for group, rule, access in (
        (NAME, NAME, "Deny"), (UNBROKEN, UNBROKEN, "Allow"), ("nsg", "AllowAzureLoadBalancerInBound", "Allow"),
    )
]  # fmt: skip
HEALTH = [
    {
        "loadBalancer": NAME, "rule": UNBROKEN, "protocol": "Tcp", "frontend": PLACE, "vm": vm, "status": status,
        "deniedBy": f"{NAME}/{UNBROKEN}",
        "lastProbe": {"reason": "status 503 of http://255.255.255.255:65535/health?of=everything", "milliseconds": 12345.6},
    }
    for vm, status in ((NAME, "Down"), (UNBROKEN, "Unknown"), ("vm1", "Up"))
]  # fmt: skip
FINDINGS = [
    {"severity": severity, "vm": vm, "title": f"{vm} has run out of ports", "text": vm * 3, "advice": [vm, vm]}
    for severity, vm in (("Critical", UNBROKEN), ("Warning", NAME))
]  # fmt: skip
EVENTS = [
    {
        "time": _moment(-second), "category": "any", "operationName": f"Operation{vm}", "level": level, "resource": vm,
        "properties": {"vm": vm, UNBROKEN: UNBROKEN, "count": MUCH},
    }
    for second, (vm, level) in enumerate(((UNBROKEN, "Error"), (NAME, "Warning")), 1)
]  # fmt: skip
STATUS = {
    "version": "0.1.0",
    "profile": "azure-current",
    "inside": ["interface-name0", "interface-name1", "interface-name2", "interface-name3"],
    "outside": "interface-name4",
    "timeScale": 1000.5,
    "startedAt": _moment(-(364 * 86400 + 23 * 3600)),
}
SAMPLE = {
    "time": _moment(0),
    "sampleSeconds": 1,
    "eventsOmitted": 0,
    "events": [],
    "gateway": GATEWAY,
    "ports": [pool(number) for number in range(8)],
    "flows": {
        "total": 10_000_000,
        "matching": 9_999_999,
        "rows": [flow(number) for number in range(40)],
    },
    "destinations": [
        {"remote": PLACE, "flows": 10_000_000, "bytesPerSecond": 123_450_000},
        {"remote": PLACE, "flows": 1, "bytesPerSecond": 0},
    ],
    "rules": RULES,
}
TIMES = [_moment(second) for second in range(-300, 0)]
HISTORY = {
    "times": TIMES,
    "stepSeconds": 1,
    "gateway": {
        name: [GATEWAY[name]] * len(TIMES)
        for name in (
            "packetsPerSecond", "bytesOutPerSecond", "bytesInPerSecond", "flows", "dropsPerSecond",
        )
    },
    "ports": [],
    "events": EVENTS,
}  # fmt: skip
EXPLANATION = {
    "verdict": "Allow",
    "reason": f"{UNBROKEN} {NAME}",
    "networkSecurityGroups": [
        {"level": "NetworkInterface", "name": UNBROKEN, "rule": NAME, "access": "Allow", "default": True},
        {"level": "Subnet", "name": NAME, "rule": UNBROKEN, "access": "Allow", "default": False},
    ],
    "method": "InstanceLevelPublicIP",
    "candidates": [{"publicIp": PLACE["ip"], "portsFree": 1_032_192}],
    "existingFlow": MUCH,
}  # fmt: skip

STREAM = """sample => {
  window.EventSource = class extends EventTarget {
    constructor() {
      super();
      this.timer = setInterval(() => this.tell(), 1000);
      setTimeout(() => this.tell());
    }
    tell() {
      sample.time = new Date(Date.parse(sample.time) + 1000).toISOString();
      this.dispatchEvent(new MessageEvent("sample", {data: JSON.stringify(sample)}));
    }
    close() { clearInterval(this.timer); }
  };
}"""


LINES = {"events": EVENTS, "health": HEALTH}
DOCUMENTS = {
    "status": STATUS, "history": HISTORY, "explain": EXPLANATION, "diagnose": {"findings": FINDINGS},
}  # fmt: skip


def _answer(route: Route) -> None:
    name = urlsplit(route.request.url).path.rpartition("/")[2]
    if name in LINES:
        body = "".join(f"{json.dumps(record)}\n" for record in LINES[name])
        route.fulfill(body=body, content_type="application/x-ndjson")
    else:
        route.fulfill(json=DOCUMENTS[name])


def crowd(page: Page) -> None:
    """Have a page that is opened after this show all of it."""
    page.route("**/v1/*", _answer)
    page.add_init_script(f"({STREAM})({json.dumps(SAMPLE)})")
