"""Flow logs of a real gateway: what VMs did, in the files that readers of Azure's logs read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.netns.gateway import Gateway
from tests.netns.test_security_groups import GROUPS
from tests.netns.topology import SERVER, Topology, eventually


def records(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    """All that is written; each file is a whole document at any time."""
    found = []
    directory: Path = gateway.state / "flow-logs" / name
    for path in sorted(directory.glob("PT1H-*.json")):
        found += json.loads(path.read_bytes())["records"]
    return found


def nsg_tuples(gateway: Gateway) -> list[str]:
    return [
        f"{rule['rule']} {interface['mac']} {line}"
        for record in records(gateway, "nsg")
        for rule in record["properties"]["flows"]
        for interface in rule["flows"]
        for line in interface["flowTuples"]
    ]


def vnet_tuples(gateway: Gateway) -> list[str]:
    return [
        f"{group['rule']} {record['macAddress']} {line}"
        for record in records(gateway, "vnet")
        for flow in record["flowRecords"]["flows"]
        for group in flow["flowGroups"]
        for line in group["flowTuples"]
    ]


def states(lines: list[str], pattern: str) -> str:
    """The states of the tuples that match, in order."""
    return "".join(found[1] for line in lines if (found := re.search(pattern, line)))


def seen(gateway: Gateway, pattern: str) -> Callable[[], str]:
    """Asks for the states in the NSG flow log."""
    return lambda: states(nsg_tuples(gateway), pattern)


def test_flows_of_vms_are_in_both_formats(fresh: Topology) -> None:
    gateway = Gateway(fresh, timeScale=60, flowLogs="both")  # five minutes are five seconds
    gateway.configuration["networkSecurityGroups"] = GROUPS
    gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "subnet-nsg"
    gateway.start()
    vm = fresh.client("vm1")
    assert vm.peer("Tcp", SERVER).startswith("203.0.113.")  # opened and closed
    assert vm.echo("198.51.100.2", patience=0.3) == "TimeoutError"
    vm.open(1, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 1)
    out = (
        rf"DefaultRule_AllowInternetOutBound 02000A000104 \d{{10}},10\.0\.1\.4,{re.escape(SERVER)}"
    )

    def continued() -> str:
        assert vm.talk() == 1  # keeps it from being idle
        return states(nsg_tuples(gateway), rf"{out},\d+,7,T,O,A,([BCE]),")

    eventually(continued, lambda told: told.startswith("BC"))
    vm.close()
    eventually(seen(gateway, rf"{out},\d+,7,T,O,A,([BCE]),"), lambda told: told.endswith("E"))
    lines = nsg_tuples(gateway)
    assert states(lines, rf"{out},\d+,37,T,O,A,([BCE]),") == "BE"
    assert states(lines, r"UserRule_no-echo-to-second 02000A000104 .*,7,U,O,D,([BE]),,,,$") == "B"
    mirrored = vnet_tuples(gateway)
    assert states(mirrored, r"no-echo-to-second .*,7,17,O,(D),NX,0,0,0,0$") == "D"
    assert states(mirrored, r"AllowInternetOutBound \w+ \d{13},.*,37,6,O,([BCE]),NX,") == "BE"
    assert gateway.status()["flowLogs"] == {
        "mode": "both",
        "waiting": 0,
        "lost": 0,
        "denialsNotLogged": 0,
        "unwritten": 0,
    }
    assert gateway.losses() == {}
    assert gateway.stop() == 0


def test_what_waits_is_written_when_the_gateway_stops(fresh: Topology) -> None:
    gateway = Gateway(fresh, flowLogs="vnet")
    gateway.start()
    assert fresh.client("vm1").echo(SERVER) == "whole"
    assert vnet_tuples(gateway) == []
    assert gateway.stop() == 0
    # The counts as well: another daemon may go on with the flow, and cannot know of them.
    assert states(vnet_tuples(gateway), r"^unspecified .*,7,17,O,([BCE]),NX") == "BC"
    assert vnet_tuples(gateway)[-1].endswith(",C,NX,1,128,1,128")
    assert records(gateway, "nsg") == []
