"""The host's own firewall: what is said of it is what becomes of real packets, both ways.

Rules as Docker, ufw, firewalld, Debian's examples and administrators write them. What is said to be
dropped is; the command that is said to open it does; and where packets pass nothing is said.
"""

from __future__ import annotations

import json
import sys

import pytest

from tests.netns.datapath.conftest import PLAN, REMOTE, Gateway, udp_ask, udp_echo
from tests.netns.datapath.topology import Namespaces

CROSSING = json.dumps(
    {
        "inside": PLAN["inside"],
        "outside": PLAN["outside"],
        "publicIps": list(PLAN["pairs"]),
        "privatePrefixes": PLAN["prefixes"],
    }
)

NFTABLES_CONF = """
flush ruleset
table inet filter {{
    chain input {{ type filter hook input priority filter; policy drop; ct state established,related accept
        iif lo accept
        ip protocol icmp accept }}
    chain forward {{ type filter hook forward priority filter; policy drop; {forward} }}
    chain output {{ type filter hook output priority filter; }}
}}
"""
FIREWALLD = """
table inet firewalld {{
    chain mangle_PREROUTING {{ type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PREROUTING_ZONES; }}
    chain mangle_PREROUTING_ZONES {{ iifname "wan0" goto mangle_PRE_public; goto mangle_PRE_public; }}
    chain mangle_PRE_public {{ }}
    chain filter_PREROUTING {{ type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type {{ nd-router-advert, nd-neighbor-solicit }} accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop }}
    chain filter_INPUT {{ type filter hook input priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        meta l4proto icmp accept
        reject with icmpx admin-prohibited }}
    chain filter_FORWARD {{ type filter hook forward priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        ip6 daddr {{ ::/96, ::ffff:0.0.0.0/96 }} reject with icmpv6 addr-unreachable
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited }}
    chain filter_FORWARD_ZONES {{
        iifname "wan0" goto filter_FWD_{zone}
        iifname "lan0" goto filter_FWD_{zone}
        goto filter_FWD_{zone} }}
    chain filter_FWD_{zone} {{
        jump filter_FWD_{zone}_allow
        {end} }}
    chain filter_FWD_{zone}_allow {{ oifname "docker0" accept; }}
}}
"""
UFW = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-after-forward - [0:0]
:ufw-after-logging-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-after-logging-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
{reject}
COMMIT
"""
DOCKER = """
*raw
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""


def nft(text: str) -> tuple[str, str]:
    return "nft -f -", text.replace(" }", "\n}")


def debian(forward: str = "") -> tuple[str, str]:
    return nft(NFTABLES_CONF.format(forward=forward))


def iptables(*rules: str, command: str = "iptables") -> tuple[str, str]:
    return "sh -e", "\n".join(f"{command} {rule}" for rule in rules)


