"""``/metrics`` of a real gateway: what Prometheus reads there, checked by Prometheus's own tool."""

from __future__ import annotations

import subprocess

import httpx

from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually
from tests.unit.daemon.scraping import Samples, samples, value

FLOWS = 64_000
MEGABYTE = 1_000_000


def scrape(gateway: Gateway) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(gateway.api)), timeout=60) as client:
        response = client.get("http://snatgw/metrics")
    assert response.status_code == 200, response.text
    return response.text


def carried(found: Samples, public_ip: str) -> dict[str, float]:
    labels = {"public_ip": public_ip, "protocol": "Tcp"}
    return {
        f"{what} {direction}": value(
            found, f"snatgw_traffic_{what}_total", **labels, direction=direction
        )
        for direction in ("outbound", "inbound")
        for what in ("packets", "bytes")
    }


class Wire:
    """TCP to and from a public IP as the internet counts it: netfilter's own counters there."""

    def __init__(self, net: Topology, *addresses: str) -> None:
        self._net = net
        for host in ("vm1", "vm3", "internet"):  # one segment, one packet, whoever forwards
            net.run(host, *["ethtool", "-K", "eth0", "gro", "off", "tso", "off", "gso", "off"])
        for address in addresses:
            rule = f"iptables -t raw -A {{}} -p tcp {{}} {address}".format
            net.run("internet", *rule("PREROUTING", "-s").split())
            net.run("internet", *rule("OUTPUT", "-d").split())
            flags = ["--tcp-flags", "FIN,SYN,RST,ACK", "SYN"]
            net.run("internet", *rule("PREROUTING", "-s").split(), *flags)

    def _counters(self, chain: str) -> list[list[str]]:
        listing = self._net.run("internet", "iptables", "-t", "raw", "-nvxL", chain)
        return [line.split() for line in listing.splitlines()[2:]]

    def carried(self, address: str) -> dict[str, float]:
        (sent, _) = [c for c in self._counters("PREROUTING") if address in c]
        (received,) = [c for c in self._counters("OUTPUT") if address in c]
        return {
            f"{what} {direction}": int(line[position])
            for direction, line in (("outbound", sent), ("inbound", received))
            for position, what in enumerate(("packets", "bytes"))
        }

    def syns(self, address: str) -> int:
        return int([c for c in self._counters("PREROUTING") if address in c][1][0])


def test_traffic_is_what_crossed_the_wire(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    wire = Wire(fresh, DEFAULT, INSTANCE)
    vm1, vm3 = fresh.client("vm1"), fresh.client("vm3")
    assert vm1.upload(SERVER, MEGABYTE)
    assert vm3.upload(SERVER2, MEGABYTE)
    vm1.open(1030, SERVER2)  # of 1,024 ports
    vm1_ports = {"vm": "vm1", "protocol": "Tcp"}
    failures = {"connection_state": "failed", **vm1_ports}
    found = eventually(
        lambda: samples(scrape(gateway)),
        lambda seen: value(seen, "snatgw_snat_connections_total", **failures) >= 6,
    )
    assert value(found, "snatgw_snat_used_ports", **vm1_ports) == 1024
    assert value(found, "snatgw_snat_usage_ratio", **vm1_ports) == 1

    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(gateway), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")

    eventually(lambda: vm1.connections()["connected"], lambda n: n == 1024)
    assert vm1.talk() == 1024
    vm1.close()
    for public, connections in ((DEFAULT, 1025), (INSTANCE, 1)):
        # Once all that is under way has arrived, both have the same.
        eventually(
            lambda public=public: (carried(samples(scrape(gateway)), public), wire.carried(public)),  # type: ignore[misc]
            lambda pair: pair[0] == pair[1],
        )
        labels = {"public_ip": public, "direction": "outbound"}
        syns = value(samples(scrape(gateway)), "snatgw_traffic_syn_packets_total", **labels)
        assert syns == wire.syns(public) >= connections
        assert wire.carried(public)["bytes outbound"] > MEGABYTE
    assert gateway.losses() == {}


def test_a_scrape_of_64000_flows_stalls_no_packet(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1, vm2 = fresh.client("vm1"), fresh.client("vm2")
    assert vm1.scatter(FLOWS, "198.19.0.0/16", pace_by=SERVER) == FLOWS // 250
    vm2.keep_asking(SERVER2)
    totals = []
    for _ in range(10):
        found = samples(scrape(gateway))
        totals.append(value(found, "snatgw_traffic_packets_total"))
    assert value(found, "snatgw_flows", method="DefaultOutboundAccess", protocol="Udp") > FLOWS
    assert totals == sorted(totals)
    (count,) = vm2.stop()
    assert count["sent"] == count["answered"]
    assert gateway.losses() == {}
