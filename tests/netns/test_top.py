"""``snatgw top`` in a terminal, driven by keys, over a daemon with real traffic."""

from __future__ import annotations

import re
import sys

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.terminal import Terminal
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

PORTS = 1024
CHATTER = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("{to}", 7))
s.settimeout(1)
print("up", flush=True)
while True:
    s.send(bytes(1000))
    try: s.recv(2000)
    except TimeoutError: pass
    time.sleep(0.02)
"""
"""50 datagrams of 1,028 bytes a second at most, and as many back."""


def top(net: Topology, gateway: Gateway, *arguments: str, colours: bool = True) -> Terminal:
    command = (sys.executable, "-m", "gateway", "top", "--api", str(gateway.api), *arguments)
    environment = () if colours else ("NO_COLOR=1",)
    return Terminal(net.directory, *command, environment=environment)


def chatter(net: Topology, vm: str, to: str) -> None:
    process = net.start(vm, sys.executable, "-c", CHATTER.format(to=to))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


def test_watching_a_vm_run_out_of_ports(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    chatter(fresh, "vm2", SERVER2)
    vm1 = fresh.client("vm1")
    with top(fresh, gateway) as terminal:
        # what carries most stands first, with its rates (fewer datagrams on a busy machine)
        flow = terminal.until(lambda seen: re.search(r"^Udp .* \d\d\.\dk +\d\d\.\dk", seen, re.M))
        row = next(line for line in flow.splitlines() if line.startswith("Udp"))
        assert row.split()[2] == "vm2"
        assert row.split()[4] == f"{SERVER2}:7"
        assert max(map(len, flow.splitlines())) <= 80
        assert "q Quit" in terminal.shows("q Quit").splitlines()[23]

        vm1.open(PORTS + 200, SERVER)
        bar = terminal.until(lambda seen: f"{PORTS}/{PORTS}" in seen and "Ports exhausted" in seen)
        line = next(line for line in bar.splitlines() if f"{PORTS}/{PORTS}" in line)
        vm, public, protocol, drawn, _, high, cooling, failed = line.split()
        assert (vm, public, protocol) == ("vm1", DEFAULT, "Tcp")
        assert set(drawn) == {"█"}
        assert (int(high), int(cooling)) == (PORTS, 0)
        assert int(failed) >= 200
        assert "vm1 has no Tcp port left" in bar
        terminal.shows("PortsExhausted")

        terminal.press("/")
        terminal.type("vm1 tcp")
        terminal.shows(f'{PORTS:,} of {PORTS + 1:,} match "vm1 tcp"; the first 200')
        terminal.press("Enter")
        terminal.press("p")
        terminal.shows("PAUSED")
        terminal.press("p")
        terminal.until(lambda seen: "PAUSED" not in seen)
        terminal.press("Enter")
        terminal.shows("DefaultOutboundAccess", "Established; Tcp, Outbound", f"{SERVER}:7")
        terminal.press("Escape")
        terminal.until(lambda seen: "DefaultOutboundAccess" not in seen)
        terminal.press("Escape")
        terminal.until(lambda seen: "match" not in seen)

        vm1.reset(PORTS)
        terminal.until(lambda seen: re.search(rf"^vm1 .*▓+ +{PORTS}/{PORTS} ", seen, re.M))

        terminal.press("q")
        eventually(lambda: terminal.ended)
    assert gateway.losses() == {}
    assert gateway.stop() == 0


def test_the_daemon_goes_and_comes_back(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    chatter(fresh, "vm3", SERVER)
    with top(fresh, gateway, "--sort", "vm") as terminal:
        terminal.shows("vm3", "by vm ▲")
        gateway.kill()
        terminal.shows("no daemon: trying again", "vm3")
        gateway.start()
        seen = terminal.shows("the daemon is back")
        assert "trying again" not in seen
        terminal.shows("Started")
        terminal.press("q")
        eventually(lambda: terminal.ended)
    assert gateway.stop() == 0


def test_no_color_means_none(town: Gateway) -> None:
    with top(town.net, town) as terminal:
        terminal.shows("SNAT PORTS")
        assert _colours(terminal.screen(colours=True))
    with top(town.net, town, colours=False) as terminal:
        terminal.shows("SNAT PORTS")
        assert _colours(terminal.screen(colours=True)) == set()


def _colours(screen: str) -> set[str]:
    """The codes that set a colour; 39 and 49 take it back, below 30 is bold and the like."""
    codes = {code for group in re.findall(r"\x1b\[([\d;]*)m", screen) for code in group.split(";")}
    return {code for code in codes if code and int(code) >= 30} - {"39", "49"}
