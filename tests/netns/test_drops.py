"""What the kernel drops for the gateway has its reason wherever drops are shown.

One packet of each kind goes through the real kernel, and ``status``, metrics and events count it by
the reason that ``explain`` names for it; a capture's counters have it, too.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from gateway.schema.drop_reasons import DropReason
from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.test_capture import Capturing
from tests.netns.test_metrics import scrape
from tests.netns.topology import INSIDE, OUTSIDE, SERVER, Topology, eventually
from tests.unit.daemon.scraping import samples, value

ELSEWHERE, PLATFORM = "172.30.0.1", "168.63.129.16"
UDP = "UDP(sport=4000, dport=1030)"
SENTENCES = {reason.value: reason.sentence for reason in DropReason}


class Kind(NamedTuple):
    """One packet (of scapy, or a command) from a host, the reason for which it is dropped, and
    whether it is one that can be put to ``explain --inbound``: from, to."""

    host: str
    packet: str
    reason: str
    explained: tuple[str, str] | None = None


KINDS = {
    "the virtual network's address from outside": Kind(
        "internet",
        f"IP(src='10.0.1.5', dst='{DEFAULT}')",
        "SourceNotOutside",
        ("10.0.1.5", DEFAULT),
    ),
    "a public IP from outside": Kind(
        "internet",
        f"IP(src='{INSTANCE}', dst='{DEFAULT}')",
        "SourceNotOutside",
        (INSTANCE, DEFAULT),
    ),
    "the probes' source from outside": Kind(
        "internet",
        f"IP(src='{PLATFORM}', dst='{DEFAULT}')",
        "SourceNotOutside",
        (PLATFORM, DEFAULT),
    ),
    "the virtual network at both ends": Kind(
        "internet",
        "IP(src='10.0.1.5', dst='10.0.1.4')",
        "SourceNotOutside",
        ("10.0.1.5", "10.0.1.4"),
    ),
    "from outside to a VM": Kind(
        "internet", "IP(dst='10.0.1.4')", "PublicAddressUnknown", (SERVER, "10.0.1.4")
    ),
    "from outside to somebody else": Kind(
        "internet", f"IP(dst='{ELSEWHERE}')", "PublicAddressUnknown", (SERVER, ELSEWHERE)
    ),
    "from outside to the probes' source": Kind(
        "internet", f"IP(dst='{PLATFORM}')", "PublicAddressUnknown", (SERVER, PLATFORM)
    ),
    "a public IP from inside": Kind(
        "vm1", f"IP(src='{DEFAULT}', dst='{SERVER}')", "SourceNotInVirtualNetwork"
    ),
    "the probes' source from inside": Kind(
        "vm1", f"IP(src='{PLATFORM}', dst='{SERVER}')", "SourceNotInVirtualNetwork"
    ),
    "a forged source to this host": Kind(
        "vm1", f"IP(src='{SERVER}', dst='{INSIDE}')", "SourceNotBehindInterface"
    ),
    "this host's own private address": Kind(
        "gw", f"ping -c 1 -W 1 -I {INSIDE} {SERVER}", "PrivateAddressOutside"
    ),
    "a redirect": Kind("vm2", "IP(dst='10.0.1.6')", "IcmpRedirect"),
    "IPv6": Kind("vm1", "ping -6 -c 1 -W 1 fd02::2", "Ipv6NotSupported"),
}


@pytest.fixture(scope="module", params=["azure-2017", "azure-current"])
def gateway(mode: None, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with Topology() as net:
        net.sysctl("gw", "net/ipv6/conf/all/forwarding", "1")
        for namespace, interface, address in (
            ("gw", "lan0", "fd01::1"), ("vm1", "eth0", "fd01::4"),
            ("gw", "wan0", "fd02::1"), ("internet", "eth0", "fd02::2"),
        ):  # fmt: skip
            net.ip(namespace, f"addr add {address}/64 dev {interface} nodad")
        net.ip("vm1", "-6 route add default via fd01::1")
        net.ip("vm2", f"route add 10.0.1.6/32 via {INSIDE}")
        for address in (ELSEWHERE, PLATFORM):
            net.ip("internet", f"route add {address}/32 via {OUTSIDE}")
        # A minute of Azure's, in which events are sampled, is a second.
        running = Gateway(net, profile=request.param, timeScale=60)
        probed = running.configuration["loadBalancers"][0]
        probed["probes"] = [{"name": "p", "protocol": "Tcp", "port": 80, "intervalInSeconds": 5}]
        probed["loadBalancingRules"][0]["probe"] = "p"
        running.start()
        net.client("vm1").echo(SERVER)  # neighbours know each other
        net.client("internet").echo(INSTANCE, patience=0.1)
        yield running
        assert running.losses() == {}
        assert running.stop() == 0


def send(gateway: Gateway, kind: Kind) -> None:
    if kind.packet.startswith("ping"):
        gateway.net.run(kind.host, *kind.packet.split(), check=False)
    else:
        gateway.net.client(kind.host).craft(f"{kind.packet}/{UDP}")


@pytest.mark.parametrize("name", KINDS)
def test_a_packet_counts_by_the_reason_that_explain_gives(gateway: Gateway, name: str) -> None:
    kind = KINDS[name]
    before = Counter(gateway.status()["drops"])
    send(gateway, kind)
    drops = eventually(
        lambda: Counter(gateway.status()["drops"]),
        lambda seen: seen[kind.reason] > before[kind.reason],
    )
    assert drops - before == {kind.reason: 1}
    counted = value(samples(scrape(gateway)), "snatgw_dropped_packets_total", reason=kind.reason)
    assert counted == drops[kind.reason]
    if kind.explained is not None:
        source, to = kind.explained
        question = ("--inbound", "--from", f"{source}:4000", "--to", f"{to}:1030/udp")
        answer = gateway.document("explain", *question)
        assert (answer["verdict"], answer["reason"].split(":")[0]) == ("Drop", kind.reason)


def test_events_have_every_packet_without_addresses(gateway: Gateway) -> None:
    reasons = {kind.reason for kind in KINDS.values()}
    drops = Counter({r: n for r, n in gateway.status()["drops"].items() if r in reasons})
    assert set(drops) == reasons

    def told() -> Counter[str]:
        found: Counter[str] = Counter()
        for event in gateway.events():
            about = event["properties"]
            if event["operationName"] == "PacketsDropped" and about["reason"] in reasons:
                assert (about["protocol"], about["source"], about["destination"]) == (None,) * 3
                assert about["description"] == SENTENCES[about["reason"]]
                found[about["reason"]] += about["count"]
        return found

    eventually(told, lambda seen: seen == drops)
    lines = gateway.cli("events").stdout
    assert "SourceNotOutside: dropped in the kernel" in lines


def test_a_captures_counters_name_what_it_could_not_see(gateway: Gateway) -> None:
    capture = Capturing(gateway, "--json", "--protocol", "Udp", to=subprocess.PIPE)
    for _ in range(3):
        send(gateway, KINDS["a public IP from outside"])
    capture.process.send_signal(signal.SIGINT)
    output, _ = capture.process.communicate(timeout=60)
    said = json.loads(output)
    assert (said["packets"], said["droppedUnseen"]) == (0, {"SourceNotOutside": 3})
    assert b"ended=request unseen=SourceNotOutside:3" in capture.file.read_bytes()


def test_a_rule_names_its_reason_and_a_new_daemon_counts_from_zero(gateway: Gateway) -> None:
    saved = gateway.net.run("gw", "iptables-save", "-c") + gateway.net.run("gw", "ip6tables-save")
    for reason in {kind.reason for kind in KINDS.values()}:
        assert f"--comment {reason} -j DROP" in saved
    gateway.kill()
    send(gateway, KINDS["a public IP from outside"])  # the rules stand, and nobody counts
    gateway.start()
    status: dict[str, Any] = gateway.status()
    assert status["drops"].get("SourceNotOutside", 0) == 0
    send(gateway, KINDS["a public IP from outside"])
    eventually(lambda: gateway.status()["drops"].get("SourceNotOutside") == 1)
