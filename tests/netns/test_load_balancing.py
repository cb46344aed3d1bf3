"""Load balancing with real servers, clients and probes: vm1 and vm2 serve, the internet asks."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.gateway import FRONTENDS, Gateway
from tests.netns.test_security_groups import rule
from tests.netns.topology import ROUTER, SERVER, SERVER2, Topology, eventually

FRONTEND, OTHER = FRONTENDS
PORT = 8080
WEB = {"frontendIPConfiguration": "fe1", "backendAddressPool": "pool", "probe": "p"}
SCALE = 10  # 5 seconds of Azure's between probes are half a second


class Site:
    """A gateway in front of two web servers."""

    def __init__(self, net: Topology) -> None:
        self.net = net
        net.directory.chmod(0o777)  # the daemon's probes are nobody's
        self.servers: dict[str, subprocess.Popen[str]] = {}
        self.gateway = Gateway(net, timeScale=SCALE)
        balancer = self.balancer
        balancer["backendAddressPools"] = [{"name": "pool", "virtualMachines": ["vm1", "vm2"]}]
        balancer["probes"] = [
            {
                "name": "p",
                "protocol": "Http",
                "port": PORT,
                "requestPath": "/health",
                "intervalInSeconds": 5,
                "probeThreshold": 2,
            }
        ]
        tcp = WEB | {"protocol": "Tcp"}
        balancer["loadBalancingRules"] = [
            tcp | {"name": "web", "frontendPort": 80, "backendPort": PORT},
            tcp
            | {
                "name": "sticky",
                "frontendIPConfiguration": "fe2",
                "frontendPort": 1030,
                "backendPort": PORT + 1,
                "loadDistribution": "SourceIP",
            },
            WEB | {"name": "udp", "protocol": "Udp", "frontendPort": 53, "backendPort": 5353},
        ]
        balancer["inboundNatRules"] = [
            {
                "name": "own",
                "frontendIPConfiguration": "fe1",
                "protocol": "Tcp",
                "frontendPortRangeStart": 50000,
                "frontendPortRangeEnd": 50001,
                "backendAddressPool": "pool",
                "backendPort": PORT + 2,
            }
        ]

    @property
    def balancer(self) -> dict[str, Any]:
        found: dict[str, Any] = self.gateway.configuration["loadBalancers"][0]
        return found

    def serve(self, vm: str) -> None:
        """Start a VM's web server, on all of its ports."""
        ports = [str(PORT + number) for number in range(3)]
        process = self.net.start(
            vm, sys.executable, "-m", "tests.netns.web", vm, str(self.net.directory), *ports
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        self.servers[vm] = process

    def curl(self, url: str, *options: str, source: str = "internet") -> str:
        """What curl prints; empty if it got no answer."""
        command = self.net.command(source, "curl", "-s", "-m", "2", *options, url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip()

    def who(self, count: int, *options: str, url: str = f"http://{FRONTEND}/") -> Counter[str]:
        """How often each VM answered; ``""`` for no answer."""
        return Counter(self.curl(url, *options).partition(" ")[0] for _ in range(count))

    def health(self, vm: str, rule: str = "web") -> dict[str, Any]:
        (found,) = (h for h in self.gateway._list("health", "--vm", vm) if h["rule"] == rule)
        return found

    def is_up(self, *vms: str) -> bool:
        return all(self.health(vm)["status"] == "Up" for vm in vms)

    def sick(self, vm: str, now: bool) -> None:
        """Have a VM's server answer probes badly, or well again, and wait until it counts."""
        file = self.net.directory / f"sick-{vm}"
        file.touch() if now else file.unlink()
        status = "Down" if now else "Up"
        eventually(lambda: self.health(vm)["status"] == status)


@pytest.fixture(scope="module")
def site(mode: None) -> Iterator[Site]:
    with Topology() as net:
        site = Site(net)
        for vm in ("vm1", "vm2"):
            site.serve(vm)
        site.gateway.start()
        eventually(lambda: site.is_up("vm1", "vm2"))
        yield site
        assert site.gateway.losses() == {}
        assert site.gateway.stop() == 0


def test_a_client_reaches_every_backend_with_its_own_address(site: Site) -> None:
    answers = [site.curl(f"http://{FRONTEND}/") for _ in range(24)]
    assert {answer.partition(" ")[0] for answer in answers} == {"vm1", "vm2"}
    assert all(f" {ROUTER}:" in answer for answer in answers)
    flows = site.gateway.flows("--public", FRONTEND)
    assert {(f["method"], f["direction"], f["public"]["port"]) for f in flows} == {
        ("LoadBalancingRule", "Inbound", 80)
    }


def test_source_ip_keeps_each_client_on_one_backend(site: Site) -> None:
    seen = {}
    for client in (SERVER, SERVER2, ROUTER):
        found = site.who(8, "--interface", client, url=f"http://{OTHER}:1030/")
        assert len(found) == 1
        seen[client] = set(found)
    assert set.union(*seen.values()) <= {"vm1", "vm2"}


def test_inbound_nat_leads_to_one_vm_by_each_port(site: Site) -> None:
    assert site.who(4, url=f"http://{FRONTEND}:50000/") == {"vm1": 4}
    assert site.who(4, url=f"http://{FRONTEND}:50001/") == {"vm2": 4}


def test_a_sick_backend_gets_nothing_new_and_ends_what_it_has(site: Site) -> None:
    command = site.net.command(
        "internet", "curl", "-s", "-m", "60", "-w", " %{http_code}", f"http://{FRONTEND}/slow"
    )
    slow = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(12)]
    eventually(lambda: len(site.gateway.flows("--state", "Established")) >= 12)
    busy = {f["id"] for f in site.gateway.flows("--vm", "vm1", "--state", "Established")}
    assert busy
    site.sick("vm1", True)
    assert site.who(12) == {"vm2": 12}
    assert {f["id"] for f in site.gateway.flows("--vm", "vm1", "--state", "Established")} == busy
    (site.net.directory / "go").touch()
    endings = Counter(
        (words[0], words[2]) for words in (process.communicate()[0].split() for process in slow)
    )
    assert endings["vm1", "200"] == len(busy)
    assert sum(endings.values()) == 12
    event = site.gateway.event(category="LoadBalancerProbeHealthStatus", vm="vm1", status="Down")
    assert event["properties"]["publicIpAddress"] in FRONTENDS
    assert site.health("vm1")["lastProbe"]["reason"] == "HTTP 503"
    site.sick("vm1", False)
    assert set(site.who(24)) == {"vm1", "vm2"}
    probes = (site.net.directory / "probes-vm1").read_text().splitlines()
    assert {line.split()[0] for line in probes} == {"168.63.129.16"}


def test_a_group_that_bars_probes_takes_a_vm_out_and_only_that(site: Site) -> None:
    gateway = site.gateway
    bar = rule("no-probes", 100, "Inbound", "Deny", source="AzureLoadBalancer")
    let = rule("clients", 110, "Inbound", "Allow", source="Internet")
    gateway.configuration["networkSecurityGroups"] = [{"name": "nsg", "securityRules": [bar, let]}]
    gateway.configuration["virtualMachines"][1]["networkSecurityGroup"] = "nsg"
    gateway.reload()
    try:
        eventually(lambda: site.health("vm2")["status"] == "Down")
        health = site.health("vm2")
        assert health["lastProbe"]["reason"] == "no answer"
        assert health["deniedBy"] == "nsg/no-probes"
        assert site.who(8) == {"vm1": 8}
        assert site.who(1, url=f"http://{FRONTEND}:50001/") == {"vm2": 1}  # clients get there
        denied = gateway.event(reason="DeniedBySecurityRule", rule="nsg/no-probes")
        assert denied["properties"]["source"] == "168.63.129.16"
    finally:
        del gateway.configuration["networkSecurityGroups"]
        del gateway.configuration["virtualMachines"][1]["networkSecurityGroup"]
        gateway.reload()
    eventually(lambda: site.is_up("vm2"))


def test_udp_moves_away_from_a_sick_backend_and_its_clients_notice_nothing(site: Site) -> None:
    for vm in ("vm1", "vm2"):
        site.net.client(vm).listen(5353)
    internet = site.net.client("internet")
    assert internet.echo(FRONTEND, port=53, source=SERVER) == "whole"
    assert internet.udp_open(FRONTEND, 53) == "whole"

    def holder() -> str:
        (flow,) = (
            f
            for f in site.gateway.flows("--protocol", "Udp", "--remote", ROUTER)
            if f["method"] == "LoadBalancingRule"
        )
        return str(flow["vm"])

    first = holder()
    site.sick(first, True)
    assert internet.udp_again() == "whole"
    assert holder() != first
    site.sick(first, False)


def test_no_snat_port_is_one_that_a_rule_listens_on(site: Site) -> None:
    ports = [p for p in site.gateway._list("ports", "--vm", "vm1") if p["protocol"] == "Tcp"]
    by_address = {p["publicIp"]: p for p in ports}
    assert by_address[OTHER]["reserved"] == ["1024-1031"]
    assert by_address[OTHER]["ranges"] == ["1032-2055"]
    assert by_address[FRONTEND]["reserved"] == ["50000-50007"]
    vm1 = site.net.client("vm1")
    seen = {vm1.peer("Tcp", SERVER) for _ in range(12)}
    assert all(
        not (address == OTHER and 1024 <= int(port) <= 1031)
        for address, port in (peer.split(":") for peer in seen)
    )
    assert len(seen) == 12
    assert "keep 1024-1031 from being SNAT ports" in site.gateway.cli("ports").stdout


def test_vms_find_nothing_where_probes_come_from(site: Site) -> None:
    before = site.gateway.status()["drops"].get("DestinationNotInternet", 0)
    vm1 = site.net.client("vm1")
    assert vm1.echo("168.63.129.16", patience=0.5, port=53) == "TimeoutError"
    assert site.curl("http://168.63.129.16/", "--connect-timeout", "1", source="vm1") == ""
    assert site.gateway.status()["drops"]["DestinationNotInternet"] >= before + 2


def test_a_hairpin_reaches_others_and_never_the_sender_itself(site: Site) -> None:
    assert set(Counter(_hairpin(site, "vm3", 12))) == {"vm1", "vm2"}
    answers = _hairpin(site, "vm1", 12)
    assert set(answers) == {"vm2", ""}
    assert site.gateway.status()["drops"]["HairpinToItself"] >= answers.count("")
    said = site.gateway.cli("explain", "--vm", "vm1", "--to", f"{FRONTEND}:80/tcp").stdout
    assert "mapped to itself its connection times out" in said


def _hairpin(site: Site, vm: str, count: int) -> list[str]:
    """Who answers a VM that asks the frontend, ``count`` times at once."""
    command = site.net.command(vm, "curl", "-s", "-m", "3", f"http://{FRONTEND}/")
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [process.communicate()[0].partition(" ")[0] for process in asking]


def test_a_flapping_backend_waits_longer_each_time(site: Site) -> None:
    for _ in range(2):
        site.sick("vm2", True)
        site.sick("vm2", False)
    assert site.health("vm2")["lastProbe"]["inARow"] > 2
    changes = [
        e["properties"]["status"]
        for e in site.gateway.events()
        if e["category"] == "LoadBalancerProbeHealthStatus"
        and e["properties"]["vm"] == "vm2"
        and e["properties"]["rule"] == "web"
    ]
    assert changes[-4:] == ["Down", "Up", "Down", "Up"]


def test_a_backend_that_dies_under_load_takes_its_own_flows_alone(site: Site) -> None:
    connections = 24
    wrk = subprocess.Popen(
        site.net.command(
            "internet", "wrk", "-t", "1", "-c", str(connections), "-d", "60s", f"http://{FRONTEND}/"
        ),
        stdout=subprocess.PIPE,
        text=True,
    )

    def established(vm: str) -> set[int]:
        flows = site.gateway.flows("--vm", vm, "--public", FRONTEND, "--state", "Established")
        return {f["id"] for f in flows if f["packetsIn"] > 10}

    eventually(lambda: len(established("vm1")) + len(established("vm2")) >= connections)
    dying, staying = established("vm1"), established("vm2")
    site.servers["vm1"].kill()
    eventually(lambda: site.health("vm1")["status"] == "Down")
    assert staying <= eventually(lambda: established("vm2"), lambda seen: len(seen) == connections)
    assert established("vm1") == set()
    wrk.send_signal(signal.SIGINT)  # it has worked for long enough: it reports
    report = wrk.communicate()[0]
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report
    )
    assert errors is not None, report
    connect, read, write, timeout = map(int, errors.groups())
    # Each of the dead one's connections ends once; of those opened anew before its probe failed,
    # every other one meets it again and is refused at once. Nothing hangs.
    assert timeout == 0, report
    assert len(dying) <= read, report
    assert connect + read + write < 10 * len(dying), report
    assert "Non-2xx" not in report
    site.serve("vm1")
    eventually(lambda: site.is_up("vm1"))
