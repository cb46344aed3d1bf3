"""The scenario language looks at each word that it is given: another one fails, and says so."""

from __future__ import annotations

import re

import pytest

from tests.scenario import Scenario, Unreadable, build, describe
from tests.unit.core.inbound.test_load_balancer import TWO

SCRIPT = """
    vm4 sends      tcp 10.0.1.7:40000 > 198.51.100.1:443 syn seq=1000
    outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
    ports          vm4 203.0.113.10 Tcp used=1 failed=0
    outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack seq=5000 acks=1001
    vm4 sees       tcp 198.51.100.1:443 > 10.0.1.7:40000 syn ack
    flows          vm4 198.51.100.1:443 state=Established direction=Outbound
    vm4 sends      tcp 10.0.1.7:40000 > 198.51.100.1:443 ack len=7 seq=1001 acks=5001
    outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 ack len=7
    vm1 sends      udp 10.0.1.4:5 > 198.51.100.9:53 unsummed options ttl=9
    outside sees   udp 203.0.113.20:1024 > 198.51.100.9:53 unsummed options
    vm3 sends      echo 10.0.1.6 > 198.51.100.1 id=7 len=3 options
    outside sees   echo 203.0.113.30 > 198.51.100.1 id=7 len=3 options
    outside sends  echo-reply 198.51.100.1 > 203.0.113.30 id=7 len=3
    vm3 sees       echo-reply 198.51.100.1 > 10.0.1.6 id=7 len=3
    vm4 sends      tcp 10.0.1.7:41000 > 203.0.113.30:80 syn
    vm3 sees       tcp 203.0.113.10:1024 > 10.0.1.6:80 syn
    vm3 sends      tcp 10.0.1.6:80 > 203.0.113.10:1024 syn ack
    vm4 sees       tcp 203.0.113.30:80 > 10.0.1.7:41000 syn ack
    10.0.1.99 sends udp 10.0.1.99:5 > 198.51.100.9:53
    outside sees   udp 203.0.113.10:2048 > 198.51.100.9:53
    outside sends  udp 198.51.100.9:53 > 203.0.113.10:2048
    10.0.1.99 sees udp 198.51.100.9:53 > 10.0.1.99:5
    flows          10.0.1.99 method=DefaultOutboundAccess
    outside sends  icmp 3/3 198.51.100.9 > 203.0.113.10 about udp 203.0.113.10:2048 > 198.51.100.9:53
    10.0.1.99 sees icmp 3/3 198.51.100.9 > 10.0.1.99 about udp 10.0.1.99:5 > 198.51.100.9:53
    dmz sends      udp 192.168.50.2:4 > 203.0.113.30:53
    vm3 sees       udp 192.168.50.2:4 > 10.0.1.6:53
    vm3 sends      udp 10.0.1.6:53 > 192.168.50.2:4
    dmz sees       udp 203.0.113.30:53 > 192.168.50.2:4
    host sends     udp 203.0.113.1:4 > 203.0.113.30:53
    vm3 sees       udp 203.0.113.1:4 > 10.0.1.6:53
    vm3 sends      tcp 10.0.1.6:9 > 203.0.113.1:22 syn
    host sees      tcp 10.0.1.6:9 > 203.0.113.1:22 syn
    gateway sends  icmp 3/1 203.0.113.1 > 198.51.100.9 about udp 198.51.100.9:53 > 203.0.113.1:5
    outside sees   icmp 3/1 203.0.113.1 > 198.51.100.9 about udp 198.51.100.9:53 > 203.0.113.1:5
    outside forges udp 10.0.1.5:4 > 203.0.113.30:53
    dropped        SourceNotOutside
    vm4 forges     udp 192.168.7.7:4 > 198.51.100.9:53
    dropped        SourceNotInVirtualNetwork
    after          5 min
    flows          vm1 none
    flows          vm3 198.51.100.1 none
    probe          lb/p vm1 down
    event          ProbeHealthChanged vm=vm1 up=False
    events         none
"""
LINES = [" ".join(line.split()) for line in SCRIPT.strip().splitlines()]
WORD = re.compile(r"[A-Za-z][A-Za-z_-]*")


