"""The compose lab as a stranger meets it: who sees which address, and that there is one way out."""

from __future__ import annotations

import json
import re

import pytest

from tests.docker.lab import DEFAULT, DNS, ECHO, PRIVATE, VMS, WEB, Lab, lines
from tests.netns.topology import eventually

GATEWAY = "10.0.1.1"


@pytest.mark.parametrize("vm", VMS)
def test_the_internet_sees_the_public_address_of_each_vm(lab: Lab, vm: str) -> None:
    assert lab.seen_by_the_web(vm) in VMS[vm]
    answer = lab.run(vm, "nslookup", "myip.opendns.com", "resolver1.opendns.com")
    assert set(re.findall(r"Address: (203\S+)", answer)) <= VMS[vm]
    # by Docker's own resolver, which asks from within the VM
    assert lab.run(vm, "curl", "-s", "-m", "5", "http://web.example/").startswith("You are 203.")


def test_the_flow_table_lists_what_the_vms_do(lab: Lab) -> None:
    for vm in VMS:
        lab.seen_by_the_web(vm)
    flows = lab.snatgw("flows", "--remote", f"{WEB}:80")
    methods = {flow["vm"]: flow["method"] for flow in flows}
    expected = {
        "vm1": "DefaultOutboundAccess",
        "vm2": "LoadBalancer",
        "vm3": "InstanceLevelPublicIP",
    }
    assert methods == expected
    for flow in flows:
        assert flow["public"]["ip"] in VMS[flow["vm"]]


def test_the_log_shows_the_flow_table_and_the_vms_at_work(lab: Lab) -> None:
    log = eventually(lambda: lab.compose("logs"), lambda text: "DefaultOutboundAccess" in text)
    assert re.search(r"watch_1 +\| +ID +PROTO +STATE", log)
    assert f"You are {DEFAULT}" in eventually(lambda: lab.compose("logs", "vm1"))

    def latest() -> list[str]:
        """The last thing that each VM said of each of its doings."""
        said = re.findall(r"^(vm\d)_1 +\| (web|dns|echo): (.*)", lab.compose("logs"), re.M)
        return list({(vm, doing): line for vm, doing, line in said}.values())

    found = eventually(latest, lambda lines: not any("fails" in line for line in lines))
    assert len(found) == 9


def test_a_vm_needs_no_capability_and_its_default_route_is_the_gateway(lab: Lab) -> None:
    for vm in VMS:
        assert lab.run(vm, "ip", "route", "show", "default").split()[:3] == [
            "default", "via", GATEWAY,
        ]  # fmt: skip
        assert "CapBnd:\t0000000000000000" in lab.run(vm, "cat", "/proc/1/status")
        assert lab.run(vm, "id", "-u").strip() != "0"


def test_there_is_one_way_out(lab: Lab) -> None:
    """By capture: on the VNet's bridge what leaves the network is for the gateway's interface; the
    internet sees nothing private; and nothing at all comes to the Docker host."""
    inside = lab.snatgw("status")[0]["inside"][0]
    gateway = lab.run("gateway", "cat", f"/sys/class/net/{inside}/address").strip()
    vnet = lab.capture_network("snatgw-vnet", "ip")
    internet = lab.capture_network("snatgw-internet", f"ip and ({PRIVATE} or icmp)")
    host = lab.capture("tap0", f"{PRIVATE} or net 198.51.100.0/24 or net 203.0.113.0/24")
    dashboard = lab.capture_network("snatgw-dashboard", PRIVATE)
    for vm in VMS:
        assert lab.seen_by_the_web(vm)
        # somewhere else, where only Docker's host could know a way to
        assert lab.run(vm, "curl", "-s", "-m", "1", "http://192.0.2.80/", status=None) == ""
    crossed = vnet.packets()
    leaving = [frame for frame in crossed if not frame["IP"].dst.startswith("10.0.1.")]
    assert {frame.dst for frame in leaving} == {gateway}
    assert {frame["IP"].src for frame in leaving} == {"10.0.1.4", "10.0.1.5", "10.0.1.6"}
    assert {"192.0.2.80", WEB} <= {frame["IP"].dst for frame in leaving}
    assert [frame for frame in internet.packets() if "10.0.1." in str(frame.show(dump=True))] == []
    assert lines(host.packets()) == []
    assert lines(dashboard.packets()) == []
    for network in ("snatgw-vnet", "snatgw-internet"):
        bridge = lab.docker.bridge(network)
        assert "inet " not in lab.docker.host("ip", "-4", "address", "show", "dev", bridge)


