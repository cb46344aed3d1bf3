"""What the probes say of real hosts, and that they leave nothing behind."""

from __future__ import annotations

import json
import sys

from tests.netns.datapath.conftest import READ_ONLY, Gateway, host_state
from tests.netns.datapath.topology import Namespaces

PROBE = """
import json, sys
from ipaddress import IPv4Address, IPv4Network
from gateway.datapath.host.host_probes import probe
a = json.loads(sys.argv[1])
found = probe(a["inside"], a["outside"], map(IPv4Address, a["publics"]), map(IPv4Network, a["prefixes"]))
print(json.dumps([[f.name, f.ok, f.stops, f.sentence] for f in found]))
"""


def probe(net: Namespaces, prelude: str = "true", **changes: object) -> dict[str, list[str]]:
    """Sentences by what they mean: ``stops``, ``worse`` (not essential), ``told``, ``good``."""
    asked = {
        "inside": ["lan0"],
        "outside": "wan0",
        "publics": ["203.0.113.10"],
        "prefixes": ["10.0.0.0/16"],
    } | changes
    said = net.python("gw", PROBE, json.dumps(asked), before=prelude)
    sentences: dict[str, list[str]] = {"stops": [], "worse": [], "told": [], "good": []}
    for _, ok, stops, sentence in json.loads(said):
        kind = "stops" if stops else {None: "told", False: "worse", True: "good"}[ok]
        sentences[kind].append(sentence)
    return sentences


def test_a_host_that_has_everything(net: Namespaces) -> None:
    before = host_state(net)
    said = probe(net)
    assert said["stops"] == said["worse"] == []
    assert "wan0 can answer for 203.0.113.10" in said["good"]
    assert host_state(net) == before


def test_an_interface_that_is_not_there(net: Namespaces) -> None:
    assert probe(net, inside=["lan7"])["stops"] == [
        "lan7: there is no such interface (gateway.inside)"
    ]


def test_an_interface_that_is_down(net: Namespaces) -> None:
    net.ip("gw", "link set lan0 down")
    assert probe(net)["stops"] == ["lan0 is down: ip link set lan0 up"]


def test_no_privileges(net: Namespaces) -> None:
    said = probe(net, prelude='set -- capsh --drop=cap_net_admin -- -c \'exec "$@"\' sh "$@"')
    assert said["stops"] == ["this process lacks CAP_NET_ADMIN: run it as root"]


def test_a_public_ip_that_is_the_hosts_own(net: Namespaces) -> None:
    (sentence,) = probe(net, publics=["203.0.113.1"])["stops"]
    assert sentence.startswith("203.0.113.1 is this host's own address on wan0")


def test_a_public_ip_off_the_outside_network_is_the_routers_business(net: Namespaces) -> None:
    said = probe(net, publics=["192.0.2.77"])
    assert said["stops"] == []
    assert [line for line in said["told"] if line.startswith("192.0.2.77 is in no network of wan0")]


def test_an_outside_network_in_the_virtual_network(net: Namespaces) -> None:
    said = probe(net, prefixes=["10.0.0.0/16", "203.0.0.0/16"])["stops"]
    assert [line.partition(",")[0].partition(":")[0] for line in said] == [
        "203.0.113.10 is a public IP and in the virtual network (203.0.0.0/16)",
        "wan0 is in 203.0.113.0/24",
    ]


def test_a_read_only_proc_sys_stops_nobody_who_may_administer_the_network(net: Namespaces) -> None:
    """As in a container: the same settings go by netlink."""
    before = host_state(net)
    said = probe(net, prelude=READ_ONLY)
    assert said["stops"] == []
    for name in ("lan0", "wan0"):
        sentence = f"net.ipv4.conf.{name}.forwarding will be set to 1 while the gateway runs"
        assert sentence in said["good"]
    assert host_state(net) == before


def test_a_running_gateway_is_mentioned(net: Namespaces) -> None:
    Gateway(net)
    assert "wan0 belongs to a gateway that runs now" in probe(net)["told"]


def test_what_a_killed_probe_left_is_removed_and_nobody_elses(net: Namespaces) -> None:
    """A gateway's chains are named after its outside interface, which may be called ``probe4000000``."""
    chains = {
        "snatgw-probe4000000-fwd": True,  # a gateway's
        "snatgw-probe-0123456789ab-ok": False,  # a killed probe's
        "snatgw-probe-ba9876543210-ok": True,  # of a probe that is at it
    }
    for chain in chains:
        net.run("gw", "iptables", "-t", "mangle", "-N", chain)
    hold = (
        "from gateway.datapath.host.interface_lock import InterfaceLocks\n"
        "c = InterfaceLocks(['probe-ba9876543210']); print('held', flush=True); input()"
    )
    holder = net.start("gw", sys.executable, "-c", hold)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert probe(net)["stops"] == []
    left = net.run("gw", "iptables", "-t", "mangle", "-S")
    assert {chain: chain in left for chain in chains} == chains
    assert left.count("snatgw-probe") == 2


def test_rules_that_the_fast_path_skips_are_told(net: Namespaces) -> None:
    others = "iptables -t mangle -A FORWARD -i eth9 -j MARK --set-mark 5"
    net.run("gw", *others.split())
    assert not [line for line in probe(net)["told"] if "fast path" in line]
    clamp = (
        "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
    )
    net.run("gw", *clamp.split())
    net.run(
        "gw",
        "nft",
        "table ip t { chain c { type filter hook forward priority 0; meta mark set 7; }; }",
    )
    (told,) = [line for line in probe(net)["told"] if "fast path" in line]
    assert "iptables's table mangle, chain FORWARD: -A FORWARD -p tcp" in told
    assert "and 1 more): gateway.fastPath = off" in told