PASSES = {
    "nothing": ("true", ""),
    "docker": ("iptables-restore", DOCKER),
    "ufw, which denies what is routed": ("iptables-restore", UFW.format(reject="")),
    "firewalld, trusted": nft(FIREWALLD.format(zone="trusted", end="accept")),
    "nft, interfaces": debian("iifname lan0 oifname wan0 accept; iifname wan0 oifname lan* accept;"),
    "nft, a verdict map": nft(
        NFTABLES_CONF.format(forward='iifname vmap { "lan0" : accept, "wan0" : goto w };').replace(
            "chain forward", "chain w { oifname lan0 accept; drop; }\nchain forward"
        )
    ),
    "nft, untracked": debian("ct state { established, related, untracked } accept"),
    "nft, sets": nft(
        NFTABLES_CONF.format(forward="ip saddr @p accept; ip daddr @v accept;").replace(
            "chain input",
            "set p { type ipv4_addr; elements = { 203.0.113.10, 203.0.113.11 } }\n"
            "set v { type ipv4_addr; flags interval; elements = { 10.0.0.0/16 } }\nchain input",
        )
    ),
    "nft, other people's drops": nft(
        "table ip x { chain c { type filter hook forward priority 5;\n"
        "ct state invalid drop\nip saddr 192.0.2.0/24 drop\ntcp dport 25 drop\n"
        "limit rate over 1 mbytes/second drop\nfib daddr type local drop\n } }"
    ),
    "iptables, invalid": iptables("-A FORWARD -m conntrack --ctstate INVALID -j DROP"),
    "iptables-legacy beside": iptables(
        "-P FORWARD DROP", "-A FORWARD -i lan+ -o wan0 -j ACCEPT",
        "-A FORWARD -d 10.0.0.0/16 -m state --state UNTRACKED -j ACCEPT", command="iptables-legacy",
    ),
}  # fmt: skip
DROPPED = {
    "debian": (debian(), "nftables' table inet filter, chain forward, by its policy"),
    "debian, stateful": (
        debian("ct state established,related accept\niifname lan0 accept"),
        "drops what is answered: nftables' table inet filter, chain forward, by its policy",
    ),
    "firewalld, public": (
        nft(FIREWALLD.format(zone="public", end="reject with icmpx admin-prohibited")),
        "nftables' table inet firewalld, chain filter_FORWARD, by the rule",
    ),
    "ufw, which rejects what is routed": (
        ("iptables-restore", UFW.format(reject="-A ufw-reject-forward -j REJECT")),
        "iptables's table filter, chain FORWARD, by the rule “-A ufw-reject-forward -j REJECT",
    ),
    "a last reject": (
        iptables("-A FORWARD -j REJECT --reject-with icmp-host-prohibited"),
        "iptables's table filter, chain FORWARD",
    ),
    "iptables-legacy": (
        iptables("-P FORWARD DROP", command="iptables-legacy"),
        "iptables-legacy's table filter, chain FORWARD, by its policy",
    ),
    "iptables-legacy, mangle": (
        iptables("-t mangle -A POSTROUTING -s 203.0.113.10 -j DROP", command="iptables-legacy"),
        "drops what VMs send: iptables-legacy's table mangle, chain POSTROUTING",
    ),
    "the network's own address, which is translated by then": (
        debian("ip saddr 10.0.0.0/16 accept\nip daddr 10.0.0.0/16 accept"),
        "drops what VMs send: nftables' table inet filter",
    ),
    "two tables": (
        nft(
            NFTABLES_CONF.format(forward="accept")
            + "table ip y { chain c { type filter hook postrouting priority 300; policy drop;\n"
            'oifname != "wan0" accept\nip saddr != 203.0.113.0/24 accept\n} }'
        ),
        "nftables' table ip y, chain c, by its policy",
    ),
}


def set_up(net: Namespaces, rules: tuple[str, str]) -> None:
    command, text = rules
    net.run("gw", "sh", "-ec", f"{command} <<'END'\n{text}\nEND")


def said(net: Namespaces) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        net.run("gw", sys.executable, "-m", "gateway.datapath.firewall", CROSSING)
    )
    return found


@pytest.mark.parametrize("kind", PASSES)
def test_nothing_is_said_where_packets_pass(net: Namespaces, kind: str) -> None:
    udp_echo(net, "remote")
    set_up(net, PASSES[kind])
    assert said(net) == []
    Gateway(net)
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert said(net) == []


def test_what_comes_behind_our_own_accept_drops_nothing_of_ours(net: Namespaces) -> None:
    udp_echo(net, "remote")
    Gateway(net)
    net.run("gw", "iptables", "-A", "FORWARD", "-j", "REJECT")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert said(net) == []
    net.run("gw", "iptables", "-I", "FORWARD", "-j", "DROP")
    (found,) = said(net)
    assert "by the rule “-A FORWARD -j DROP”" in str(found["sentence"])
    assert udp_ask(net, "vm", REMOTE, patience=0.5) == "TimeoutError"


@pytest.mark.parametrize("kind", DROPPED)
def test_what_is_dropped_is_named_and_opened_by_what_is_said(net: Namespaces, kind: str) -> None:
    udp_echo(net, "remote")
    rules, expected = DROPPED[kind]
    set_up(net, rules)
    (before,) = said(net)
    Gateway(net)
    (found,) = said(net)
    assert found == before
    assert found["certain"]
    sentence = str(found["sentence"])
    assert expected in sentence
    assert udp_ask(net, "vm", REMOTE, patience=0.5) == "TimeoutError"
    net.run("gw", "sh", "-ec", sentence.partition("This lets them pass: ")[2])
    assert said(net) == []
    assert udp_ask(net, "vm", REMOTE) == "whole"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (debian("meta mark 7 accept\niifname wan0 accept"), "what VMs send: nftables' table inet"),
        (
            nft(
                "table netdev x { chain c { type filter hook ingress device wan0 priority 0;\n"
                "ip daddr 203.0.113.8/29 drop\n} }"
            ),
            "what is answered: nftables' table netdev x, chain c",
        ),
    ],
)
def test_what_depends_on_more_than_is_known_is_said_to_be_possible(
    net: Namespaces, rules: tuple[str, str], expected: str
) -> None:
    set_up(net, rules)
    (found,) = said(net)
    assert not found["certain"]
    assert str(found["sentence"]).startswith(f"the host's own firewall may drop {expected}")