def test_the_script_itself_holds() -> None:
    Scenario(TWO).play(SCRIPT)


def test_somebody_else_neither_sends_nor_sees_nor_has_it() -> None:
    """Each line is tried first with each other party in it; what fails has no effect."""
    scenario = Scenario(TWO)
    everybody = {*scenario.parties.names, "10.0.1.99", "10.0.1.98"}
    tried = 0
    for line in LINES:
        who, verb, *_ = line.split()
        if verb in ("sends", "sees"):
            for other in everybody - {who}:
                with pytest.raises(AssertionError, match=r"expected[^\n]*\n +seen "):
                    scenario.play(line.replace(who, other, 1))
                tried += 1
        scenario.play(line)
    assert tried > 250


def test_a_word_that_is_not_of_the_language_is_refused_with_those_that_are() -> None:
    scenario = Scenario(TWO)
    tried = 0
    for line in LINES:
        for match in WORD.finditer(line):
            wrong = f"{line[: match.end()]}q{line[match.end() :]}"
            if line[match.start() - 1] == "=":  # a value, which could be
                continue
            with pytest.raises(Unreadable, match="line 1, ") as caught:
                scenario.play(wrong)
            assert repr(wrong) in str(caught.value)
            assert "known: " in str(caught.value), caught.value
            tried += 1
        scenario.play(line)
    assert tried > 100


@pytest.mark.parametrize(
    "line",
    [
        "flows vm4 state=Closed",
        "flows vm4 state=Opening direction=Inbound",
        "flows vm4 198.51.100.2 state=Opening",
        "flows vm4 198.51.100.1:444 state=Opening",
        "flows vm3 state=Opening",
        "flows vm4 none",
        "ports vm4 203.0.113.10 Tcp used=2",
        "ports vm4 203.0.113.10 Tcp used=1 failed=1",
        "ports vm3 203.0.113.10 Tcp used=0",
        "ports vm4 203.0.113.20 Tcp used=1",
        "outside sees tcp 203.0.113.10:1025 > 198.51.100.1:443 syn",
        "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn ack",
        "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn len=1",
        "outside sees udp 203.0.113.10:1024 > 198.51.100.1:443",
        "dropped PortsExhausted",
        "event FlowsEnded",
        "event FlowsEnded flows=1",
    ],
)
def test_what_is_not_so_fails_with_what_is(line: str) -> None:
    scenario = Scenario(TWO)
    scenario.play(LINES[0])
    with pytest.raises(AssertionError, match=rf"!  {re.escape(line)}\n +expected  .*\n +seen  "):
        scenario.play(line)


def test_what_was_dropped_is_seen_by_nobody() -> None:
    scenario = Scenario(TWO)
    scenario.play("outside sends tcp 198.51.100.1:443 > 203.0.113.10:1024 ack")
    with pytest.raises(AssertionError, match=r"expected  vm1  tcp .*\n +seen +nothing: Inbound"):
        scenario.play("vm1 sees tcp 198.51.100.1:443 > 10.0.1.4:40000 ack")


def test_only_what_goes_from_inside_to_inside_is_lateral() -> None:
    scenario = Scenario(TWO)
    inside = build("udp 10.0.1.4:1 > 10.0.1.5:2")
    assert scenario.send("vm1", inside, lateral=True) == inside
    for who, text in (
        ("vm2", "udp 10.0.1.4:1 > 10.0.1.5:2"),
        ("vm1", "udp 10.0.1.4:1 > 198.51.100.1:2"),
        ("outside", "udp 198.51.100.1:1 > 10.0.1.4:2"),
    ):
        with pytest.raises(AssertionError, match=r"expected  .*\n +seen  "):
            scenario.send(who, build(text), lateral=True)


