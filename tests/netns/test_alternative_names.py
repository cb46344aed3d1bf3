"""An interface has other names besides its own (``altname``): a configuration may use them."""

from __future__ import annotations

import json

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, Topology

LONG = "enp0s3-a-name-longer-than-the-kernels-own-may-be"


def named(net: Topology) -> Gateway:
    """A gateway whose file has no interface by its own name."""
    net.ip("gw", "link property add dev lan0 altname enp0s8inside")
    net.ip("gw", f"link property add dev wan0 altname {LONG}")
    gateway = Gateway(net)
    gateway.configuration["gateway"] |= {"inside": ["enp0s8inside"], "outside": LONG}
    return gateway


def test_a_gateway_runs_is_reloaded_and_taken_over_by_alternative_names(fresh: Topology) -> None:
    gateway = named(fresh)
    assert gateway.start().startswith("ready: lan0 -> wan0 by ")
    status = gateway.status()
    assert (status["inside"], status["outside"]) == (["lan0"], "wan0")
    vm1 = fresh.client("vm1")
    assert vm1.peer("Udp", SERVER).startswith(f"{DEFAULT}:")
    gateway.configuration["gateway"]["maximumFlows"] = 5000
    gateway.reload()
    # The interface's own name is the same interface.
    gateway.configuration["gateway"]["inside"] = ["lan0"]
    assert gateway.reload() == []
    second = Gateway(fresh)
    said = second.refused("--inside", "lan0", "--outside", LONG, "--public-ip", "203.0.113.50")
    assert said == [
        f"snatgw: {name}: another gateway on this host has this interface"
        for name in ("lan0", "wan0")
    ]
    gateway.kill()
    gateway.start()
    assert vm1.peer("Tcp", SERVER).startswith(f"{DEFAULT}:")
    assert gateway.stop() == 0
    assert "snatgw" not in fresh.run("gw", "iptables-save")


def test_flags_take_alternative_names(fresh: Topology) -> None:
    fresh.ip("gw", f"link property add dev wan0 altname {LONG}")
    gateway = Gateway(fresh)
    flags = ("--inside", "lan0", "--outside", LONG, "--public-ip", "203.0.113.50")
    gateway.start(*flags, "--state-directory", str(gateway.state))
    assert fresh.client("vm1").peer("Udp", SERVER).startswith("203.0.113.50:")
    assert gateway.stop() == 0


def test_check_knows_alternative_names(fresh: Topology) -> None:
    gateway = named(fresh)
    gateway.write()
    command = (gateway.python, "-m", "gateway", "check", "-c", str(gateway.file), "--host")
    said = fresh.run("gw", "sh", "-c", f"cd {gateway.root} && exec {' '.join(command)} --json")
    sentences = [json.loads(line).get("sentence", "") for line in said.splitlines()]
    assert "lan0 is up" in sentences
    assert "wan0 is up" in sentences


def test_one_interface_by_two_names_is_refused(fresh: Topology) -> None:
    gateway = named(fresh)
    gateway.configuration["gateway"]["outside"] = "lan0"
    gateway.write()
    (line,) = gateway.refused()
    assert line == "snatgw: enp0s8inside and lan0 are one interface (lan0)"
