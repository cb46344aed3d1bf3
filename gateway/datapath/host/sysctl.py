"""Per-interface IPv4 settings over netlink, for where ``/proc/sys`` is read-only.

Docker mounts ``/proc/sys`` read-only unless a container is privileged. The kernel takes the same
settings over rtnetlink from a process with CAP_NET_ADMIN in the network namespace
(``IFLA_INET_CONF``, ``RTM_SETNEIGHTBL``), so a gateway in a container needs no help to open
``forwarding`` before its rules stand. Through ``/proc`` the kernel also turns off large receive
offload of a forwarding interface; here it does not, so ``/proc`` comes first
(``addresses_and_routes.write_sysctl``). The messages are packed by hand: pyroute2 reads these
attributes and does not write them.
"""

from __future__ import annotations

import os
import socket
import struct

from gateway.datapath.host.netlink import NESTED, ask, attribute, attributes, dump

_RTM_SETLINK, _RTM_SETNEIGHTBL, _RTM_GETNETCONF = 19, 67, 82  # linux/rtnetlink.h
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2  # linux/netconf.h
ALL = -1
"""Stands for the host's own switch, ``net.ipv4.ip_forward``."""
_NLM_F_REPLACE = 0x100  # linux/netlink.h
_IFLA_AF_SPEC, _IFLA_INET_CONF = 26, 1  # linux/if_link.h
_CONF = {"forwarding": 1, "rp_filter": 8}  # IPV4_DEVCONF_… of linux/ip.h
_NDTA_NAME, _NDTA_PARMS = 1, 6  # linux/neighbour.h
_NDTPA_IFINDEX, _NDTPA_PROXY_DELAY = 1, 13
_USER_HZ = os.sysconf("SC_CLK_TCK")


def write(interface: str, name: str, value: int) -> None:
    """Set ``forwarding``, ``rp_filter`` or ``proxy_delay``, in the units of ``/proc/sys``.

    Raises OSError as the kernel does, ``ENODEV`` without such an interface.
    """
    index = socket.if_nametoindex(interface)
    if name == "proxy_delay":
        milliseconds = value * 1000 // _USER_HZ
        parameters = attribute(_NDTPA_IFINDEX, struct.pack("=I", index)) + attribute(
            _NDTPA_PROXY_DELAY, struct.pack("=Q", milliseconds)
        )
        table = attribute(_NDTA_NAME, b"arp_cache\0")
        header = struct.pack("=BBH", socket.AF_INET, 0, 0)
        body = header + table + attribute(_NDTA_PARMS | NESTED, parameters)
        ask(_RTM_SETNEIGHTBL, _NLM_F_REPLACE, body)
        return
    setting = attribute(_CONF[name], struct.pack("=I", value))
    family = attribute(socket.AF_INET | NESTED, attribute(_IFLA_INET_CONF | NESTED, setting))
    header = struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, 0, 0)
    ask(_RTM_SETLINK, 0, header + attribute(_IFLA_AF_SPEC | NESTED, family))


def forwarding() -> set[int]:
    """Indices of the interfaces that forward IPv4, and ``ALL``. Raises OSError."""
    found = set()
    header = struct.pack("=Bxxx", socket.AF_INET)
    for body in dump(_RTM_GETNETCONF, header):
        values = attributes(body[len(header) :])
        if any(values.get(_NETCONFA_FORWARDING, b"")):
            found.add(struct.unpack("=i", values[_NETCONFA_IFINDEX])[0])
    return found
