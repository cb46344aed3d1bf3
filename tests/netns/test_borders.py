"""What must not pass: forged addresses, hairpins, IPv6, other people's interfaces."""

from __future__ import annotations

import pytest

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.topology import SERVER, Topology, eventually

EVERYTHING_ELSE = (
    "ip and not (host 198.51.100.2 or igmp)"  # the last word, and kernels about groups
)


def last_word(town: Gateway) -> None:
    """A way there and back: what was sent before has gone its way by then, too."""
    for vm in ("vm1", "vm3"):
        assert town.net.client(vm).echo("198.51.100.2") == "whole"


@pytest.mark.parametrize(
    "packet",
    [
        f"IP(src='{DEFAULT}', dst='{SERVER}')/UDP(dport=7)",
        f"IP(src='{INSTANCE}', dst='{SERVER}')/UDP(dport=7)",
        f"IP(src='{INSTANCE}', dst='{FRONTENDS[0]}')/UDP(dport=7)",
        f"IP(src='8.8.8.8', dst='{SERVER}')/UDP(dport=7)",
        f"IP(src='10.0.77.4', dst='{SERVER}')/UDP(dport=7)",
        f"IP(src='10.77.0.4', dst='{SERVER}')/TCP(dport=7, flags='S')",
        f"IP(src='127.0.0.1', dst='{SERVER}')/UDP(dport=7)",
        f"IP(src='203.0.113.1', dst='{SERVER}')/UDP(dport=7)",
    ],
)
def test_forged_sources_from_inside_go_nowhere(town: Gateway, packet: str) -> None:
    outside = town.net.capture("internet", "eth0", EVERYTHING_ELSE)
    inside = town.net.capture("vm2", "eth0", EVERYTHING_ELSE)
    assert town.net.client("vm1").craft(packet) is None
    last_word(town)
    assert (outside.lines(), inside.lines()) == ([], [])


@pytest.mark.parametrize(
    "packet",
    [
        "IP(dst='10.0.1.4')/UDP(dport=7)",
        f"IP(src='10.0.1.5', dst='{DEFAULT}')/UDP(dport=1024)",
        f"IP(src='10.0.1.5', dst='{INSTANCE}')/UDP(dport=7)",
        f"IP(src='{DEFAULT}', dst='{INSTANCE}')/UDP(dport=7)",
        f"IP(src='{INSTANCE}', dst='{DEFAULT}')/ICMP()",
    ],
)
def test_forged_addresses_from_outside_go_nowhere(town: Gateway, packet: str) -> None:
    wires = [town.net.capture(vm, "eth0", EVERYTHING_ELSE) for vm in ("vm1", "vm2", "vm3")]
    assert town.net.client("internet").craft(packet) is None
    last_word(town)
    assert [wire.lines() for wire in wires] == [[], [], []]


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
@pytest.mark.parametrize("target", [DEFAULT, FRONTENDS[0]])
def test_a_hairpin_without_a_rule_is_dropped_and_goes_nowhere(
    town: Gateway, vm: str, target: str
) -> None:
    others = [name for name in ("vm1", "vm2", "vm3") if name != vm]
    wires = [town.net.capture(name, "eth0", EVERYTHING_ELSE) for name in others]
    wires.append(town.net.capture("internet", "eth0", EVERYTHING_ELSE))
    client = town.net.client(vm)
    before = town.status()["drops"].get("HairpinWithoutRule", 0)
    assert client.echo(target, port=80, patience=0.2) == "TimeoutError"
    assert client.peer("Tcp", target, patience=0.2) == "TimeoutError"
    assert town.status()["drops"]["HairpinWithoutRule"] == before + 2
    last_word(town)
    assert [wire.lines() for wire in wires] == [[], [], []]


def test_the_host_answers_no_forged_source_from_its_other_private_addresses(town: Gateway) -> None:
    town.net.ip("gw", "addr add 172.17.0.1/32 dev lo")
    outside = town.net.capture("internet", "eth0", "ip and src net 172.16.0.0/12")
    town.net.client("vm1").craft(f"IP(src='{SERVER}', dst='172.17.0.1')/ICMP()")
    town.net.client("vm1").craft(f"IP(src='{SERVER}', dst='172.17.0.1')/TCP(dport=81, flags='S')")
    last_word(town)
    assert outside.lines() == []
    town.net.ip("gw", "addr del 172.17.0.1/32 dev lo")


@pytest.mark.parametrize("vm", ["vm1", "vm2"])
def test_a_hairpin_to_an_instance_level_public_ip_reaches_its_vm(town: Gateway, vm: str) -> None:
    town.net.client("vm3").listen(5454)
    outside = town.net.capture("internet", "eth0", EVERYTHING_ELSE)
    assert town.net.client(vm).echo(INSTANCE, port=5454) == "whole"
    (inbound,) = [
        f
        for f in town.flows("--vm", "vm3")
        if f["direction"] == "Inbound"
        and f["remote"]["ip"] in (DEFAULT, *FRONTENDS)
        and f["private"]["port"] == 5454
    ][-1:]
    assert inbound["remote"]["ip"] in ({DEFAULT} if vm == "vm1" else set(FRONTENDS))
    assert outside.lines() == []


def test_private_destinations_are_no_internet(town: Gateway) -> None:
    outside = town.net.capture("internet", "eth0", EVERYTHING_ELSE)
    for address in ("172.16.0.1", "192.168.0.1", "10.99.0.1", "100.64.0.1"):
        assert town.net.client("vm1").echo(address, patience=0.1) == "TimeoutError"
    last_word(town)
    assert outside.lines() == []


def test_ipv6_from_inside_is_not_forwarded_and_that_is_said_once(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    fresh.sysctl("gw", "net/ipv6/conf/all/forwarding", "1")
    for namespace, interface, address in (
        ("gw", "lan0", "fd01::1"), ("vm1", "eth0", "fd01::4"),
        ("gw", "wan0", "fd02::1"), ("internet", "eth0", "fd02::2"),
    ):  # fmt: skip
        fresh.ip(namespace, f"addr add {address}/64 dev {interface} nodad")
    fresh.ip("vm1", "-6 route add default via fd01::1")
    fresh.ip("internet", "-6 route add default via fd02::1")
    ping = ("ping", "-6", "-c", "1", "-W", "1", "fd02::2")
    for vm in ("vm1", "gw"):  # it would pass
        eventually(lambda vm=vm: "1 received" in fresh.run(vm, *ping, check=False))  # type: ignore[misc]
    gateway.start()
    outside = fresh.capture("internet", "eth0", "ip6 host fd01::4")
    fresh.run("vm1", *ping, check=False)
    fresh.run("gw", *ping)  # the host itself may
    assert outside.lines() == []
    said = [line for line in gateway.errors.read_text().splitlines() if "IPv6" in line]
    assert said == ["IPv6 is not translated and not forwarded from inside"]