@pytest.mark.parametrize("passes", ["0", "1"])
def test_it_works_whether_bridged_packets_pass_the_hosts_rules_or_not(
    lab: Lab, passes: str
) -> None:
    """br_netfilter: Docker and Kubernetes turn it on."""
    setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    lab.docker.host("sh", "-c", "[ -e $0 ] || modprobe br_netfilter", setting)
    before = lab.docker.host("cat", setting).strip()
    lab.docker.host("sh", "-c", f"echo {passes} >{setting}")
    try:
        for vm in VMS:
            assert lab.seen_by_the_web(vm) in VMS[vm]
    finally:
        lab.docker.host("sh", "-c", f"echo {before} >{setting}")


def test_icmp_passes_as_azure_has_it(lab: Lab) -> None:
    assert " 0% packet loss" in lab.run("vm3", "ping", "-c1", "-W2", ECHO)
    assert " 100% packet loss" in lab.run("vm1", "ping", "-c1", "-W1", ECHO, status=1)
    # again if need be: hosts answer only so many probes a second
    eventually(
        lambda: lab.run("vm1", "traceroute", "-n", "-q1", "-w1", "-m3", ECHO),
        lambda route: re.search(r"^ 2  198\.51\.100\.7 ", route, re.M),
    )


def test_the_documented_command_exhausts_a_vm(lab: Lab) -> None:
    exhaust = lab.start("vm1", "exhaust", "--hold", "600")
    assert exhaust.stdout is not None
    try:
        printed = [exhaust.stdout.readline() for _ in range(2)]
        assert re.match(r"1,0[12]\d are open; failed: \d\d timeout", printed[1]), printed
        (ports,) = [
            record for record in lab.snatgw("ports", "--vm", "vm1") if record["protocol"] == "Tcp"
        ]
        assert (ports["used"], ports["free"]) == (1024, 0)
        events = [event["properties"] for event in lab.snatgw("events")]
        assert any(
            event.get("eventDescription") == "Ports exhausted" and event["vm"] == "vm1"
            for event in events
        )
        # everybody else goes on, and vm1 toward other addresses
        for vm in VMS:
            assert lab.seen_by_the_web(vm) in VMS[vm]
    finally:
        # the client of Docker does not pass signals on: end it where it runs
        end = "for p in /proc/[0-9]*; do grep -q exhaus[t] $p/cmdline && kill ${p#/proc/}; done"
        lab.run("vm1", "sh", "-c", end, status=None)
        exhaust.wait(60)
    assert "connections reset" in exhaust.stdout.read()
    exhaust.stdout.close()


def test_the_dashboard_is_on_the_hosts_loopback_and_asks_for_its_token(lab: Lab) -> None:
    listening = lab.docker.host("ss", "-Hltn").split()
    assert [end for end in listening if end.endswith(":8480")] == ["127.0.0.1:8480"]
    status = "http://127.0.0.1:8480/v1/status"
    curl = ("curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}")
    assert lab.docker.host(*curl, status) in ("401", "403")
    printed = eventually(
        lambda: re.search(r"http://127.0.0.1:8480/\?token=(\S+)", lab.compose("logs", "gateway"))
    )
    header = f"Authorization: Bearer {printed[1]}"
    told = json.loads(lab.docker.host("curl", "-s", "-m", "10", "-H", header, status))
    assert told["publicIps"] == sorted(set().union(*VMS.values()))
    metrics = "http://127.0.0.1:8480/metrics"  # as docker/prometheus scrapes it
    assert "snatgw_flows" in lab.docker.host("curl", "-s", "-m", "10", "-H", header, metrics)


def test_a_changed_file_is_applied_without_losing_a_flow(lab: Lab) -> None:
    file = lab.project / "docker" / "config" / "gateway.yaml"
    before = file.read_text()
    (open_flow,) = lab.snatgw(
        "flows", "--vm", "vm1", "--remote", f"{ECHO}:7", "--state", "Established"
    )
    try:
        file.write_text(before.replace("icmpEcho: drop", "") .replace(
            "  timeScale: 5 ", "  icmpEcho: translate\n  timeScale: 5 "
        ))  # fmt: skip
        lab.run("gateway", "snatgw", "reload")
        assert " 0% packet loss" in lab.run("vm1", "ping", "-c1", "-W2", ECHO)
    finally:
        file.write_text(before)
        lab.run("gateway", "snatgw", "reload")
    assert open_flow["id"] in {flow["id"] for flow in lab.snatgw("flows", "--vm", "vm1")}


def test_names_are_asked_for_through_the_gateway(lab: Lab) -> None:
    lab.run("vm3", "nslookup", "web.example")
    flows = lab.snatgw("flows", "--vm", "vm3", "--remote", f"{DNS}:53")
    assert {flow["protocol"] for flow in flows} == {"Udp"}
