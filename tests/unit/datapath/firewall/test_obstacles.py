"""Which ways are walked through a host's rules, and what opens all of them at once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.datapath.firewall.obstacles import obstacles
from gateway.datapath.firewall.packet_paths import Crossing
from gateway.datapath.firewall.ruleset_dump import Rulesets
from gateway.schema.host_firewall import is_critical

PUBLICS = tuple(map(IPv4Address, ("203.0.113.10", "203.0.113.11", "203.0.113.12")))
PREFIXES = tuple(map(IPv4Network, ("10.0.0.0/16", "10.7.0.0/16")))
ONE = Crossing(("lan0",), "wan0", PUBLICS, PREFIXES)
TWO = Crossing(("lan0", "lan1"), "wan0", PUBLICS, PREFIXES)
HAIRPIN = Crossing(("lan0",), "wan0", PUBLICS, PREFIXES, hairpin=True)


def rules(*lines: str, table: str = "filter") -> Rulesets:
    chains = [f":{name} ACCEPT" for name in ("PREROUTING", "FORWARD", "POSTROUTING")]
    text = "\n".join([f"*{table}", *chains, *lines, "COMMIT"])
    return Rulesets(iptables={"iptables": text})


def chain(hook: str, priority: int, policy: str = "drop") -> Rulesets:
    base = {"family": "inet", "table": "fw", "name": "c", "type": "filter", "hook": hook}
    return Rulesets(
        {
            "nftables": [
                {"table": {"family": "inet", "name": "fw"}},
                {"chain": base | {"prio": priority, "policy": policy}},
            ]
        }
    )


def test_all_public_ips_and_prefixes_are_opened_at_once_and_none_twice() -> None:
    (found,) = obstacles(chain("postrouting", 300), HAIRPIN)
    assert found.opening == (
        'nft \'insert rule inet fw c oifname "wan0" ip saddr { 203.0.113.10, 203.0.113.11, '
        "203.0.113.12 } accept; "
        'insert rule inet fw c oifname "lan0" ip daddr { 10.0.0.0/16, 10.7.0.0/16 } accept; '
        'insert rule inet fw c oifname "lan0" ip saddr { 203.0.113.10, 203.0.113.11, '
        "203.0.113.12 } accept'"
    )
    (found,) = obstacles(chain("prerouting", -300), HAIRPIN)
    assert found.opening == (
        'nft \'insert rule inet fw c iifname "lan0" ip saddr { 10.0.0.0/16, 10.7.0.0/16 } accept; '
        'insert rule inet fw c iifname "wan0" ip daddr { 203.0.113.10, 203.0.113.11, '
        "203.0.113.12 } accept'"
    )
    (found,) = obstacles(rules("-A POSTROUTING -j DROP", table="mangle"), ONE)
    assert found.opening == (
        "iptables -t mangle -I POSTROUTING -o wan0 -s 203.0.113.10,203.0.113.11,203.0.113.12 "
        "-j ACCEPT; "
        "iptables -t mangle -I POSTROUTING -o lan0 -d 10.0.0.0/16,10.7.0.0/16 -j ACCEPT"
    )


@pytest.mark.parametrize(
    ("line", "packets"),
    [
        *((f"-A POSTROUTING -s {public} -j DROP", "some of what VMs send") for public in PUBLICS),
        ("-A POSTROUTING -d 10.7.0.0/16 -j DROP", "some of what is answered"),
        ("-A PREROUTING -s 10.0.0.0/16 -j DROP", "some of what VMs send"),
        ("-A PREROUTING -d 203.0.113.12/32 -j DROP", "some of what is answered"),
    ],
)
def test_each_public_ip_and_each_prefix_is_walked(line: str, packets: str) -> None:
    (found,) = obstacles(rules(line, table="mangle"), ONE)
    assert (found.packets, found.certain) == (packets, True)


def test_the_subnets_are_walked_where_they_are_known() -> None:
    subnets = tuple(map(IPv4Network, ("10.0.1.0/24", "10.0.2.0/24")))
    crossing = Crossing(("lan0",), "wan0", PUBLICS, PREFIXES, subnets)
    (found,) = obstacles(rules("-A FORWARD -d 10.0.2.0/24 -j DROP"), crossing)
    assert (found.packets, found.certain) == ("some of what is answered", True)
    assert crossing.extent == "3 public IPs and 2 subnets"


def test_which_subnet_is_behind_which_interface_is_not_known() -> None:
    kept = (
        "-A PREROUTING -i lan0 ! -s 10.0.0.0/16 -j DROP",
        "-A PREROUTING -i lan1 ! -s 10.7.0.0/16 -j DROP",
    )
    (found,) = obstacles(rules(*kept, table="mangle"), TWO)
    assert not found.certain


def test_vms_behind_two_interfaces_are_walked_to_each_other() -> None:
    outward = [
        f"-A FORWARD -{a} {inside} -{b} wan0 -j ACCEPT"
        for inside in TWO.inside
        for a, b in ("io", "oi")
    ]
    given = rules(*outward, table="mangle")
    assert obstacles(given, TWO) == []
    given = rules(*outward, "-A FORWARD -j DROP", table="mangle")
    (found,) = obstacles(given, TWO)
    assert found.packets == "what VMs behind different interfaces send each other"
    assert found.certain
    assert not found.critical
    assert not is_critical(found.sentence)
    assert "chain FORWARD, by the rule “-A FORWARD -j DROP”" in found.sentence
    assert found.opening == (
        "iptables -t mangle -I FORWARD -i lan0 -o lan1 -j ACCEPT; "
        "iptables -t mangle -I FORWARD -i lan1 -o lan0 -j ACCEPT"
    )
    assert obstacles(given, ONE) == []


def test_a_hairpin_is_walked_where_something_stands_behind_a_public_ip() -> None:
    outward = ("-A FORWARD -i lan0 -o wan0 -j ACCEPT", "-A FORWARD -i wan0 -o lan0 -j ACCEPT")
    given = rules(*outward, "-A FORWARD -j DROP", table="mangle")
    (found,) = obstacles(given, HAIRPIN)
    assert found.packets == "what VMs send to the gateway's own public IPs"
    assert found.certain
    assert not found.critical
    assert not is_critical(found.sentence)
    assert found.opening == "iptables -t mangle -I FORWARD -i lan0 -o lan0 -j ACCEPT"
    assert obstacles(given, ONE) == []


@pytest.mark.parametrize(
    "maybe",
    [
        "-A FORWARD -i lan0 -o lan1 -m set --match-set known src -j ACCEPT",
        "-A FORWARD -i lan1 -o lan0 -m set --match-set known src -j ACCEPT",
    ],
)
def test_what_is_dropped_outbound_is_critical_whatever_becomes_of_the_rest(maybe: str) -> None:
    (found,) = obstacles(rules(maybe, "-A FORWARD -j DROP", table="mangle"), TWO)
    assert found.critical
    assert is_critical(found.sentence)


def test_our_own_accept_counts_where_it_stands() -> None:
    ours = (
        ":snatgw-wan0-ok -",
        "-A FORWARD -j snatgw-wan0-ok",
        "-A snatgw-wan0-ok -i lan0 -o wan0 -j ACCEPT",
        "-A snatgw-wan0-ok -i wan0 -o lan0 -j ACCEPT",
    )
    reject = "-A FORWARD -j REJECT"
    assert obstacles(rules(*ours, reject), ONE) == []
    (found,) = obstacles(rules(ours[0], reject, *ours[1:]), ONE)
    assert found.certain
    (found,) = obstacles(rules(reject), ONE)
    assert found.by == "the rule “-A FORWARD -j REJECT”"
