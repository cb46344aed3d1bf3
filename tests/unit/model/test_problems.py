"""Every mistake of a file in one go, in the order of its lines; warnings say what they are."""

from __future__ import annotations

from gateway.model import load_text
from tests.unit.model.files import MINIMAL, changed, errors, messages

MANY_MISTAKES = """\
gateway:
  profile: azure-2017
  inside: [lan0, wan0]
  outside: wan0
  timeScal: 60
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24}
    - {name: db, addressPrefix: 10.0.1.0/25}
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.10}
  - {name: pip-b, ipAddress: 203.0.113.10}
  - {name: pip-c, ipAddress: '::1'}
  - {name: pip-e, ipAddress: 10.0.3.3}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIpAddress: 10.0.1.5, publicIPAddress: pip-c}
  - {name: vm3, privateIPAddress: 10.0.2.5, publicIPAddress: pip-c}
  - {name: vm4, privateIPAddress: 10.0.1.4}
loadBalancers:
  - name: lb
    sku: Standard
    frontendIPConfigurations: [{name: fe1, publicIPAddress: pip-a}]
    backendAddressPools: [{name: pool, virtualMachines: [vm1, vm2, vm5]}]
    loadBalancingRules:
      - {name: a, frontendIPConfiguration: fe1, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 70000, backendPort: 80}
      - {name: b, frontendIPConfiguration: fe9, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 80, idleTimeoutInMinutes: 0}
"""


def test_every_mistake_of_a_bad_file_is_reported_in_one_go() -> None:
    assert [line.split("; ")[0] for line in errors(MANY_MISTAKES)] == [
        "3: gateway.inside[1] = wan0: is also gateway.outside",
        "5: gateway.timeScal: unknown key",
        (
            "10: virtualNetwork.subnets[1].addressPrefix = 10.0.1.0/25: overlaps "
            "virtualNetwork.subnets[0].addressPrefix (10.0.1.0/24)"
        ),
        "13: publicIPAddresses[1].ipAddress = 203.0.113.10: address already used by pip-a",
        "14: publicIPAddresses[2].ipAddress = ::1: IPv6 is not supported",
        (
            "15: publicIPAddresses[3].ipAddress = 10.0.3.3: a public IP cannot be within the virtual "
            "network (10.0.0.0/16)"
        ),
        "16: defaultOutboundAccess.publicIPAddresses[0] = pip-d: no such name in publicIPAddresses",
        "19: virtualMachines[1].privateIpAddress: unknown key",
        (
            "20: virtualMachines[2].publicIPAddress = pip-c: public IP address already used by "
            "virtualMachines[1].publicIPAddress"
        ),
        "20: virtualMachines[2].privateIPAddress = 10.0.2.5: VM vm3 is outside every subnet",
        (
            "21: virtualMachines[3].privateIPAddress = 10.0.1.4: private address already used by VM "
            "vm1"
        ),
        "24: loadBalancers[0].sku = Standard: needs gateway.profile: azure-current",
        (
            "26: loadBalancers[0].backendAddressPools[0].virtualMachines[2] = vm5: no such name in "
            "virtualMachines"
        ),
        "29: loadBalancers[0].loadBalancingRules[0].frontendPort = 70000: out of range",
        (
            "30: loadBalancers[0].loadBalancingRules[1].frontendIPConfiguration = fe9: no such name "
            "in frontendIPConfigurations"
        ),
        "31: loadBalancers[0].loadBalancingRules[1].idleTimeoutInMinutes = 0: out of range",
        (
            "31: loadBalancers[0].loadBalancingRules[1].backendPort = 80: Tcp port 80 of VM vm1 is "
            "already the backend of loadBalancers[0].loadBalancingRules[0]"
        ),
    ]


def test_a_warning_says_that_it_is_one() -> None:
    text = changed("probe: p,", "")
    warning = load_text(text, "test.yaml").problems[-1]
    assert str(warning) == (
        "test.yaml:24: loadBalancers[0].probes[0].name = p: warning: no load balancing rule refers "
        "to this probe, so that it is not sent"
    )


def test_whole_parts_that_are_wrong_bring_no_mistakes_that_are_not_there() -> None:
    text = changed("virtualNetwork:", "virtualNetwork: 5\nvirtualNetwerk:")
    assert messages(text) == [
        "virtualNetwork = 5: must be a mapping, as in {name: …}",
        "virtualNetwerk: unknown key; did you mean virtualNetwork?",
    ]


def test_a_key_cannot_break_the_line_or_reach_the_terminal() -> None:
    text = MINIMAL + '"a\\n\\e[31m": 1\n'
    (line,) = messages(text)
    assert line.startswith("a\\n\\x1b[31m: unknown key; allowed: gateway, ")
