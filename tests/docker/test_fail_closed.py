"""The gateway's container dies, restarts, comes back: nothing leaves untranslated meanwhile."""

from __future__ import annotations

from tests.docker.lab import DEFAULT, ECHO, PRIVATE, VMS, WEB, Lab, lines
from tests.netns.topology import Capture, eventually

FLOOD = f"""
import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("up", flush=True)
while True:
    for address in ("{WEB}", "{ECHO}"):
        try: out.sendto(b"is it private?", (address, 9))
        except OSError: pass
    time.sleep(0.001)
"""


def assert_nothing(internet: Capture, host: Capture) -> None:
    private = [
        frame
        for frame in internet.packets()
        if "ARP" not in frame and "10.0.1." in frame.show(dump=True)
    ]
    assert lines(private) == []
    assert lines(host.packets()) == []


def test_nothing_leaves_while_the_gateway_is_killed_and_restarted_under_load(lab: Lab) -> None:
    flood = lab.docker.cli(
        "exec", "-d", lab.container("vm1"), "/opt/snatgw/bin/python", "-c", FLOOD
    )
    assert flood == ""
    internet = lab.capture_network("snatgw-internet", f"{PRIVATE} or icmp")
    host = lab.capture("tap0", f"{PRIVATE} or net 198.51.100.0/24 or net 203.0.113.0/24")
    udp = ("flows", "--vm", "vm1", "--remote", f"{WEB}:9")
    assert eventually(lambda: lab.snatgw(*udp))[0]["public"]["ip"] == DEFAULT
    for _ in range(5):
        lab.docker.cli("kill", lab.container("gateway"))
        assert lab.seen_by_the_web("vm3", patience=1) == ""
        lab.docker.cli("start", lab.container("gateway"))
        lab.wait_until_healthy()
    for _ in range(2):
        lab.docker.cli("restart", lab.container("gateway"))
        lab.wait_until_healthy()
        assert eventually(lambda: lab.snatgw(*udp))  # the load is still there
    assert_nothing(internet, host)
    for vm in VMS:
        assert lab.seen_by_the_web(vm) in VMS[vm]
    lab.compose("restart", "vm1")  # and its load with it


def test_a_container_that_forwards_already_is_closed_before_anything_else(lab: Lab) -> None:
    """As on most Docker hosts, from which containers inherit it, without our `sysctls:`."""
    options = ("--network", "none", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    look = (
        "import runpy, subprocess; main = runpy.run_path('/opt/snatgw/docker/entrypoint.py'); "
        "subprocess.run(['ip', 'link', 'add', 'd0', 'type', 'veth', 'peer', 'name', 'd1'], check=True); "
        "path = '/proc/sys/net/ipv4/conf/d0/forwarding'; print(open(path).read()); "
        "main['close'](); print(open(path).read())"
    )
    said = lab.docker.cli(
        *("run", "--rm", *options, "--sysctl", "net.ipv4.ip_forward=1"),
        *("--entrypoint", "/opt/snatgw/bin/python", "snatgw", "-c", look),
    )
    assert said.split() == ["1", "0"]