@pytest.mark.parametrize(
    "line",
    [
        "flows",
        "flows vm4",
        "flows vm4 198.51.100.1",
        "flows vm4 198.51.100.1:x none",
        "flows vm4 state=",
        "flows vm4 state=Opening state=Opening",
        "flows vm4 none none",
        "ports vm4 203.0.113.10 Tcp",
        "ports vm4 203.0.113.11 Tcp used=0",
        "event",
        "events",
        "events some",
        "after 5",
        "after five s",
        "after 5 h",
        "probe lb/p vm1",
        "probe lb/p vm4 down",
        "probe lb/p vm1 sideways",
        "dropped",
        "dropped TcpWithoutFlow PortsExhausted",
        "vm4 sends",
        "vm4 sees",
        "vm4",
        "198.51.100.1 sends udp 198.51.100.1:1 > 203.0.113.30:1",
        "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn seq=1",
        "outside sees tcp 203.0.113.10:1024 > 198.51.100.1:443 syn ttl=63",
    ],
)
def test_what_asks_for_nothing_is_refused(line: str) -> None:
    scenario = Scenario(TWO)
    scenario.play(LINES[0])
    with pytest.raises(Unreadable, match=rf"line 1, '{re.escape(line)}'"):
        scenario.play(line)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp 10.0.1.4:1 198.51.100.1:2",
        "tcp 10.0.1.4:1 < 198.51.100.1:2",
        "tcp 10.0.1.4 > 198.51.100.1:2",
        "udp 10.0.1.4:1 > 198.51.100.1",
        "udp 10.0.1.4:x > 198.51.100.1:2",
        "udp 10.0.1:1 > 198.51.100.1:2",
        "udp 10.0.1.4:1 > 198.51.100.1:2 syn",
        "udp 10.0.1.4:1 > 198.51.100.1:2 seq=1",
        "udp 10.0.1.4:1 > 198.51.100.1:2 len=1 len=2",
        "tcp 10.0.1.4:1 > 198.51.100.1:2 syn syn",
        "tcp 10.0.1.4:1 > 198.51.100.1:2 len=x",
        "tcp 10.0.1.4:1 > 198.51.100.1:2 unsummed",
        "echo 10.0.1.4 > 198.51.100.1",
        "echo 10.0.1.4:1 > 198.51.100.1 id=1",
        "ip 10.0.1.4 > 198.51.100.1",
        "ip 10.0.1.4 > 198.51.100.1 proto=47 len=1",
        "icmp 3/1 10.0.1.4 > 198.51.100.1",
        "icmp 3/1 10.0.1.4 > 198.51.100.1 long about udp 10.0.1.4:1 > 198.51.100.1:2",
        "icmp 3/1 10.0.1.4 > 198.51.100.1 about udp 10.0.1.4:1 > 198.51.100.1:2 id=1",
    ],
)
def test_no_packet_is_made_of_what_is_none(text: str) -> None:
    with pytest.raises(Unreadable):
        build(text)


@pytest.mark.parametrize(
    "text",
    [
        "tcp 10.0.1.4:1 > 198.51.100.1:2 syn ack fin rst psh urg len=9 options",
        "udp 10.0.1.4:1 > 198.51.100.1:2 unsummed len=9 options",
        "udp 10.0.1.4:1 > 198.51.100.1:2",
        "echo 10.0.1.4 > 198.51.100.1 id=1 len=9 options",
        "echo-reply 10.0.1.4 > 198.51.100.1 id=1",
        "ip 10.0.1.4 > 198.51.100.1 proto=47 options",
        "icmp 11/0 10.0.1.4 > 198.51.100.1 about echo 10.0.1.4 > 198.51.100.1 id=1 len=9",
        "icmp 3/1 10.0.1.4 > 198.51.100.1 short about tcp 10.0.1.4:1 > 198.51.100.1:2",
    ],
)
def test_a_packet_reads_as_it_was_written(text: str) -> None:
    assert describe(build(text)) == text
