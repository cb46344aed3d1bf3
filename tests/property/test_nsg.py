"""The compiled groups against an evaluator that is slow and obviously right."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.explain import explain_inbound, explain_outbound, opening_packet
from gateway.core.policy.nsg import FiveTuple, RuleSet
from gateway.model.configuration import Configuration, NetworkSecurityGroup, SecurityRule
from gateway.model.resolved.security_rules import resolve_groups
from gateway.model.resolved.tags import NOT_INTERNET
from tests.scenario import Scenario, configuration

VNET = IPv4Network("10.0.0.0/16")
MEMBERS = ["10.0.1.4", "10.0.1.5"]  # of the application security group

HEAD = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: one}
    - {name: data, addressPrefix: 10.0.2.0/24}
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-2, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
applicationSecurityGroups: [{name: asg}]
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4, applicationSecurityGroups: [asg]}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-2, networkSecurityGroup: two,
     applicationSecurityGroups: [asg]}
  - {name: vm3, privateIPAddress: 10.0.2.4}
networkSecurityGroups:
"""

# Few values, so that rules and packets meet.
addresses = st.sampled_from(
    [
        "10.0.1.4",
        "10.0.1.5",
        "10.0.2.4",
        "10.1.0.1",
        "198.51.100.1",
        "198.51.100.130",
        "8.8.8.8",
        "168.63.129.16",
        "172.16.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ]
)
prefixes = st.sampled_from(
    [
        "'*'",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.1.0/24",
        "10.0.1.4",
        "198.51.100.0/25",
        "8.0.0.0/7",
        "VirtualNetwork",
        "Internet",
        "AzureLoadBalancer",
    ]
)
ports = st.sampled_from([0, 1, 22, 79, 80, 81, 443, 8000, 8010, 65535])
port_ranges = st.sampled_from(["'*'", "'80'", "'0-79'", "'8000-8010'", "'443'", "'1-65535'"])
EDGES = sorted({0, 65535, *(n + d for n in (0, 1, 79, 80, 443, 8000, 8010) for d in (0, 1))})
"""A port of every stretch between the ends of the ranges above: ranges that hold all of these hold every port."""
protocols = st.sampled_from([1, 6, 17, 47, 50, 51])


@st.composite
def rules(draw: st.DrawFn, priority: int) -> str:
    sides = []
    for side in ("source", "destination"):
        if draw(st.integers(0, 4)) == 0:
            sides.append(f"{side}ApplicationSecurityGroups: [asg]")
        elif draw(st.booleans()):
            sides.append(f"{side}AddressPrefix: {draw(prefixes)}")
        else:
            listed = draw(
                st.lists(
                    st.sampled_from(["10.0.1.4", "10.0.2.0/24", "198.51.100.1", "8.8.8.8/32"]),
                    min_size=1,
                    max_size=3,
                    unique=True,
                )
            )
            sides.append(f"{side}AddressPrefixes: [{', '.join(listed)}]")
        if draw(st.booleans()):
            sides.append(f"{side}PortRange: {draw(port_ranges)}")
        else:
            some = draw(
                st.lists(
                    port_ranges.filter(lambda p: p != "'*'"), min_size=1, max_size=3, unique=True
                )
            )
            sides.append(f"{side}PortRanges: [{', '.join(some)}]")
    protocol = draw(st.sampled_from(["Tcp", "Udp", "Icmp", "Esp", "Ah", "'*'"]))
    if protocol in ("Icmp", "Esp", "Ah"):
        sides = [
            s if "PortRange" not in s else f"{s.split('Port')[0]}PortRange: '*'" for s in sides
        ]
    return (
        f"      - {{name: r{priority}, priority: {priority}, protocol: {protocol},"
        f" direction: {draw(st.sampled_from(['Inbound', 'Outbound']))},"
        f" access: {draw(st.sampled_from(['Allow', 'Deny']))}, {', '.join(sides)}}}\n"
    )


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    text = HEAD
    for name in ("one", "two"):
        count = draw(st.integers(0, 5))
        body = "".join(draw(rules(100 + n)) for n in range(count))
        text += f"  - name: {name}\n" + (f"    securityRules:\n{body}" if body else "")
    return configuration(text)


# -- the naive evaluator: from the configuration's text, rule by rule


def naive(
    configured: Configuration, group: NetworkSecurityGroup, direction: str, p: FiveTuple
) -> str:
    """The name of the rule that decides."""
    candidates = sorted(
        (rule for rule in group.security_rules if rule.direction == direction),
        key=lambda rule: rule.priority,
    )
    for rule in candidates:
        if matches(rule, p):
            return rule.name
    source, to = IPv4Address(p.source), IPv4Address(p.destination)
    if direction == "Inbound":
        if tagged("VirtualNetwork", source) and tagged("VirtualNetwork", to):
            return "AllowVnetInBound"
        if tagged("AzureLoadBalancer", source):
            return "AllowAzureLoadBalancerInBound"
        return "DenyAllInBound"
    if tagged("VirtualNetwork", source) and tagged("VirtualNetwork", to):
        return "AllowVnetOutBound"
    return "AllowInternetOutBound" if tagged("Internet", to) else "DenyAllOutBound"


def matches(rule: SecurityRule, p: FiveTuple) -> bool:
    numbers = {"Tcp": 6, "Udp": 17, "Icmp": 1, "Esp": 50, "Ah": 51}
    if rule.protocol != "*" and numbers[rule.protocol] != p.protocol:
        return False
    for side, address, port in (
        ("source", p.source, p.source_port),
        ("destination", p.destination, p.destination_port),
    ):
        one = getattr(rule, f"{side}_address_prefix")
        many = getattr(rule, f"{side}_address_prefixes")
        asgs = getattr(rule, f"{side}_application_security_groups")
        texts = [*([one] if one is not None else []), *many]
        host = IPv4Address(address)
        if not any(within(text, host) for text in texts) and not (asgs and str(host) in MEMBERS):
            return False
        one = getattr(rule, f"{side}_port_range")
        many = getattr(rule, f"{side}_port_ranges")
        ranges = [*([one] if one is not None else []), *many]
        if p.protocol in (6, 17):
            if not any(in_range(text, port) for text in ranges):
                return False
        elif not all(any(in_range(text, n) for text in ranges) for n in EDGES):
            return False  # no port there: only a rule for every port matches
    return True


def within(text: str, host: IPv4Address) -> bool:
    if text == "*":
        return True
    if text[0].isalpha():
        return tagged(text, host)
    return host in IPv4Network(text)


def tagged(tag: str, host: IPv4Address) -> bool:
    platform = host == IPv4Address("168.63.129.16")
    if tag == "AzureLoadBalancer":
        return platform
    if tag == "VirtualNetwork":
        return platform or host in VNET
    return host not in VNET and not any(host in network for network in NOT_INTERNET)


def in_range(text: str, port: int) -> bool:
    if text == "*":
        return True
    low, _, high = text.partition("-")
    return int(low) <= port <= int(high or low)


@given(
    configurations(),
    st.lists(st.tuples(protocols, addresses, ports, addresses, ports), max_size=30),
)
@example(  # three ranges that together are every port match what has none
    configuration(
        HEAD
        + """
  - name: one
    securityRules:
      - {name: r100, priority: 100, direction: Inbound, access: Allow, protocol: '*', sourceAddressPrefix: '*',
         sourcePortRanges: ['80', 0-79, 1-65535], destinationAddressPrefix: '*', destinationPortRange: '*'}
  - {name: two}
"""
    ),
    [(1, "10.0.1.4", 0, "10.0.1.4", 0)],
)
@settings(max_examples=150, deadline=None)
def test_the_compiled_form_decides_as_the_rules_read(
    configured: Configuration, packets: list[tuple[int, str, int, str, int]]
) -> None:
    resolved = resolve_groups(configured)
    for group in configured.network_security_groups:
        for direction in ("Inbound", "Outbound"):
            compiled = RuleSet(r for r in resolved[group.name].rules if r.direction == direction)
            for protocol, source, sport, to, dport in packets:
                if protocol not in (6, 17):
                    sport = dport = 0
                five = FiveTuple(
                    protocol, int(IPv4Address(source)), sport, int(IPv4Address(to)), dport
                )
                decided = compiled.rules[compiled.first_match(*five)].name
                assert decided == naive(configured, group, direction, five)


@given(
    configurations(),
    st.sampled_from(["vm1", "vm2", "vm3"]),
    st.sampled_from(["Tcp", "Udp", "Icmp"]),
    addresses,
    ports.filter(bool),
    ports.filter(bool),
)
@settings(max_examples=300, deadline=None)
def test_explain_says_what_the_packet_then_meets(
    configured: Configuration, vm: str, protocol: str, to: str, port: int, source_port: int
) -> None:
    scenario = Scenario("", loaded=configured)
    source = configured.virtual_machine(vm).private_ip_address
    remote = IPv4Address(to)
    if remote == source:
        return
    said = explain_outbound(scenario.engine, source, protocol, remote, port, source_port)
    hits = [r.hits for r in scenario.engine.security_records()]
    assert not any(hits)  # asking counts nothing
    number = {"Tcp": 6, "Udp": 17, "Icmp": 1}[protocol]
    view = opening_packet(number, source, source_port, remote, port)
    lateral = remote in VNET
    verdict = scenario.send(vm, view.packet, lateral=lateral)
    assert (verdict is not None) == (said["verdict"] == "Allow")
    if verdict is None:
        assert said["verdict"] == (
            "Deny" if scenario.reason() == "DeniedBySecurityRule" else "Drop"
        )
        if said["verdict"] == "Drop":
            assert said["reason"].startswith(scenario.reason())
    else:
        (flow,) = scenario.flow_list()
        assert flow.method == said["method"]
        if not lateral:
            assert flow.public_ip in [c["publicIp"] for c in said["candidates"]]
    decided = [r for r in scenario.engine.security_records() if r.hits]
    asked = [(g["name"], g["rule"]) for g in said["networkSecurityGroups"]]
    assert sorted({(r.group, r.name) for r in decided}) == sorted(set(asked))


@given(configurations(), st.sampled_from(["Tcp", "Udp", "Icmp"]), addresses, ports, ports)
@settings(max_examples=200, deadline=None)
def test_explain_inbound_says_what_the_packet_then_meets(
    configured: Configuration, protocol: str, source: str, source_port: int, port: int
) -> None:
    scenario = Scenario("", loaded=configured)
    public, remote = IPv4Address("203.0.113.30"), IPv4Address(source)
    said = explain_inbound(scenario.engine, remote, source_port, protocol, public, port)
    number = {"Tcp": 6, "Udp": 17, "Icmp": 1}[protocol]
    view = opening_packet(number, remote, source_port, public, port)
    forged = scenario.parties.owner(source) != "outside"
    verdict = scenario.send("outside", view.packet, forged=forged)
    assert (verdict is not None) == (said["verdict"] == "Allow")
    if verdict is None:
        denied = scenario.reason() == "DeniedBySecurityRule"
        assert said["verdict"] == ("Deny" if denied else "Drop")
        if not denied:
            assert said["reason"].startswith(f"{scenario.reason()}: ")
            assert scenario.reason() == "SourceNotOutside"
    if remote in VNET:
        assert verdict is None
