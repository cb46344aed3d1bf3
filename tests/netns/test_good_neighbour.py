"""The daemon among other programs of its host: what it notices of them, and what it says."""

from __future__ import annotations

import sys

import pytest

from gateway.schema.host_firewall import INSIDE_ONLY
from tests.netns.gateway import FRONTENDS, Gateway
from tests.netns.networks import add_container
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

STRICT = (
    "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }"
)


def firewall_findings(gateway: Gateway) -> list[str]:
    titles = gateway.cli("diagnose").stdout
    return [line for line in titles.splitlines() if "own firewall drops" in line]


def test_a_firewall_that_drops_is_named_at_the_start_and_by_diagnose_until_it_is_opened(
    fresh: Topology,
) -> None:
    fresh.run("gw", "nft", STRICT)
    gateway = Gateway(fresh)
    gateway.write()
    told = fresh.run("gw", "sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", *command(gateway))
    assert "nftables' table inet filter, chain forward, by its policy" in told
    assert "ok: " not in told
    assert told.endswith("exit 1\n")
    gateway.start()
    (said,) = [line for line in gateway.errors.read_text().splitlines() if "own firewall" in line]
    assert "drops what VMs send and what is answered" in said
    event = gateway.event(operationName="HostFirewall")
    assert event["properties"]["problems"] == [said]
    assert firewall_findings(gateway)
    diagnosis = gateway.cli("diagnose").stdout
    assert f"    {said.partition('This lets them pass: ')[2]}" in diagnosis.splitlines()
    assert "are well" not in diagnosis
    assert fresh.client("vm1").echo(SERVER, patience=0.5) == "TimeoutError"
    fresh.run("gw", "sh", "-c", said.partition("This lets them pass: ")[2])
    assert fresh.client("vm1").echo(SERVER) == "whole"
    eventually(lambda: [e for e in gateway.events() if e["operationName"] == "HostFirewall"][1:])
    assert firewall_findings(gateway) == []
    assert gateway.stop() == 0


def test_what_is_said_opens_every_public_ip_and_hairpins_too(fresh: Topology) -> None:
    chains = [("forward", 0), ("prerouting", -350), ("prerouting", 10), ("postrouting", 300)]
    hooked = "; ".join(
        f"chain c{n} {{ type filter hook {hook} priority {priority}; policy drop; }}"
        for n, (hook, priority) in enumerate(chains)
    )
    fresh.run("gw", "nft", f"table inet fw {{ {hooked}; }}")
    gateway = Gateway(fresh)
    gateway.start()
    lines = [line for line in gateway.errors.read_text().splitlines() if "own firewall" in line]
    assert len(lines) == len(chains)
    for line in lines:
        fresh.run("gw", "sh", "-c", line.partition("This lets them pass: ")[2])
    told = fresh.run("gw", *command(gateway))
    assert told.startswith("ok: ")
    assert "what VMs send to the gateway's own public IPs (walked for 4 public IPs" in told
    for vm in ("vm1", "vm2", "vm3"):
        assert fresh.client(vm).echo(SERVER) == "whole"
    server = fresh.start("vm2", sys.executable, "-m", "http.server", "80")
    asked = (
        "curl",
        "-s",
        "-m",
        "5",
        "--retry",
        "5",
        "--retry-connrefused",
        f"http://{FRONTENDS[0]}/",
    )
    assert "Directory listing" in fresh.run("vm1", *asked)
    # Here it is the hairpin alone that is dropped, which may be meant: a warning.
    fresh.run("gw", "nft", 'insert rule inet fw c0 iifname "lan0" oifname "lan0" drop')
    told = fresh.run("gw", "sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", *command(gateway))
    assert f"drops what VMs send to the gateway's own public IPs{INSIDE_ONLY}: " in told
    assert told.endswith("exit 0\n")
    assert "Directory listing" not in fresh.run(
        "vm1", "sh", "-c", f"curl -s -m 1 http://{FRONTENDS[0]}/ || true"
    )
    server.kill()
    assert gateway.stop() == 0


def command(gateway: Gateway) -> tuple[str, ...]:
    return (gateway.python, "-m", "gateway", "check", "--host", "-c", str(gateway.file))


def test_a_firewall_that_comes_later_is_named_then(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    assert "firewall" not in gateway.errors.read_text()
    fresh.run("gw", "nft", STRICT)
    event = gateway.event(operationName="HostFirewall")
    assert "chain forward, by its policy" in event["properties"]["problems"][0]
    assert "chain forward, by its policy" in gateway.errors.read_text()
    assert gateway.stop() == 0


@pytest.mark.parametrize(
    "place", ["mangle/FORWARD", "mangle/PREROUTING", "mangle/POSTROUTING", "raw/PREROUTING"]
)
def test_a_rule_that_is_put_ahead_of_ours_is_noticed_and_lets_nothing_out(
    fresh: Topology, place: str
) -> None:
    table, chain = place.split("/")
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    assert vm1.echo(SERVER) == "whole"
    outside = fresh.capture("internet", "eth0", "net 10.0.0.0/8")
    fresh.run("gw", "iptables", "-t", table, "-I", chain, "-j", "ACCEPT")
    gateway.event(operationName="RulesMoved")
    listed = fresh.run("gw", "iptables", "-t", table, "-S", chain).splitlines()
    assert listed.index(f"-A {chain} -j ACCEPT") > max(
        at for at, line in enumerate(listed) if "snatgw-" in line
    )
    assert vm1.echo(SERVER2) == "whole"
    assert vm1.peer("Tcp", SERVER2).startswith("203.0.113.40:")
    assert "its own were moved" in gateway.errors.read_text()
    assert outside.lines() == []
    assert gateway.stop() == 0


def test_containers_that_start_after_the_gateway_reach_the_internet(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    add_container(fresh)
    fresh.sysctl("gw", "net/ipv4/ip_forward", "1")
    masquerade = "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
    fresh.run("gw", "iptables", *masquerade.split())
    container = fresh.client("container")
    eventually(lambda: container.echo(SERVER, patience=1), lambda seen: seen == "whole")
    assert fresh.client("vm1").echo(SERVER) == "whole"
    assert gateway.stop() == 0
    assert container.echo(SERVER) == "whole"
    assert fresh.run("gw", "cat", "/proc/sys/net/ipv4/conf/wan0/forwarding") == "1\n"
