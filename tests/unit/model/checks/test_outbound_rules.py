"""What azure-current accepts, refuses and warns of: outbound rules, NAT gateways, subnets."""

from __future__ import annotations

import pytest

from gateway.model import load_text
from tests.unit.model.files import changed, configuration, messages

CURRENT = """\
gateway:
  profile: azure-current
  inside: [lan0]
  outside: wan0
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: open}
    - {name: db, addressPrefix: 10.0.2.0/24, defaultOutboundAccess: true}
networkSecurityGroups: [{name: open}]
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.10}
  - {name: pip-b, ipAddress: 203.0.113.11}
  - {name: pip-d, ipAddress: 203.0.113.13}
  - {name: pip-n, ipAddress: 203.0.113.14}
  - {name: pip-m, ipAddress: 203.0.113.15}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: vm3, privateIPAddress: 10.0.2.4}
loadBalancers:
  - name: lb
    sku: Standard
    frontendIPConfigurations:
      - {name: fe1, publicIPAddress: pip-a}
      - {name: fe2, publicIPAddress: pip-b}
    backendAddressPools: [{name: pool, virtualMachines: [vm1, vm2]}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe1, backendAddressPool: pool,
         protocol: Tcp, frontendPort: 80, backendPort: 80, disableOutboundSnat: true}
    outboundRules:
      - {name: out, frontendIPConfigurations: [fe1], backendAddressPool: pool, protocol: All,
         allocatedOutboundPorts: 1024}
"""

