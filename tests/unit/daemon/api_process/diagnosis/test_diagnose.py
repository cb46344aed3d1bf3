"""What a diagnosis says of scenarios: true numbers, the right destination, advice that holds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from gateway.core.events import PacketsDropped
from gateway.core.inbound.listeners import Target
from gateway.daemon.api_process.diagnosis import diagnose
from gateway.daemon.api_process.diagnosis.finding import (
    Finding,
    count,
    duration,
    listed,
    percent,
    rate,
)
from gateway.daemon.channel.event_views import event_document
from gateway.daemon.channel.probe_messages import Result
from gateway.model.profile import PROFILES
from gateway.schema.drop_reasons import DropReason
from gateway.schema.host_firewall import INSIDE_ONLY
from tests.scenario import Scenario, build
from tests.unit.daemon.looking import NOON, Look
from tests.unit.daemon.serving import GUARDED

SERVER, OTHER = "198.51.100.1", "198.51.100.2"
PRIVATE = {"vm1": "10.0.1.4", "vm2": "10.0.1.5", "vm3": "10.0.1.6"}
PUBLIC = {"vm1": "203.0.113.10", "vm2": "203.0.113.20", "vm3": "203.0.113.30"}


def yaml(*, frontends: int = 1, members: int = 1) -> str:
    """vm1 standalone, vm2 (and more) behind a load balancer, vm3 with an address of its own."""
    more = "".join(
        f"  - {{name: e{n}, privateIPAddress: 10.0.2.{n + 1}}}\n" for n in range(members - 1)
    )
    names = ", ".join(["vm2", *(f"e{n}" for n in range(members - 1))])
    rules = "".join(
        f"      - {{name: r{n}, frontendIPConfiguration: fe{n}, backendAddressPool: pool,\n"
        f"         protocol: Tcp, frontendPort: 80, backendPort: {80 + n}}}\n"
        for n in range(frontends)
    )
    publics = "".join(
        f"  - {{name: f{n}, ipAddress: 203.0.113.{20 + n}}}\n" for n in range(frontends)
    )
    configurations = ", ".join(f"{{name: fe{n}, publicIPAddress: f{n}}}" for n in range(frontends))
    return f"""
