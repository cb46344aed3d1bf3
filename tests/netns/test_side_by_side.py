"""Two gateways on one host."""

from __future__ import annotations

from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.networks import SERVER9, add_second_gateways
from tests.netns.topology import SERVER, Topology

PUBLIC9 = "198.18.9.10"


def second_network(net: Topology) -> None:
    """What the second gateway stands between, and a server on its internet."""
    import sys

    add_second_gateways(net)
    servers = net.start("internet9", sys.executable, "-m", "tests.netns.servers", SERVER9)
    assert servers.stdout is not None
    assert servers.stdout.readline() == "up\n"


def start_second(net: Topology) -> Gateway:
    gateway = Gateway(net)
    gateway.start(
        "--inside", "lan9", "--outside", "wan9", "--public-ip", PUBLIC9,
        "--state-directory", str(gateway.state),
    )  # fmt: skip
    return gateway


def test_two_gateways_do_not_disturb_each_other(fresh: Topology) -> None:
    second_network(fresh)
    before = host_state(fresh)
    first = Gateway(fresh)
    first.start()
    second = start_second(fresh)
    vm1, vm9 = fresh.client("vm1"), fresh.client("vm9")
    wire = fresh.capture("internet9", "eth0", "ip and not host 198.18.9.10")

    def both_work() -> None:
        assert vm1.peer("Tcp", SERVER).startswith(DEFAULT)
        assert vm9.peer("Tcp", SERVER9).startswith(PUBLIC9)

    both_work()
    assert {f["vm"] for f in first.flows()} == {"vm1"}
    assert {f["vm"] for f in second.flows()} == {"10.9.1.4"}
    vm1.open(1, SERVER)
    vm9.open(1, SERVER9)
    # Neither leads out of the other's interface.
    assert vm1.peer("Udp", SERVER9, patience=0.3) == "TimeoutError"
    assert vm9.peer("Udp", SERVER, patience=0.3) == "TimeoutError"

    assert second.stop() == 0
    assert vm1.talk() == 1
    assert vm1.peer("Tcp", SERVER).startswith(DEFAULT)
    second = start_second(fresh)
    both_work()
    second.kill()
    assert vm1.talk() == 1
    second = start_second(fresh)
    assert vm1.talk() == 1
    both_work()

    assert first.stop() == 0
    assert vm9.peer("Tcp", SERVER9).startswith(PUBLIC9)
    assert wire.lines() == []
    assert second.stop() == 0
    assert host_state(fresh) == before


def test_a_second_gateway_on_an_interface_is_refused(fresh: Topology) -> None:
    second_network(fresh)
    first = Gateway(fresh)
    first.start()
    before = host_state(fresh)
    second = Gateway(fresh)
    second.write()
    assert second.refused() == [
        "snatgw: lan0: another gateway on this host has this interface",
        "snatgw: wan0: another gateway on this host has this interface",
    ]
    third = Gateway(fresh)
    refusal = third.refused(
        "--inside", "lan9", "--outside", "wan0", "--public-ip", "203.0.113.77",
        "--state-directory", str(third.state),
    )  # fmt: skip
    assert refusal == ["snatgw: wan0: another gateway on this host has this interface"]
    assert host_state(fresh) == before
    assert fresh.client("vm1").peer("Tcp", SERVER).startswith(DEFAULT)


def test_one_api_socket_for_two_is_refused(fresh: Topology) -> None:
    second_network(fresh)
    first = Gateway(fresh)
    first.start()
    before = host_state(fresh)
    second = Gateway(fresh)
    second.api = first.api
    refusal = second.refused(
        "--inside", "lan9", "--outside", "wan9", "--public-ip", PUBLIC9,
        "--state-directory", str(second.state),
    )  # fmt: skip
    assert len(refusal) == 1
    assert f"{first.api}: another daemon answers there" in refusal[0]
    assert host_state(fresh) == before
    assert first.status()["flows"] == 0