RULES = CURRENT[CURRENT.index("frontendPort") :].replace("{", "{{").replace("}", "}}")
RULES = RULES.replace("Port: 80,", "Port: {},", 1).replace("Ports: 1024", "Ports: {}")
NAT = "natGateways: [{{name: nat, publicIPAddresses: [{}], subnets: [{}]}}]\nloadBalancers:"
OUT = "loadBalancers[0].outboundRules[0]"
REFUSED = {
    "no multiple of 8": (
        "Ports: 1024", "Ports: 1001",
        (f"{OUT}: allocatedOutboundPorts must be a multiple of 8, as 1000 "
        "(SpecifiedAllocatedOutboundPortsForOutboundRuleIsNotAMultipleOfEight)"),
    ),
    "more than 64,000 for each IP": (
        "Ports: 1024", "Ports: 40000",
        (f"{OUT}.allocatedOutboundPorts = 40000: 40000 ports for each of 2 VMs are 80000, but 1 "
        "public IP address can give 64000; allowed: at most 32000 (SpecifiedAllocatedOutboundPorts"
        "ForOutboundRuleExceedsTotalNumberOfAllowedPortsPerRule)"),
    ),
    "more than is left besides rules' ports": (
        RULES.format(80, 1024), RULES.format(8080, 32000),
        (f"{OUT}.allocatedOutboundPorts = 32000: 8 Tcp ports more than the frontends have left, in "
        "units of 8, without rules' frontend ports and what earlier outbound rules take; allowed: "
        "fewer ports or VMs, or more frontends (SpecifiedAllocatedOutboundPortsForOutboundRule"
        "ExceedsTotalNumberOfAvailablePorts)"),
    ),
    "SNAT of a rule on the same frontend": (
        ", disableOutboundSnat: true", "",
        ("loadBalancers[0].loadBalancingRules[0].disableOutboundSnat = false: outbound rule out has "
        "the same frontend fe1; allowed: disableOutboundSnat: true (LoadBalancingRuleMustDisable"
        "SNATSinceSameFrontendIPConfigurationIsReferencedByOutboundRule)"),
    ),
    "two outbound rules for one VM on one frontend": (
        "    outboundRules:\n",
        ("    outboundRules:\n"
        "      - {name: u, frontendIPConfigurations: [fe2, fe1], backendAddressPool: pool, "
        "protocol: Udp}\n"),
        ("loadBalancers[0].outboundRules[1].backendAddressPool = pool: VM vm1 has its Udp ports on "
        "fe1 by loadBalancers[0].outboundRules[0] already; allowed: one outbound rule for a "
        "frontend, protocol and VM"),
    ),
    "unknown frontend of an outbound rule": (
        "frontendIPConfigurations: [fe1]", "frontendIPConfigurations: [fe3]",
        (f"{OUT}.frontendIPConfigurations[0] = fe3: no such name in frontendIPConfigurations; "
        "did you mean fe2?"),
    ),
    "frontend twice in an outbound rule": (
        "frontendIPConfigurations: [fe1]", "frontendIPConfigurations: [fe1, fe1]",
        f"{OUT}.frontendIPConfigurations[1] = fe1: frontend named twice in this rule",
    ),
    "unknown pool of an outbound rule": (
        "[fe1], backendAddressPool: pool", "[fe1], backendAddressPool: pol",
        f"{OUT}.backendAddressPool = pol: no such name in backendAddressPools; did you mean pool?",
    ),
    "unknown subnet of a NAT gateway": (
        "loadBalancers:", NAT.format("pip-n", "wbe"),
        "natGateways[0].subnets[0] = wbe: no such name in subnets; did you mean web?",
    ),
    "public IP of a frontend and of a NAT gateway": (
        "loadBalancers:", NAT.format("pip-b", "db"),
        ("natGateways[0].publicIPAddresses[0] = pip-b: public IP address already used by "
        "loadBalancers[0].frontendIPConfigurations[1].publicIPAddress; allowed: one use"),
    ),
    "subnet with two NAT gateways": (
        "loadBalancers:",
        ("natGateways:\n  - {name: n1, publicIPAddresses: [pip-n], subnets: [web]}\n"
        "  - {name: n2, publicIPAddresses: [pip-m], subnets: [db, web]}\nloadBalancers:"),
        ("natGateways[1].subnets[1] = web: subnet already has natGateways[0]; "
        "allowed: one NAT gateway"),
    ),
    "subnet twice": (
        "loadBalancers:", NAT.format("pip-n", "web, web"),
        "natGateways[0].subnets[1] = web: subnet named twice",
    ),
    "idle timeout of a NAT gateway": (
        "loadBalancers:", NAT.format("pip-n", "web").replace("]}", "], idleTimeoutInMinutes: 121}"),
        ("natGateways[0].idleTimeoutInMinutes = 121: out of range; "
        "allowed: 4 to 120 minutes as in Azure, or less, as a fraction, but more than 0"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [pytest.param(*row, id=name) for name, row in REFUSED.items()],
)
def test_the_one_mistake_is_named(old: str, new: str, message: str) -> None:
    (found,) = messages(changed(old, new, CURRENT))
    assert found == message


def warnings(text: str) -> list[str]:
    loaded = load_text(text, "t.yaml")
    assert loaded.configuration is not None, loaded.problems
    return [str(p).split(": warning: ", 1)[1] for p in loaded.problems if p.severity == "warning"]


def test_the_file_itself_is_without_fault() -> None:
    assert warnings(CURRENT) == []
    assert configuration(CURRENT).profile.name == "azure-current"


def test_a_basic_load_balancer_is_said_to_be_retired_and_has_nothing_of_a_standard_one() -> None:
    basic = changed("sku: Standard", "sku: Basic", CURRENT)
    assert messages(basic) == [
        f"loadBalancers[0].{what} is for Standard load balancers; allowed with sku: Standard"
        for what in (
            "loadBalancingRules[0].disableOutboundSnat = true: this",
            "outboundRules: an outbound rule",
        )
    ]
    plain = CURRENT[: CURRENT.index("    outboundRules")].replace(", disableOutboundSnat: true", "")
    (said,) = warnings(changed("sku: Standard", "sku: Basic", plain))
    assert said.startswith("Azure retired Basic load balancers")


def test_a_nat_gateway_has_at_most_16_addresses_and_needs_a_subnet() -> None:
    publics = "".join(f"  - {{name: n{n}, ipAddress: 203.0.113.{100 + n}}}\n" for n in range(17))
    text = changed("defaultOutboundAccess: {", f"{publics}defaultOutboundAccess: {{", CURRENT)
    names = [f"n{n}" for n in range(17)]
    assert messages(changed("loadBalancers:", NAT.format(", ".join(names), "web"), text)) == [
        "natGateways[0].publicIPAddresses: 17 public IP addresses; allowed: at most 16"
    ]
    full = changed("loadBalancers:", NAT.format(", ".join(names[:16]), "web"), text)
    assert warnings(full) == []
    (said,) = warnings(full.replace(", subnets: [web]", ""))
    assert said == "no subnet: nothing goes out by this NAT gateway"


def test_a_basic_load_balancer_beside_a_nat_gateway_is_refused() -> None:
    plain = CURRENT[: CURRENT.index("    outboundRules")].replace(", disableOutboundSnat: true", "")
    text = changed("sku: Standard", "sku: Basic", plain)
    assert messages(changed("loadBalancers:", NAT.format("pip-n", "web"), text)) == [
        f"loadBalancers[0].backendAddressPools[0].virtualMachines[{n}] = vm{n + 1}: subnet web has "
        "a NAT gateway, beside which Azure allows no Basic load balancer; allowed: sku: Standard"
        for n in range(2)
    ]


def test_no_snat_at_all_is_warned_of() -> None:
    text = CURRENT[: CURRENT.index("    outboundRules")]
    (said,) = warnings(text)
    assert said.startswith("no outbound rule is there for Tcp of pool")


def test_default_outbound_access_without_a_subnet_or_an_address_is_warned_of() -> None:
    (said,) = warnings(changed(", defaultOutboundAccess: true", "", CURRENT))
    assert said == "no subnet has defaultOutboundAccess: true, so that no VM goes out by these"
    (said,) = warnings(changed("publicIPAddresses: [pip-d]", "publicIPAddresses: []", CURRENT))
    assert said == "defaultOutboundAccess.publicIPAddresses is empty: there is no such way"


def test_number_of_probes_is_ignored_with_a_warning() -> None:
    probes = "    probes: [{name: p, protocol: Tcp, port: 80, numberOfProbes: 3}]\n"
    text = changed("    loadBalancingRules:\n", probes + "    loadBalancingRules:\n", CURRENT)
    text = changed("backendAddressPool: pool,\n", "backendAddressPool: pool, probe: p,\n", text)
    said = warnings(text)
    assert "Azure ignores numberOfProbes, and so does this profile; use probeThreshold" in said


BARE = changed(", networkSecurityGroup: open", "", CURRENT)
ADMITS_NOTHING = (
    "no network security group, on subnet or interface: {} admits nothing from outside, as of "
    "Azure's Standard public IPs; a group has to allow it"
)


def test_standard_rules_and_own_public_ips_without_a_group_are_warned_of() -> None:
    text = changed(
        "    outboundRules:\n",
        "    inboundNatRules:\n"
        "      - {name: ssh, frontendIPConfiguration: fe1, protocol: Tcp, frontendPort: 50001,\n"
        "         virtualMachine: vm2, backendPort: 22}\n"
        "    outboundRules:\n",
        changed("10.0.2.4}", "10.0.2.4, publicIPAddress: pip-n}", BARE),
    )
    rule, own = ADMITS_NOTHING.format("the rule"), ADMITS_NOTHING.format("its own public IP")
    assert warnings(text) == [
        f"VM vm3 has {own}",
        f"VMs vm1, vm2 have {rule}",
        f"VM vm2 has {rule}",
    ]
    (said,) = warnings(changed("10.0.1.4}", "10.0.1.4, networkSecurityGroup: open}", BARE))
    assert said == f"VM vm2 has {rule}"


def test_basic_rules_and_azure_2017_are_open_without_a_group() -> None:
    plain = BARE[: BARE.index("    outboundRules")].replace(", disableOutboundSnat: true", "")
    basic = changed("sku: Standard", "sku: Basic", plain)
    assert not [said for said in warnings(basic) if "admits nothing" in said]
    older = changed("azure-current", "azure-2017", basic)
    older = changed(", defaultOutboundAccess: true", "", older)
    assert not [said for said in warnings(older) if "admits nothing" in said]
