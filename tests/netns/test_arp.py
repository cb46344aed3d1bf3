"""Who has a public IP: neighbours are told by ARP, and those that ask first are answered."""

from __future__ import annotations

import pytest

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.networks import wire_outside
from tests.netns.topology import OUTSIDE, SERVER, Capture, Topology, eventually

PUBLICS = {DEFAULT, *FRONTENDS, INSTANCE}
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0x0806)); s.settimeout(0.2)
own, none = s.getsockname()[4], bytes(4)
head = b"\\xff" * 6 + own + bytes.fromhex("08060001080006040001")
for _ in range(5):
    s.send(head + own + none + bytes(6) + socket.inet_aton(sys.argv[1]) + bytes(18))
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        try:
            frame = s.recv(100)
        except OSError:
            continue
        if frame[20:22] == b"\\0\\2" and frame[28:32] == socket.inet_aton(sys.argv[1]):
            print(frame[22:28].hex(":"), frame[0:6] == own)
            sys.exit()
print("free")
"""


def hardware(net: Topology) -> str:
    return net.run("gw", "cat", "/sys/class/net/wan0/address").strip()


def announced(wire: Capture) -> dict[str, list[str]]:
    """How often each address was announced, by which hardware address."""
    found: dict[str, list[str]] = {}
    for frame in wire.packets():
        arp = frame["ARP"]
        assert (arp.op, arp.hwdst) == (1, "00:00:00:00:00:00")
        assert (frame.dst, frame.src) == ("ff:ff:ff:ff:ff:ff", arp.hwsrc)
        found.setdefault(arp.psrc, []).append(arp.hwsrc)
    return found


def listen(net: Topology) -> Capture:
    """For announcements: sender and target are the same."""
    return net.capture("internet", "eth0", "arp and arp[14:4] = arp[24:4]")


def heard(net: Topology, gateway: Gateway, number: int) -> None:
    """So many announcements were sent."""
    eventually(lambda: gateway.status()["host"]["announced"], lambda seen: seen >= number)


def test_public_ips_are_announced_at_start_and_takeover(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    for _ in range(2):
        wire = listen(fresh)
        gateway.start()
        heard(fresh, gateway, 8)
        seen = announced(wire)
        assert seen == {address: [hardware(fresh)] * 2 for address in PUBLICS}
        gateway.kill()


def test_a_neighbour_that_knew_another_owner_learns_at_once(fresh: Topology) -> None:
    """As after a takeover by another host: its entry would stand for minutes."""
    fresh.ip("internet", f"neigh replace {DEFAULT} lladdr 02:00:00:00:00:99 dev eth0 nud reachable")
    gateway = Gateway(fresh)
    gateway.start()
    assert fresh.client("vm1").peer("Udp", SERVER, patience=5).startswith(f"{DEFAULT}:")
    assert gateway.stop() == 0


@pytest.mark.parametrize("how", ["carrier", "address", "anew"])
def test_they_are_announced_again_when_the_interface_is_another(fresh: Topology, how: str) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    heard(fresh, gateway, 8)
    if how == "anew":
        fresh.ip("gw", "link del wan0")
        wire_outside(fresh)
        wire = listen(fresh)
    else:
        wire = listen(fresh)
        if how == "carrier":
            fresh.ip("internet", "link set eth0 down")
            eventually(lambda: "NO-CARRIER" in fresh.ip("gw", "link show wan0"))
            eventually(lambda: gateway.status()["host"]["carrier"] is False)
            fresh.ip("internet", "link set eth0 up")
        else:
            fresh.ip("gw", "link set wan0 address 02:00:00:00:00:07")
    heard(fresh, gateway, 16)
    seen = announced(wire)
    assert seen.keys() == PUBLICS
    assert {owner for owners in seen.values() for owner in owners} == {hardware(fresh)}
    assert gateway.stop() == 0


def test_a_public_ip_that_a_reload_adds_is_announced(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    heard(fresh, gateway, 8)
    wire = listen(fresh)
    publics = gateway.configuration["publicIPAddresses"]
    publics.append({"name": "pip-new", "ipAddress": "203.0.113.77"})
    gateway.reload()
    heard(fresh, gateway, 10)
    assert announced(wire) == {"203.0.113.77": [hardware(fresh)] * 2}
    assert gateway.stop() == 0


def test_who_asks_whether_an_address_is_free_is_answered(fresh: Topology) -> None:
    assert fresh.python("internet", ASK, DEFAULT).strip() == "free"
    gateway = Gateway(fresh)
    gateway.start()
    for address in sorted(PUBLICS):
        assert fresh.python("internet", ASK, address).split() == [hardware(fresh), "True"]
    assert fresh.python("internet", ASK, "203.0.113.99").strip() == "free"
    fresh.ip("gw", "link del wan0")
    wire_outside(fresh)
    eventually(lambda: fresh.python("internet", ASK, DEFAULT).split() == [hardware(fresh), "True"])
    assert gateway.stop() == 0


def test_pings_of_the_host_itself_outlive_the_daemon(fresh: Topology) -> None:
    ping = ("ping", "-c", "1", "-W", "5", SERVER)
    gateway = Gateway(fresh)
    gateway.start()
    assert "1 received" in fresh.run("gw", *ping)
    gateway.kill()
    assert "1 received" in fresh.run("gw", *ping)
    assert "1 received" in fresh.run("internet", "ping", "-c", "1", "-W", "5", OUTSIDE)
    gateway.start()
    assert gateway.stop() == 0