gateway: {{inside: [lan0], outside: wan0}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{{name: web, addressPrefix: 10.0.0.0/16}}]
publicIPAddresses:
  - {{name: d, ipAddress: 203.0.113.10}}
  - {{name: i, ipAddress: 203.0.113.30}}
{publics}defaultOutboundAccess: {{publicIPAddresses: [d]}}
virtualMachines:
  - {{name: vm1, privateIPAddress: 10.0.1.4}}
  - {{name: vm2, privateIPAddress: 10.0.1.5}}
  - {{name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: i}}
{more}loadBalancers:
  - name: lb
    sku: Basic
    frontendIPConfigurations: [{configurations}]
    backendAddressPools: [{{name: pool, virtualMachines: [{names}]}}]
    loadBalancingRules:
{rules}"""


class Connections:
    """TCP connections of one VM, each from a port of its own."""

    def __init__(self, world: Scenario, vm: str, remote: str = SERVER, port: int = 443) -> None:
        self.world, self.vm, self.remote, self.port = world, vm, remote, port
        self.public: dict[int, str] = {}

    def open(self, ports: range) -> None:
        """SYN out, SYN-ACK back; those that find no SNAT port stay away."""
        for number in ports:
            self.begin(number)
            if number in self.public:
                self._reply(number, "syn ack")

    def begin(self, number: int) -> None:
        verdict = self.world.send(self.vm, self._packet(number, "syn"))
        if verdict is not None:
            address = ".".join(map(str, verdict[12:16]))
            self.public[number] = f"{address}:{int.from_bytes(verdict[20:22], 'big')}"

    def talk(self, ports: range) -> None:
        for number in ports:
            assert self.world.send(self.vm, self._packet(number, "ack len=9")) is not None

    def close(self, ports: range) -> None:
        """FIN from both sides."""
        for number in ports:
            self.world.send(self.vm, self._packet(number, "fin ack"))
            self._reply(number, "fin ack")

    def half_close(self, ports: range) -> None:
        for number in ports:
            self._reply(number, "fin ack")

    def reset(self, ports: range) -> None:
        for number in ports:
            self.world.send(self.vm, self._packet(number, "rst"))

    def _packet(self, number: int, mark: str) -> bytes:
        head = f"tcp {PRIVATE[self.vm]}:0 > {self.remote}:{self.port} {mark}"
        return with_port(head, 20, number)

    def _reply(self, number: int, mark: str) -> None:
        address, _, port = self.public[number].partition(":")
        head = f"tcp {self.remote}:{self.port} > {address}:0 {mark}"
        assert self.world.send("outside", with_port(head, 22, int(port))) is not None


@cache
def template(text: str) -> bytes:
    return build(text)


def with_port(text: str, offset: int, port: int) -> bytes:
    """A packet with another port at an offset; its checksum is not looked at."""
    packet = template(text)
    return packet[:offset] + port.to_bytes(2, "big") + packet[offset + 2 :]


@pytest.fixture
def world() -> Scenario:
    return Scenario(yaml())


def only(findings: list[Finding], severity: str) -> Finding:
    found = [finding for finding in findings if finding.severity == severity]
    assert len(found) == 1, findings
    return found[0]


def told(finding: Finding) -> str:
    return " ".join([finding.title, finding.text, *finding.advice])


# -- all is well


def test_vms_that_have_sent_nothing_are_well(world: Scenario) -> None:
    (finding,) = Look(world).diagnosed()
    assert (finding.severity, finding.title) == ("Good", "All 3 VMs are healthy")
    assert "all of its 1,024 SNAT ports free for each protocol" in finding.text


def test_a_vm_that_is_well_has_its_headroom_told(world: Scenario) -> None:
    look = Look(world, "vm1")
    Connections(world, "vm1").open(range(1000, 1003))
    Connections(world, "vm1", OTHER).open(range(2000, 2001))
    (finding,) = look.diagnosed()
    assert (finding.severity, finding.vm, finding.title) == ("Good", "vm1", "vm1 is healthy")
    assert finding.text == (
        "vm1 has 1,021 of its 1,024 TCP ports free toward its busiest destination 198.51.100.1. "
        "Nothing it sent was dropped."
    )


def test_a_vm_with_an_address_of_its_own_needs_no_ports(world: Scenario) -> None:
    look = Look(world, "vm3")
    Connections(world, "vm3").open(range(1000, 3000))
    (finding,) = look.diagnosed()
    assert finding.text == (
        "vm3 goes out by its own address 203.0.113.30 and needs no SNAT port (2,000 flows now). "
        "Nothing it sent was dropped."
    )


def test_nobody_there() -> None:
    empty = Scenario(yaml())
    look = Look(empty)
    look.gatherer._machines.clear()
    (finding,) = look.diagnosed()
    assert finding.text == "No VM has sent anything yet."


# -- out of ports


def test_an_exhausted_vm_word_for_word(world: Scenario) -> None:
    mine = Connections(world, "vm1")
    mine.open(range(2000, 3000))
    world.wait(100)
    Connections(world, "vm1", port=80).open(range(4000, 4024))
    mine.talk(range(2000, 2030))
    mine.reset(range(2030, 2130))
    mine.half_close(range(2130, 2140))
    look = Look(world, "vm1")
    world.wait(2)
    mine.open(range(5000, 5007))
    finding = only(look.diagnosed(), "Critical")
    assert finding.title == "vm1 is out of TCP ports toward 198.51.100.1"
    assert finding.text == (
        "All 1,024 TCP SNAT ports on 203.0.113.10 are held by flows to 198.51.100.1: 54 in use (a "
        "packet in the last 15 s), 860 open but idle (median 102 s, longest 102 s), 10 half-closed "
        "(a FIN from one side only) and 100 reset, their ports still held; by port 443 (1,000), 80 "
        "(24). A further flow there is dropped silently: its client sees a time-out, not an RST. 7 "
        "attempts failed in the last 2 s, 7 since the gateway started (repeated SYNs count "
        "again). Other addresses are not affected: there the same ports can be used again."
    )
    assert finding.advice == (
        (
            "Share the connections to 198.51.100.1. 54 connections are in use now: a pool of 54 would "
            "hold 54 ports instead of 1,024. Closing the idle ones brings nothing back sooner: a FIN "
            "holds the port for 4 min, idling out takes 4 min. Only an RST (SO_LINGER of 0 s) does, "
            "after 15 s."
        ),
        (
            "Left alone, 100 of these ports come back within 60 s and 970 within 3 min 58 s, unless "
            "packets use their flows again."
        ),
        (
            "vm1 has default SNAT, whose 1,024 ports on one address cannot be raised. Behind a load "
            "balancer with a pool of up to 50 VMs it would have 1,024 on each frontend: 2,048 with two."
        ),
        (
            "With an instance-level public IP vm1 needs no SNAT port: none of these 1,024 flows would "
            "hold one."
        ),
        (
            "azure-2017 has no NAT gateway. Today's Azure has: 64,512 ports for each public IP, of which "
            "1,024 are 2 %."
        ),
        (
            "If the service has a second address, use both: a port is needed once for each address, so "
            "512 ports would carry these 1,024 flows."
        ),
    )
    assert finding.data["destination"] == {"ip": SERVER, "port": None}
    assert (finding.data["held"], finding.data["failedLately"]) == (1024, 7)

    # What it says comes true: the 100 that were reset are back after their 15 s.
    world.wait(16)
    mine.open(range(6000, 6110))
    assert len([n for n in mine.public if n >= 6000]) == 100


def test_another_frontend_gives_what_was_said(world: Scenario) -> None:
    mine = Connections(world, "vm2")
    look = Look(world)
    mine.open(range(2000, 3100))
    mine.talk(range(2000, 3024))
    finding = only(look.diagnosed(), "Critical")
    assert finding.vm == "vm2"
    assert "1,024 connections are in use at the same time" in told(finding)
    assert (
        "Another frontend IP on load balancer lb, with a load balancing rule to the same pool (and a "
        "backend port of its own), gives vm2 1,024 ports more (its pool has 1 member): 2,048, of "
        "which 1,024 are held now."
    ) in finding.advice
    world.reconfigure(yaml(frontends=2))
    look = Look(world, "vm2")
    mine.open(range(3024, 3100))
    assert len(mine.public) == 1100
    (after,) = look.diagnosed()
    assert after.title == "vm2 was out of TCP ports toward 198.51.100.1"
    assert "76 attempts failed since the gateway started, none in the last 0 s" in after.text
    assert "now 1,100 of the 2,048 ports on 203.0.113.20 and 203.0.113.21 are held" in after.text


def test_other_destinations_that_are_full_are_named(world: Scenario) -> None:
    look = Look(world, "vm1")
    for remote in (SERVER, OTHER):
        Connections(world, "vm1", remote).open(range(2000, 3030))
    finding = only(look.diagnosed(), "Critical")
    assert (
        f"The same goes for {({SERVER, OTHER} - {finding.data['destination']['ip']}).pop()}."
        in (finding.text)
    )


def test_exhaustion_that_is_over_is_remembered(world: Scenario) -> None:
    mine = Connections(world, "vm1")
    mine.open(range(2000, 3030))
    mine.reset(range(2000, 2900))
    world.wait(16)
    look = Look(world, "vm1")
    world.wait(2)
    finding = only(look.diagnosed(), "Warning")
    assert finding.title == "vm1 was out of TCP ports toward 198.51.100.1"
    assert finding.text == (
        "Last at 2026-01-31T12:00:00.000Z, for a flow to 198.51.100.1:443. 6 attempts failed "
        "since the gateway started, none in the last 2 s: now 124 of the 1,024 ports on 203.0.113.10 "
        "are held there."
    )


# -- on the way there


def churn(world: Scenario, seconds: int, per_second: int = 8) -> Connections:
    """Connections that live for a fifth of a second each."""
    mine = Connections(world, "vm1")
    for second in range(seconds):
        first = 2000 + per_second * second
        for number in range(first, first + per_second):
            mine.open(range(number, number + 1))
            world.wait(0.1)
            mine.close(range(number, number + 1))
        world.wait(1 - 0.1 * per_second)
    return mine


def test_churn_is_told_how_long_its_ports_last_and_what_it_would_need(world: Scenario) -> None:
    churn(world, 40)
    look = Look(world, "vm1")
    began = len(world.flow_list())
    churn_on = Connections(world, "vm1")
    for number in range(16):
        churn_on.open(range(9000 + number, 9001 + number))
        churn_on.close(range(9000 + number, 9001 + number))
        world.wait(0.125)
    finding = only(look.diagnosed(), "Warning")
    assert began == 320
    assert finding.title == (
        "vm1 uses 33 % of its TCP ports toward 198.51.100.1, and is out of them in about 86 s"
    )
    assert finding.text == (
        "336 of the 1,024 TCP SNAT ports on 203.0.113.10 are held by flows to 198.51.100.1: 336 "
        "closed, their ports still held. It grows by 8.0 a second (in the last 2 s it went from 320 "
        "to 336): the 688 that are left last about 86 s."
    )
    pooling, left_alone, *_ = finding.advice
    assert pooling.startswith(
        "Keep connections to 198.51.100.1 open and use them again. 119 connections began in the last "
        "15 s (7.9 a second), and after its FIN each holds its port for 4 min: that rate takes 1,904 "
        "ports for closed connections alone. At most 1 was open at the same time in the last 15 s: a "
        "pool of 1 that stays open would hold 1 port instead of 336."
    )
    assert left_alone.startswith(
        "Left alone, none of these ports come back within 60 s and 336 within"
    )

    # And so it comes: 688 more of them, 86 seconds.
    rest = Connections(world, "vm1")
    for number in range(700):
        rest.open(range(20000 + number, 20001 + number))
        if len(rest.public) <= number:
            break
        rest.close(range(20000 + number, 20001 + number))
        world.wait(0.125)
    assert len(rest.public) == 688


def test_churn_by_resets_needs_less(world: Scenario) -> None:
    world.wait(100)
    mine = Connections(world, "vm1")
    look = Look(world, "vm1")
    mine.open(range(2000, 2300))
    world.wait(1)
    mine.reset(range(2000, 2300))
    world.wait(10)
    finding = only(look.diagnosed(), "Information")
    assert finding.title == "Closed connections hold 29 % of vm1's TCP ports"
    assert "300 reset, their ports still held" in finding.text
    assert "at this rate ports come back before these are used" in finding.text
    assert "after its RST each holds its port for 15 s: that rate takes 300 ports" in told(finding)
    assert "But 300 were open at the same time in the last 15 s" in told(finding)


def test_a_burst_alone_is_no_warning(world: Scenario) -> None:
    world.wait(100)
    look = Look(world, "vm1")
    Connections(world, "vm1").open(range(2000, 2010))
    world.wait(2)
    assert [f.severity for f in look.diagnosed()] == ["Good"]


def test_above_three_quarters_it_warns_though_nothing_grows(world: Scenario) -> None:
    Connections(world, "vm1").open(range(2000, 2800))
    look = Look(world, "vm1")
    world.wait(2)
    finding = only(look.diagnosed(), "Warning")
    assert finding.title == "vm1 uses 78 % of its TCP ports toward 198.51.100.1"
    assert (
        "It does not grow (in the last 2 s it went from 800 to 800), with 224 left." in finding.text
    )


def test_a_forecast_says_what_it_is_for_who_waits(world: Scenario) -> None:
    world.wait(100)
    look = Look(world, "vm1", scale=60)
    for number in range(120):
        Connections(world, "vm1").open(range(2000 + 4 * number, 2004 + 4 * number))
        world.wait(1)
    finding = only(look.diagnosed(), "Warning")
    assert "the 544 that are left last about 2 min 16 s of Azure's time (2 s at timeScale 60)" in (
        finding.text
    )


def test_idle_connections_are_told_of_before_they_hurt(world: Scenario) -> None:
    mine = Connections(world, "vm1")
    mine.open(range(2000, 2400))
    world.wait(90)
    mine.talk(range(2000, 2012))
    look = Look(world, "vm1")
    finding = only(look.diagnosed(), "Information")
    assert finding.title == "Idle flows hold 38 % of vm1's TCP ports"
    assert (
        "12 in use (a packet in the last 15 s) and 388 open but idle (median 90 s" in finding.text
    )
    assert "a pool of 12 would hold 12 ports instead of 400" in told(finding)


def test_half_closed_connections_point_at_the_program(world: Scenario) -> None:
    mine = Connections(world, "vm1")
    mine.open(range(2000, 2400))
    mine.half_close(range(2000, 2400))
    finding = only(Look(world, "vm1").diagnosed(), "Information")
    assert "400 half-closed (a FIN from one side only)" in finding.text
    assert "400 connections are half-closed: look in vm1 for sockets in CLOSE-WAIT" in told(finding)


def test_udp_sockets_that_are_used_once(world: Scenario) -> None:
    look = Look(world, "vm1")
    for number in range(1030):
        world.send("vm1", with_port(f"udp 10.0.1.4:0 > {SERVER}:53", 20, 2000 + number))
        if number == 1000:
            world.wait(20)
    findings = look.diagnosed()
    finding = only(findings, "Critical")
    assert finding.title == "vm1 is out of UDP ports toward 198.51.100.1"
    assert "(each datagram counts)" in finding.text
    assert (
        "Send from one UDP socket to 198.51.100.1: a socket needs one port there, and each of these "
        "1,024 keeps its own until it was idle for 4 min."
    ) in finding.advice
    unanswered = only(findings, "Information")
    assert unanswered.title == "1,001 UDP flows of vm1 to 198.51.100.1 had no answer"
    # One socket for all of them takes one port, as it says.
    world.wait(300)
    for number in range(1030):
        world.send("vm1", template(f"udp 10.0.1.4:9999 > {SERVER}:53 len={number % 5}"))
    assert world.ports("vm1", "203.0.113.10", "Udp").used == 1


def test_a_pool_at_the_end_of_its_tier_is_warned_before_it_grows() -> None:
    world = Scenario(yaml(members=50))
    look = Look(world)
    Connections(world, "vm2").open(range(2000, 2600))
    finding = only(look.diagnosed(), "Warning")
    assert finding.title == "One more VM cuts the ports of the 50 behind lb/fe0 to 512"
    assert "Some have had more in use than they will have: vm2." in finding.text
    world.reconfigure(yaml(members=51))
    finding = only(Look(world, "vm2").diagnosed(), "Warning")
    assert finding.title == "88 flows of vm2 broke when ports were taken back"
    assert "a reload took 512 SNAT ports on 203.0.113.20 from vm2" in finding.text


# -- in azure-current


def current(rules: str, *, subnet: str = "", sku: str = "Standard", frontends: int = 1) -> str:
    """vm2 behind a load balancer of today; vm1 and vm3 alone."""
    text = yaml(frontends=frontends).replace(
        "outside: wan0", "outside: wan0, profile: azure-current"
    )
    text = text.replace("10.0.0.0/16}]", "10.0.0.0/16" + subnet + "}]")
    head = text.split("    loadBalancingRules:")[0].replace("sku: Basic", f"sku: {sku}")
    return head + rules


LINK = (
    "    loadBalancingRules:\n"
    "      - {name: r, frontendIPConfiguration: fe0, backendAddressPool: pool, protocol: Tcp,\n"
    "         frontendPort: 80, backendPort: 80}\n"
)
RULE = (
    "    outboundRules:\n"
    "      - {name: out, frontendIPConfigurations: [fe0], backendAddressPool: pool,\n"
    "         protocol: Tcp, allocatedOutboundPorts: 1024, idleTimeoutInMinutes: 30}\n"
)


def test_by_the_table_another_frontend_is_no_help_today() -> None:
    world = Scenario(current(LINK))
    look = Look(world, "vm2")
    Connections(world, "vm2").open(range(2000, 3030))
    Connections(world, "vm2", port=80).open(range(4000, 4010))
    finding = only(look.diagnosed(), "Critical")
    assert finding.title == "vm2 is out of TCP ports toward 198.51.100.1:443"
    assert "Other addresses, and other ports there, are not affected." in finding.text
    advice = told(finding)
    assert (
        "Another frontend IP on load balancer lb alone does not help: by the table of pool sizes a VM "
        "has 1,024 ports at most, on however many frontends. An outbound rule with "
        "allocatedOutboundPorts can give each of the pool's 1 member 64,000 on one frontend."
    ) in finding.advice
    assert "A NAT gateway on its subnet has 64,512 ports for each public IP" in advice
    assert "If the service has a second address or port, use both" in advice
    assert Look(world).diagnosed()[0].title == finding.title  # remembered by its event, too


def test_an_outbound_rule_has_room_for_more() -> None:
    world = Scenario(current(RULE))
    mine = Connections(world, "vm2")
    mine.open(range(2000, 3030))
    world.wait(600)
    finding = only(Look(world, "vm2").diagnosed(), "Critical")
    assert "1,024 open but idle (median 10 min" in finding.text
    assert (
        "Closing the idle ones helps, too: a FIN holds the port for 4 min, idling out takes 30 min."
    ) in told(finding)
    assert (
        "Outbound rule out can give vm2 more: allocatedOutboundPorts (1,024) can be up to 64,000 with "
        "1 frontend for 1 member, and up to 128,000 with one more. Now 1,024 are allocated and 1,024 "
        "held."
    ) in finding.advice
    world.reconfigure(current(RULE.replace("Ports: 1024", "Ports: 64000")))
    mine.open(range(3024, 3030))
    assert len(mine.public) == 1030


def test_attempts_that_ports_refused_which_are_on_their_way_out_count() -> None:
    world = Scenario(current(RULE))
    mine = Connections(world, "vm2")
    mine.open(range(2000, 3030))
    mine.reset(range(2000, 2900))
    gateway = "natGateways: [{name: nat, publicIPAddresses: [n], subnets: [web]}]\n"
    address = "  - {name: n, ipAddress: 203.0.113.25}\n"
    text = current(RULE).replace("defaultOutboundAccess", f"{gateway}defaultOutboundAccess")
    text = text.replace("natGateways", f"{address}natGateways")
    world.reconfigure(text)
    flow = "for a flow to 198.51.100.1:443. "
    end = " in the last 2 s: now 0 of the 64,512 ports on 203.0.113.25 are held there."
    Connections(world, "vm2", OTHER).open(range(4000, 4001))
    told_now = only(looked(world, "vm2"), "Warning")
    assert f"{flow}6 attempts failed since the gateway started, none{end}" in told_now.text
    world.wait(2000)  # the last flows have ended
    world.reconfigure(text.replace("203.0.113.20", "203.0.113.26"))
    Connections(world, "vm2", OTHER).open(range(4001, 4002))
    told_later = only(looked(world, "vm2"), "Warning")
    assert f"{flow}No attempt failed{end}" in told_later.text


def looked(world: Scenario, vm: str) -> list[Finding]:
    look = Look(world, vm)
    world.wait(2)
    return look.diagnosed()


def test_a_nat_gateway_has_its_own_hold_times_and_goes_before_an_address_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = PROFILES["azure-current"]
    assert now.nat_gateway is not None
    few = replace(now, nat_gateway=replace(now.nat_gateway, last_port=1223))
    monkeypatch.setitem(PROFILES, "azure-current", few)
    text = current(RULE).replace("{name: i,", "{name: n, ipAddress: 203.0.113.40}\n  - {name: i,")
    text += "natGateways: [{name: nat, publicIPAddresses: [n], subnets: [web]}]\n"
    world = Scenario(text)
    mine = Connections(world, "vm3")  # which has an address of its own, too
    mine.open(range(2000, 2199))
    mine.reset(range(2000, 2150))
    look = Look(world, "vm3")
    mine.open(range(3000, 3010))
    finding = only(look.diagnosed(), "Critical")
    assert finding.title == "vm3 is out of TCP ports toward 198.51.100.1:443"
    assert "150 reset, their ports still held" in finding.text
    assert "after its RST each holds its port for 16 s" in told(finding)
    assert "A further public IP on NAT gateway nat has 64,512 ports more" in told(finding)
    assert "instance-level" not in told(finding)


def test_who_does_not_answer_should_let_a_nat_gateways_address_in() -> None:
    text = current(RULE).replace("{name: i,", "{name: n, ipAddress: 203.0.113.40}\n  - {name: i,")
    text += "natGateways: [{name: nat, publicIPAddresses: [n], subnets: [web]}]\n"
    world = Scenario(text)
    mine = Connections(world, "vm3")
    for number in range(2000, 2010):
        mine.begin(number)
    world.wait(5)
    finding = only(Look(world, "vm3").diagnosed(), "Warning")
    assert "Each holds a SNAT port until it was idle for 30 s." in finding.text
    assert "that its firewall lets 203.0.113.40 in" in told(finding)


NAT_OF_HALF_AN_HOUR = (
    "natGateways:\n"
    "  - {name: nat, publicIPAddresses: [d], subnets: [web], idleTimeoutInMinutes: 30}\n"
)


SHORTER = (
    "      - {name: short, frontendIPConfigurations: [fe1], backendAddressPool: pool,\n"
    "         protocol: Tcp, allocatedOutboundPorts: 1024, idleTimeoutInMinutes: 5}\n"
)


@pytest.mark.parametrize(
    ("vm", "text", "idle"),
    [
        ("vm2", current(RULE), "30 min (30 min here)"),
        ("vm1", current(RULE).replace("defaultOutboundAccess: {publicIPAddresses: [d]}\n", "")
            + NAT_OF_HALF_AN_HOUR, "30 min (30 min here)"),
        # All flows are on the first frontend while it has ports, and may be on the other later.
        ("vm2", current(RULE + SHORTER, frontends=2), "5 min (5 min here)"),
    ],
)  # fmt: skip
def test_keep_alive_is_by_the_shortest_time_of_the_vms_own_rules_or_nat_gateway(
    vm: str, text: str, idle: str
) -> None:
    world = Scenario(text)
    look = Look(world, vm)
    for _ in range(5):
        world.send(vm, build(f"tcp {PRIVATE[vm]}:4000 > {SERVER}:443 ack"))
    world.wait(61)
    finding = only(look.diagnosed(), "Warning")
    assert f"keep-alive on either side to less than {idle}" in told(finding)


def test_the_ports_of_an_outbound_rule_wait_for_an_answer_as_long_as_it_says() -> None:
    world = Scenario(current(RULE.replace("protocol: Tcp", "protocol: All")))
    mine = Connections(world, "vm2")
    for number in range(2000, 2010):
        mine.begin(number)
    world.wait(5)
    finding = only(Look(world, "vm2").diagnosed(), "Warning")
    assert "Each holds a SNAT port until it was idle for 30 min." in finding.text
    look = Look(world, "vm2")
    for number in range(1030):
        world.send("vm2", with_port(f"udp 10.0.1.5:0 > {SERVER}:53", 20, 2000 + number))
    (advice,) = (a for f in look.diagnosed() for a in f.advice if a.startswith("Send from one UDP"))
    assert "each of these 1,024 keeps its own until it was idle for 4 min." in advice  # UDP's own


def test_udp_without_a_rule_of_its_own() -> None:
    world = Scenario(current(RULE))
    world.send("vm2", build(f"udp 10.0.1.5:4000 > {SERVER}:53"))
    finding = only(Look(world, "vm2").diagnosed(), "Warning")
    assert finding.title == "UDP of vm2 has no outbound connectivity"
    assert (
        "in azure-current a rule does so for its own. DNS, NTP and QUIC are dropped" in finding.text
    )


def test_default_snat_is_what_a_subnet_allows_today() -> None:
    finding = only(Look(Scenario(current(RULE)), "vm1").diagnosed(), "Warning")
    assert finding.title == "vm1 has no outbound connectivity"
    assert "its subnet has no NAT gateway" in finding.text
    assert "and defaultOutboundAccess: true for its subnet" in told(finding)
    world = Scenario(current(RULE, subnet=", defaultOutboundAccess: true"))
    Connections(world, "vm1").open(range(2000, 3030))
    finding = only(Look(world, "vm1").diagnosed(), "Critical")
    assert "An outbound rule of a Standard load balancer can give it up to 64,000" in told(finding)


# -- what else keeps traffic from flowing


def test_connections_without_an_answer(world: Scenario) -> None:
    mine = Connections(world, "vm2", port=5432)
    for number in range(2000, 2012):
        mine.begin(number)
    Connections(world, "vm2", OTHER).begin(3000)
    world.wait(5)
    finding = only(Look(world, "vm2").diagnosed(), "Warning")
    assert finding.title == "13 connections of vm2 are not answered"
    assert (
        "(the first 5 s ago) and nothing came back: 12 of them to 198.51.100.1:5432" in finding.text
    )
    assert "lets 203.0.113.20 in" in told(finding)


def test_a_rule_that_denies_is_named() -> None:
    world = Scenario(GUARDED)
    for _ in range(4):
        world.send("vm1", build("tcp 10.0.1.4:4000 > 198.51.100.7:25 syn"))
    world.wait(61)
    finding = only(Look(world, "vm1").diagnosed(), "Warning")
    assert finding.title == "Rule no-smtp of subnet-nsg denies what vm1 sends"
    assert (
        "At least 4 packets in the last 5 min were dropped, the last one Tcp to 198.51.100.7"
        in (finding.text)
    )
    assert "snatgw explain --vm vm1 --to 198.51.100.7:PORT/tcp" in told(finding)


def test_what_groups_keep_out_is_no_alarm() -> None:
    world = Scenario(GUARDED)
    world.send("outside", build("tcp 192.0.2.9:4000 > 203.0.113.30:22 syn"))
    findings = Look(world, "vm2").diagnosed()
    finding = only(findings, "Information")
    assert finding.title == "subnet-nsg keeps packets from vm2"
    assert "the last one Tcp from 192.0.2.9" in finding.text
    assert findings[-1].severity == "Good"


def test_no_way_out() -> None:
    world = Scenario(yaml().replace("defaultOutboundAccess: {publicIPAddresses: [d]}\n", ""))
    finding = only(Look(world, "vm1").diagnosed(), "Warning")
    assert finding.title == "vm1 has no outbound connectivity"
    world.send("vm1", build(f"tcp 10.0.1.4:4000 > {SERVER}:443 syn"))
    finding = only(Look(world, "vm1").diagnosed(), "Critical")
    assert "Dropped: at least 1 packet in the last 5 min." in finding.text
    assert "Or allow default SNAT (1,024 SNAT ports): a public IP under" in told(finding)


def test_connections_that_idled_out(world: Scenario) -> None:
    mine = Connections(world, "vm1")
    mine.open(range(2000, 2010))
    world.wait(300)
    for number in range(2000, 2010):
        world.send("vm1", mine._packet(number, "ack len=5"))
    world.wait(61)
    finding = only(Look(world, "vm1", scale=5).diagnosed(), "Warning")
    assert finding.title == "vm1 sends on connections that the gateway has forgotten"
    assert "At least 10 packets" in finding.text
    assert "keep-alive on either side to less than 4 min (48 s here)" in told(finding)


@pytest.mark.parametrize(
    ("packet", "title"),
    [
        ("echo 10.0.1.4 > 198.51.100.1 id=1", "vm1 pings, and ping does not pass SNAT"),
        ("udp 10.0.1.4:5 > 172.16.0.1:53", "vm1 sends to an address that is not internet"),
        ("ip 10.0.1.4 > 198.51.100.1 proto=47", "Packets of vm1 are dropped: ProtocolNotSupported"),
        (
            "tcp 10.0.1.4:5 > 203.0.113.20:81 syn",
            "A VM sends to 203.0.113.20, and nothing there takes it",
        ),
    ],
)
def test_packets_that_go_nowhere(world: Scenario, packet: str, title: str) -> None:
    world.send("vm1", build(packet))
    findings = Look(world).diagnosed()
    assert only(findings, "Information").title == title
    assert findings[-1].title == "All 3 VMs are healthy"  # as far as the gateway goes


# -- the gateway itself


def gateway_event(operation: str, **properties: Any) -> dict[str, Any]:
    return {
        "time": "2026-01-31T12:00:00.000Z",
        "category": "GatewayEvent",
        "operationName": operation,
        "properties": properties,
    }


def test_a_gateway_that_loses_packets(world: Scenario) -> None:
    look = Look(world)
    look.earlier["packets"] = 10_000
    world.wait(2)
    overflow = gateway_event("QueueOverflow", kernelDropped=30, socketDropped=12, overflows=1)
    finding = only(look.diagnosed([overflow], {"packets": 210_000}), "Critical")
    assert finding.text.startswith("42 packets found no room in its queue in the last 5 min")
    assert "Now it handles 100,000 a second." in finding.text


@pytest.mark.parametrize(
    ("alone", "others", "severity", "says"),
    [
        (False, False, "Critical", "got as far as the outside interface"),
        (True, False, "Warning", "were stopped while no gateway ran"),
        (False, True, "Warning", "The guard or another program's filter"),
        (True, True, "Warning", "The guard or another program's filter"),
    ],
)
def test_what_the_guard_stopped(
    world: Scenario, alone: bool, others: bool, severity: str, says: str
) -> None:
    properties = {"whileNoGatewayRan": alone, "otherFilters": others}
    event = gateway_event("GuardDroppedPackets", count=36, total=36, **properties)
    finding = only(Look(world).diagnosed([event]), severity)
    assert says in finding.title
    assert "36 packets" in finding.text


def test_a_full_flow_table(world: Scenario) -> None:
    look = Look(world)
    world.wait(2)
    status = {"flows": 1000, "maximumFlows": 1000, "drops": {"FlowTableFull": 7}}
    finding = only(look.diagnosed(status=status), "Critical")
    assert finding.title == "The flow table is 100 % full"
    assert "7 new flows dropped in the last 2 s" in finding.text
    nearly = only(Look(world).diagnosed(status={"flows": 950, "maximumFlows": 1000}), "Warning")
    assert nearly.title == "The flow table is 95 % full"


def test_a_refused_reload_counts_until_the_next_one(world: Scenario) -> None:
    refused = gateway_event("ReloadRefused", problems=["gateway.yaml: it is bad", "and so is this"])
    finding = only(Look(world).diagnosed([refused]), "Warning")
    assert finding.text.endswith("gateway.yaml: it is bad (and 1 more)")
    later = [refused, gateway_event("Reloaded", changes=[])]
    assert only(Look(world).diagnosed(later), "Good")


def test_the_host_the_log_and_mistakes(world: Scenario) -> None:
    events = [gateway_event("HandlerError", count=3, trace="…")]
    host = {"problems": ["wan0 is down"], "since": "2026-01-01T00:00:00Z", "restored": 0}
    status = {"events": {"lost": 5, "unwritten": 2}, "host": host}
    titles = [f.title for f in Look(world).diagnosed(events, status) if f.severity != "Good"]
    assert titles == [
        "An internal error of the gateway dropped packets",
        "The host's network is not as the gateway needs it",
        "Events are being lost",
        "The event log cannot be written",
    ]
    restored = [gateway_event("HostRestored", problems=[])]
    well: dict[str, Any] = {"host": {"problems": [], "since": None, "restored": 0}}
    assert [f.severity for f in Look(world).diagnosed(restored, well)] == ["Good"]


def test_where_the_host_drops_everything_no_vm_is_well_and_the_command_stands_alone(
    world: Scenario,
) -> None:
    command = "nft 'insert rule inet fw forward iifname lan0 oifname wan0 accept; and more'"
    said = "the host's own firewall drops what VMs send: nftables' table inet fw, chain forward"
    problem = f"{said}, by its policy. This lets them pass: {command}"
    (finding,) = Look(world).diagnosed([gateway_event("HostFirewall", problems=[problem])])
    assert finding.severity == "Critical"
    assert finding.text.endswith("chain forward, by its policy.")
    assert finding.advice[0] == f"This lets them pass:\n{command}"
    perhaps = [gateway_event("HostFirewall", problems=[problem.replace(" drops ", " may drop ")])]
    severities = [f.severity for f in Look(world).diagnosed(perhaps)]
    assert severities == ["Warning", "Good"]
    isolated = problem.replace("what VMs send", f"what VMs send each other{INSIDE_ONLY}")
    severities = [
        f.severity
        for f in Look(world).diagnosed([gateway_event("HostFirewall", problems=[isolated])])
    ]
    assert severities == ["Warning", "Good"]


def test_what_somebody_takes_away_again_and_again(world: Scenario) -> None:
    events = [
        gateway_event("HostRestored", problems=[], restored=[f"{n} was set again"]) for n in "ab"
    ]
    finding = only(Look(world).diagnosed(events), "Warning")
    assert finding.title == "Another program changes the host's network under the gateway"
    assert finding.text.startswith("2 times in the last 5 min the gateway had to restore")
    assert finding.text.endswith(": b was set again.")


def test_forged_sources(world: Scenario) -> None:
    world.send("vm1", build(f"udp 192.168.7.7:5 > {SERVER}:53"), forged=True)
    finding = only(Look(world).diagnosed(), "Warning")
    assert finding.title == "Packets come from 192.168.7.7, which is in no subnet"


def test_a_frontend_without_a_healthy_backend(world: Scenario) -> None:
    dropped = PacketsDropped(
        0, DropReason.NO_HEALTHY_BACKEND, None, 6, "192.0.2.9", "203.0.113.20", 5
    )
    finding = only(Look(world).diagnosed([event_document(dropped, NOON)]), "Critical")
    assert finding.title == "No VM behind 203.0.113.20 accepts connections"
    assert "At least 5 packets in the last 5 min" in finding.text


def test_a_backend_that_its_probe_finds_down() -> None:
    world = Scenario(yaml())
    text = yaml().replace("backendPort: 80}", "backendPort: 80, probe: p}")
    text += "    probes: [{name: p, protocol: Tcp, port: 8080}]\n"
    world.reconfigure(text)
    world.engine.health.report(Target("lb", "p", "vm2"), False, world.now)
    look = Look(world, "vm2")
    look.results["vm2"] = Result(0, False, -3, False, "connection refused", 1.5)
    finding = only(look.diagnosed(), "Warning")
    assert finding.title == "Probe p of lb finds vm2 down"
    assert finding.text == (
        "Its last result: connection refused, 3 times in a row. It gets no new flows of r0."
    )
    assert "something has to answer it in vm2, on the probe's port" in told(finding)
    group = "networkSecurityGroups: [{name: closed, securityRules: [{name: no, priority: 100, "
    group += "direction: Inbound, access: Deny, protocol: '*', sourceAddressPrefix: '*', "
    group += "sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '*'}]}]\n"
    closed = text.replace(
        "addressPrefix: 10.0.0.0/16}", "addressPrefix: 10.0.0.0/16, networkSecurityGroup: closed}"
    )
    world.reconfigure(closed + group)
    finding = only(Look(world, "vm2").diagnosed(), "Warning")
    assert "Rule closed/no denies the probe: allow AzureLoadBalancer" in told(finding)


def test_flows_that_a_reload_ended(world: Scenario) -> None:
    event = gateway_event("FlowsEnded", flows=12, reason="the subnet is gone")
    finding = only(Look(world).diagnosed([event]), "Warning")
    assert finding.title == "A reload ended 12 flows"
    assert "the subnet is gone" in finding.text


# -- form


def test_the_worst_comes_first_and_there_is_an_end(
    world: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(world)
    Connections(world, "vm1").open(range(2000, 3030))
    Connections(world, "vm2").open(range(2000, 2900))
    world.send("vm1", build("echo 10.0.1.4 > 198.51.100.1 id=1"))
    findings = look.diagnosed()
    assert [f.severity for f in findings] == ["Critical", "Warning", "Information", "Good"]
    assert findings[-1].title == "1 other VM is healthy"
    monkeypatch.setattr(diagnose, "MOST", 1)
    first, more, _ = look.diagnosed()
    assert (first.severity, more.title) == ("Critical", "There is more")


def test_numbers_in_words() -> None:
    assert [duration(s) for s in (0.4, 59.6, 119, 120, 200, 7200, 7560)] == [
        "0 s", "60 s", "119 s", "2 min", "3 min 20 s", "2 h", "2 h 6 min",
    ]  # fmt: skip
    assert [percent(part, 1000) for part in (0, 1, 10, 999, 1000, 1200)] == [
        "0 %", "under 1 %", "1 %", "99 %", "100 %", "120 %",
    ]  # fmt: skip
    assert [count(n, "entry") for n in (1, 2)] == ["1 entry", "2 entries"]
    assert [rate(r) for r in (0.05, 8.12)] == ["3.0 a minute", "8.1 a second"]
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip
