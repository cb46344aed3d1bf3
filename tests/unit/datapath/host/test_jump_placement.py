"""Where jumps go among the host's rules, as ``iptables-save`` prints these."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.datapath.firewall.traversal import Packet
from gateway.datapath.host.jump_placement import Jump, Place, moves

OURS = "snatgw-wan0-fwd"
JUMP = Jump(
    "mangle",
    "FORWARD",
    OURS,
    Place.LATE,
    (Packet(iif="lan0", tracked=False), Packet(iif="wan0", oif="lan0", tracked=False)),
)
CLAMP = "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"


def text(*rules: str, place: Place = Place.LATE, chains: tuple[str, ...] = ()) -> list[str]:
    saved = {"mangle": ["-N FORWARD", f"-N {OURS}", *(f"-N {name}" for name in chains), *rules]}
    jump = Jump(JUMP.table, JUMP.hook, JUMP.name, place, JUMP.meets)
    return moves(saved, [jump], "snatgw-")[0].splitlines()[1:-1]


def test_where_there_is_nothing_else_it_is_added() -> None:
    assert text() == [f"-A FORWARD -j {OURS}"]
    assert text(f"-A FORWARD -j {OURS}") == []


@pytest.mark.parametrize(
    "rule",
    [
        CLAMP,
        "-A FORWARD -i lan0 -j MARK --set-xmark 0x1/0xffffffff",
        "-A FORWARD -j DSCP --set-dscp 0x2e",
        "-A FORWARD -i lan0 -p tcp -m tcp --dport 25 -j DROP",  # the host's wish
        "-A FORWARD -i docker0 -j ACCEPT",
        "-A FORWARD -i wan0 -o docker0 -j ACCEPT",
        "-A FORWARD -i wan0 -p udp -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD ! -i wan0 -o docker0 -j theirs",
        "-A FORWARD -j gone",
    ],
)
def test_it_stands_behind_what_does_not_end_the_chain_for_our_packets(rule: str) -> None:
    chains = ("theirs", "gone")
    more = ("-A theirs -j LOG", "-A theirs -j RETURN", "-A gone -i eth9 -j ACCEPT")
    assert text(rule, *more, chains=chains) == [f"-A FORWARD -j {OURS}"]
    assert text(rule, f"-A FORWARD -j {OURS}", *more, chains=chains) == []
    assert text(f"-A FORWARD -j {OURS}", rule, *more, chains=chains) == [
        f"-D FORWARD -j {OURS}",
        f"-A FORWARD -j {OURS}",
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "-A FORWARD -j ACCEPT",
        "-A FORWARD -i lan+ -j ACCEPT",
        "-A FORWARD -s 10.0.0.0/8 -j ACCEPT",
        "-A FORWARD -m limit --limit 5/sec -j ACCEPT",
        "-A FORWARD -m mark ! --mark 0x1 -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT",
        "-A FORWARD -j NFQUEUE --queue-num 7",
        "-A FORWARD -j SOMETHINGNEW --option 5",
        "-A FORWARD -j theirs",
        "-A FORWARD -g theirs",
    ],
)
def test_it_stands_ahead_of_what_may_end_the_chain_for_our_packets(rule: str) -> None:
    more = ("-A theirs -i lan0 -m set --match-set friends src -j deeper", "-A deeper -j ACCEPT")
    chains = ("theirs", "deeper")
    assert text(CLAMP, rule, *more, chains=chains) == [f"-I FORWARD 2 -j {OURS}"]
    assert text(CLAMP, f"-A FORWARD -j {OURS}", rule, *more, chains=chains) == []
    assert text(rule, CLAMP, f"-A FORWARD -j {OURS}", *more, chains=chains) == [
        f"-D FORWARD -j {OURS}",
        f"-I FORWARD 1 -j {OURS}",
    ]


def test_a_first_one_goes_back_to_the_front_and_two_gateways_do_not_fight_for_it() -> None:
    other = "-A FORWARD -j snatgw-wan1-fwd"
    own = f"-A FORWARD -j {OURS}"
    first = Place.FIRST
    assert text(CLAMP, own, place=first) == [own.replace("-A", "-D"), f"-I FORWARD 1 -j {OURS}"]
    assert text(other, own, CLAMP, place=first) == []
    assert text(own, other, CLAMP, place=first) == []
    assert text(own, own, CLAMP, place=first)[:2] == [own.replace("-A", "-D")] * 2


def test_a_last_one_stays_where_it_is() -> None:
    own = f"-A FORWARD -j {OURS}"
    assert text("-A FORWARD -j DROP", place=Place.LAST) == [own]
    assert text(own, "-A FORWARD -j DROP", place=Place.LAST) == []


def test_an_address_that_is_known_tells_more() -> None:
    public = Packet(iif="wan0", destination=IPv4Address("203.0.113.10"), tracked=False)
    jump = Jump("mangle", "PREROUTING", OURS, Place.LATE, (public,))
    theirs = "-A PREROUTING -d 192.0.2.0/24 -j ACCEPT"
    saved = {"mangle": ["-N PREROUTING", theirs]}
    assert moves(saved, [jump], "snatgw-")[0].splitlines()[1] == f"-A PREROUTING -j {OURS}"
