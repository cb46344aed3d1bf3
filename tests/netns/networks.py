"""Every network that the tests build: who is in it, by which interface and with which address.

``Namespaces`` (``datapath/topology.py``) makes namespaces and wires; here is what is made of them.
Whole networks first, then what is added to one of these. ``gw`` is always the gateway's host.
"""

from __future__ import annotations

from tests.netns.datapath.topology import Namespaces

# -- the usual network
VMS = {"vm1": "10.0.1.4", "vm2": "10.0.1.5", "vm3": "10.0.1.6"}
INSIDE, OUTSIDE, ROUTER, NARROW = "10.0.1.1", "203.0.113.1", "203.0.113.254", "198.18.0.2"
SERVER, SERVER2, SERVER3, FAR = "198.51.100.1", "198.51.100.2", "192.0.2.1", "198.18.1.2"

# -- the small one
VM, VM2, REMOTE = "10.0.1.4", "10.0.1.5", "203.0.113.2"

# -- what is added
OTHER = "192.168.50.2"
CONTAINER = "172.17.0.2"
SERVER9 = "198.18.9.254"


def build_usual(net: Namespaces) -> None:
    """What most tests play in.

    vm1 10.0.1.4 ─┐                                                    198.51.100.1
    vm2 10.0.1.5 ─┼─ lan ─ lan0 gw wan0 ──────────── eth0 internet  ── 198.51.100.2
    vm3 10.0.1.6 ─┘    10.0.1.1    203.0.113.1  203.0.113.254     │    192.0.2.1
                                                       far0 198.18.0.1
                                                                  │  MTU 1280
                                                       eth0 198.18.0.2 narrow ── far 198.18.1.2

    ``lan`` is a bridge, ``internet`` a router. Its route to 10.0.0.0/8 leads to the gateway: what
    left untranslated could be answered, so that it would show.
    """
    net.add(*VMS, "lan", "gw", "internet", "narrow", "far")
    net.ip("lan", "link add br0 type bridge")
    net.ip("lan", "link set br0 up")
    wire_inside(net)
    wire_outside(net)
    net.wire("internet/far0 198.18.0.1/24", f"narrow/eth0 {NARROW}/24")
    net.wire("narrow/eth1 198.18.1.1/24", f"far/eth0 {FAR}/24")
    for vm, address in VMS.items():
        net.wire(f"{vm}/eth0 {address}/24", f"lan/{vm}")
        net.ip(vm, f"route add default via {INSIDE}")
    for port in ("gw", *VMS):
        net.ip("lan", f"link set {port} master br0")
    for address in (SERVER, SERVER2, SERVER3):
        net.ip("internet", f"addr add {address}/32 dev lo")
    net.ip("internet", f"route add 10.0.0.0/8 via {OUTSIDE}")
    net.ip("internet", "route add blackhole 198.19.0.0/16")
    net.ip("internet", f"route add {FAR} via {NARROW}")
    net.ip("narrow", "route add default via 198.18.0.1")
    net.ip("far", "route add default via 198.18.1.1")
    for router in ("internet", "narrow"):
        net.sysctl(router, "net/ipv4/conf/all/forwarding", "1")
    net.ip("gw", f"route add default via {ROUTER}")
    for namespace, interface in (("internet", "far0"), ("narrow", "eth0")):
        net.ip(namespace, f"link set {interface} mtu 1280")


def wire_inside(net: Namespaces) -> None:
    """The usual inside interface; also once it was deleted."""
    net.wire(f"gw/lan0 {INSIDE}/24", "lan/gw")


def wire_outside(net: Namespaces) -> None:
    """The usual outside interface, likewise."""
    net.wire(f"gw/wan0 {OUTSIDE}/24", f"internet/eth0 {ROUTER}/24")


