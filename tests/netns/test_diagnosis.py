"""A VM runs out of ports for real; ``snatgw diagnose`` says why and what helps, and that helps."""

from __future__ import annotations

import json
from typing import Any

from tests.netns.gateway import FRONTENDS, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

PORTS, WANTED = 1024, 1500
SCALE = 5  # what is established stays for 48 s


def diagnosis(gateway: Gateway, *vm: str) -> list[dict[str, Any]]:
    document = json.loads(gateway.cli("diagnose", *vm, "--json").stdout)
    found: list[dict[str, Any]] = document["findings"]
    return found


def test_advice_that_is_taken_ends_the_exhaustion(fresh: Topology) -> None:
    gateway = Gateway(fresh, timeScale=SCALE)
    balancer = gateway.configuration["loadBalancers"][0]
    second = balancer["loadBalancingRules"].pop()
    gateway.start()
    vm2 = fresh.client("vm2")
    (well,) = diagnosis(gateway, "vm2")
    assert (well["severity"], well["text"]) == (
        "Good",
        "vm2 has all of its 1,024 SNAT ports free for each protocol.",
    )

    vm2.open(WANTED, SERVER)
    vm2.open(5, SERVER2)
    eventually(vm2.connections, lambda seen: seen["connected"] >= PORTS + 5)
    eventually(lambda: gateway.ports("vm2", "Tcp")["failed"], lambda n: n >= 2 * (WANTED - PORTS))
    before = gateway.ports("vm2", "Tcp")["failed"]
    assert vm2.talk() == PORTS + 5
    (finding,) = diagnosis(gateway, "vm2")
    after = gateway.ports("vm2", "Tcp")["failed"]
    assert (finding["severity"], finding["vm"]) == ("Critical", "vm2")
    assert finding["title"] == f"vm2 is out of TCP ports toward {SERVER}"
    data = finding["data"]
    assert data["destination"] == {"ip": SERVER, "port": None}
    assert (data["allocated"], data["held"], data["publicIps"]) == (PORTS, PORTS, [FRONTENDS[0]])
    flows = gateway.flows("--vm", "vm2", "--remote", f"{SERVER}:7")
    assert len([f for f in flows if f["method"] == "LoadBalancer"]) == PORTS
    assert data["inUse"] + data["idle"] == PORTS
    assert (data["opening"], data["halfClosed"], data["closed"]) == (0, 0, 0)
    assert before <= data["failed"] <= after
    assert finding["text"].startswith(
        f"All 1,024 TCP SNAT ports on {FRONTENDS[0]} are held by flows to {SERVER}: "
    )
    (frontend,) = [line for line in finding["advice"] if "frontend" in line]
    assert "gives vm2 1,024 ports more (its pool has 1 member): 2,048, of which 1,024 are held" in (
        frontend
    )
    # To everybody else's eyes, too; and other VMs are healthy.
    first, *_, last = diagnosis(gateway)
    assert first["title"] == finding["title"]
    assert last["title"] == "2 other VMs are healthy"

    # Done as it says: what waited gets through by itself, and the numbers are as said.
    balancer["loadBalancingRules"].append(second)
    gateway.reload()
    eventually(vm2.connections, lambda seen: seen["connected"] == WANTED + 5)
    assert vm2.talk() == WANTED + 5
    records = [r for r in gateway._list("ports", "--vm", "vm2") if r["protocol"] == "Tcp"]
    assert sum(record["allocated"] for record in records) == 2048
    findings = diagnosis(gateway, "vm2")
    assert "Critical" not in {f["severity"] for f in findings}
    (over,) = [f for f in findings if f["severity"] == "Warning"]
    assert over["title"] == f"vm2 was out of TCP ports toward {SERVER}"
    assert "none in the last" in over["text"]
    assert f"now 1,500 of the 2,048 ports on {FRONTENDS[0]} and {FRONTENDS[1]}" in over["text"]

    assert "did you mean vm2" in gateway.cli("diagnose", "wm2", status=1).stderr
    assert gateway.losses() == {}