def build_small(net: Namespaces) -> None:
    """For the diversion by itself.

    vm 10.0.1.4 ─ lan0 10.0.1.1 gw 203.0.113.1 wan0 ─ 203.0.113.2 remote

    The remote's route to the VM is a trap: whatever leaves untranslated could be answered.
    """
    net.add("vm", "gw", "remote")
    net.wire(f"gw/lan0 {INSIDE}/24", f"vm/eth0 {VM}/24")
    wire_small_outside(net)
    net.ip("vm", f"route add default via {INSIDE}")
    net.ip("remote", f"route add 10.0.0.0/16 via {OUTSIDE}")


def wire_small_outside(net: Namespaces) -> None:
    """The small network's outside interface; also once it was deleted."""
    net.wire(f"gw/wan0 {OUTSIDE}/24", f"remote/eth0 {REMOTE}/24")


def build_bridged(net: Namespaces, *, netfilter_sees_frames: bool) -> None:
    """As the small one, with a bridge of the host as inside interface.

    vm  10.0.1.4 ─ vm ──┐
                        br0 10.0.1.1 gw 203.0.113.1 wan0 ─ 203.0.113.2 remote
    vm2 10.0.1.5 ─ vm2 ─┘
    """
    net.add("vm", "vm2", "gw", "remote")
    net.sysctl("gw", "net/bridge/bridge-nf-call-iptables", "1" if netfilter_sees_frames else "0")
    net.ip("gw", "link add br0 type bridge mcast_snooping 0")
    net.ip("gw", f"addr add {INSIDE}/24 dev br0")
    net.ip("gw", "link set br0 up")
    for vm, address in (("vm", VM), ("vm2", VM2)):
        net.wire(f"gw/{vm}", f"{vm}/eth0 {address}/24")
        net.ip("gw", f"link set {vm} master br0")
        net.ip(vm, f"route add default via {INSIDE}")
    wire_small_outside(net)
    net.ip("remote", f"route add 10.0.0.0/16 via {OUTSIDE}")


def add_second_inside(net: Namespaces) -> None:
    """``vm2 10.1.1.4 ─ lan1 10.1.1.1 gw``; vm2 has no route yet."""
    net.add("vm2")
    net.wire("gw/lan1 10.1.1.1/24", "vm2/eth0 10.1.1.4/24")


def add_second_outside(net: Namespaces) -> None:
    """``gw 198.51.100.1 wan1 ─ 198.51.100.2 remote2``."""
    net.add("remote2")
    net.wire("gw/wan1 198.51.100.1/24", "remote2/eth0 198.51.100.2/24")


def add_third_network(net: Namespaces) -> None:
    """Another network of the gateway's host, which forwards for it, beside the usual ones.

    gw 192.168.50.1 dmz0 ─ dmz 192.168.50.2 narrow
    """
    net.wire("gw/dmz0 192.168.50.1/24", f"narrow/dmz {OTHER}/24")
    net.sysctl("gw", "net/ipv4/conf/dmz0/forwarding", "1")
    net.ip("narrow", "route add 203.0.113.0/24 via 192.168.50.1")


def add_container(net: Namespaces) -> None:
    """A container behind a bridge of the gateway's host, as Docker makes it, without its rules.

    gw 172.17.0.1 docker0 ─ veth1 ─ 172.17.0.2 container
    """
    net.add("container")
    net.ip("gw", "link add docker0 type bridge")
    net.ip("gw", "addr add 172.17.0.1/16 dev docker0")
    net.ip("gw", "link set docker0 up")
    net.wire("gw/veth1", f"container/eth0 {CONTAINER}/16")
    net.ip("gw", "link set veth1 master docker0")
    net.ip("container", "route add default via 172.17.0.1")


def add_second_gateways(net: Namespaces) -> None:
    """What a second gateway on the same host stands between.

    vm9 10.9.1.4 ─ lan9 10.9.1.1 gw 198.18.9.1 wan9 ─ 198.18.9.254 internet9
    """
    net.add("vm9", "internet9")
    net.wire("gw/lan9 10.9.1.1/24", "vm9/eth0 10.9.1.4/24")
    net.wire("gw/wan9 198.18.9.1/24", f"internet9/eth0 {SERVER9}/24")
    net.ip("vm9", "route add default via 10.9.1.1")
    net.ip("internet9", "route add 10.0.0.0/8 via 198.18.9.1")
