"""One row for each class of mistake: what was changed in a good file, and the line that says so."""

from __future__ import annotations

import pytest

from gateway.model import load_text
from tests.unit.model.files import MINIMAL, changed, errors, messages

RULE = "loadBalancers[0].loadBalancingRules[0]"
WITHIN_FIELDS = {
    "unknown key": (
        "outside: wan0", "outside: wan0\n  fastPth: off",
        "gateway.fastPth: unknown key; did you mean fastPath?",
    ),
    "wrong capitals": (
        "vm1, privateIPAddress", "vm1, privateIpAddress",
        "virtualMachines[0].privateIpAddress: unknown key; did you mean privateIPAddress?",
    ),
    "unknown key with nothing like it": (
        "name: pool, ", "name: pool, zzz: 1, ",
        "loadBalancers[0].backendAddressPools[0].zzz: unknown key; allowed: name, virtualMachines",
    ),
    "missing": (
        "  outside: wan0\n", "",
        "gateway.outside: missing; this key is required",
    ),
    "port out of range": (
        "frontendPort: 80,", "frontendPort: 70000,",
        f"{RULE}.frontendPort = 70000: out of range; allowed: 0 to 65534",
    ),
    "port is no number": (
        "frontendPort: 80,", "frontendPort: http,",
        f"{RULE}.frontendPort = http: must be a whole number; allowed: 0 to 65534",
    ),
    "true is no number": (
        "frontendPort: 80,", "frontendPort: true,",
        f"{RULE}.frontendPort = true: must be a whole number; allowed: 0 to 65534",
    ),
    "port 0": (
        "frontendPort: 80,", "frontendPort: 0,",
        f"{RULE}: port 0 goes with protocol All only, this rule has Tcp",
    ),
    "choice": (
        "probe: p,\n         protocol: Tcp", "probe: p,\n         protocol: TCP",
        (f"{RULE}.protocol = TCP: not one of the choices; allowed: Tcp, Udp, All; "
        "did you mean Tcp?"),
    ),
    "minutes": (
        "ipAddress: 203.0.113.12", "ipAddress: 203.0.113.12, idleTimeoutInMinutes: 31",
        ("publicIPAddresses[2].idleTimeoutInMinutes = 31: out of range; allowed: 4 to 30 minutes "
        "as in Azure, or less, as a fraction, but more than 0"),
    ),
    "IPv6": (
        "203.0.113.10", "'2001:db8::1'",
        ("publicIPAddresses[0].ipAddress = 2001:db8::1: IPv6 is not supported; "
        "allowed: an IPv4 address"),
    ),
    "no address": (
        "203.0.113.10", "203.0.113.256",
        ("publicIPAddresses[0].ipAddress = 203.0.113.256: not an IPv4 address; allowed: "
        "four numbers, as in 203.0.113.10"),
    ),
    "host bits": (
        "addressPrefix: 10.0.1.0/24", "addressPrefix: 10.0.1.7/24",
        ("virtualNetwork.subnets[0].addressPrefix = 10.0.1.7/24: has bits set to the right of its "
        "length; did you mean 10.0.1.0/24?"),
    ),
    "not a list": (
        "inside: [lan0]", "inside: lan0",
        "gateway.inside = lan0: must be a list, as in [a, b]",
    ),
    "empty list": (
        "inside: [lan0]", "inside: []",
        "gateway.inside = []: must not be empty",
    ),
    "not a mapping": (
        "defaultOutboundAccess: {publicIPAddresses: [pip-d]}", "defaultOutboundAccess: [pip-d]",
        'defaultOutboundAccess = ["pip-d"]: must be a mapping, as in {name: …}',
    ),
    "time scale": (
        "outside: wan0", "outside: wan0\n  timeScale: 0",
        "gateway.timeScale = 0: out of range; allowed: more than 0, at most 1000000",
    ),
    "interface name": (
        "outside: wan0", "outside: wan/0",
        ("gateway.outside = wan/0: not an interface name; "
        "allowed: 1 to 127 characters, no space, '/', ':', '%'"),
    ),
    "wildcard interface": (
        "outside: wan0", "outside: wan+",
        ("gateway.outside = wan+: netfilter's rules cannot name this interface; allowed: no '+' at the end, which would "
        "stand for all that begin so, no '-' or '!' at the beginning, no quotes or backslash"),
    ),
    "interface that is a negation": (
        "[lan0]", "['!lan0']",
        ("gateway.inside[0] = !lan0: netfilter's rules cannot name this interface; allowed: no '+' at the end, which would "
        "stand for all that begin so, no '-' or '!' at the beginning, no quotes or backslash"),
    ),
    "relative directory": (
        "outside: wan0", "outside: wan0\n  stateDirectory: state",
        "gateway.stateDirectory = state: must be an absolute path, as in /var/lib/snatgw",
    ),
    "number as a name": (
        "name: vm3", "name: 3",
        "virtualMachines[2].name = 3: must be text: a name; put it in quotes",
    ),
    "probe without a path": (
        "requestPath: /health, ", "",
        "loadBalancers[0].probes[0]: a probe of protocol Http needs requestPath, as in /health",
    ),
    "probe to a port that Azure leaves out": (
        "protocol: Http, port: 80", "protocol: Http, port: 25",
        ("loadBalancers[0].probes[0]: port 25: Azure sends no HTTP probes to ports "
        "19, 21, 25, 70, 110, 119, 143, 220, 993"),
    ),
}  # fmt: skip

BETWEEN_RESOURCES = {
    "unknown public IP": (
        "publicIPAddress: pip-vm2", "publicIPAddress: pip-vm",
        ("virtualMachines[1].publicIPAddress = pip-vm: no such name in publicIPAddresses; "
        "did you mean pip-vm2?"),
    ),
    "unknown VM": (
        "[vm1, vm2]", "[vm1, web7]",
        ("loadBalancers[0].backendAddressPools[0].virtualMachines[1] = web7: no such name in "
        "virtualMachines; known: vm1, vm2, vm3"),
    ),
    "unknown frontend": (
        "name: web, frontendIPConfiguration: fe1", "name: web, frontendIPConfiguration: fe",
        (f"{RULE}.frontendIPConfiguration = fe: no such name in frontendIPConfigurations; "
        "did you mean fe2?"),
    ),
    "unknown pool": (
        "backendAddressPool: pool", "backendAddressPool: poll",
        (f"{RULE}.backendAddressPool = poll: no such name in backendAddressPools; "
        "did you mean pool?"),
    ),
    "unknown probe": (
        "probe: p,", "probe: q,",
        f"{RULE}.probe = q: no such name in probes; known: p",
    ),
    "unknown VM of a NAT rule": (
        "virtualMachine: vm1", "virtualMachine: vm9",
        ("loadBalancers[0].inboundNatRules[0].virtualMachine = vm9: no such name in "
        "virtualMachines; did you mean vm3?"),
    ),
    "duplicate name": (
        "name: vm3", "name: VM1",
        ("virtualMachines[2].name = VM1: name already used by virtualMachines[0] (vm1): "
        "capitals make no difference"),
    ),
    "overlapping subnets": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.0.1.128/25}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.0.1.128/25: overlaps "
        "virtualNetwork.subnets[0].addressPrefix (10.0.1.0/24)"),
    ),
    "subnet outside the network": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.1.1.0/24}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.1.1.0/24: subnet db is outside the virtual "
        "network; allowed: within 10.0.0.0/16"),
    ),
    "subnet too small": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.0.2.0/30}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.0.2.0/30: too small for a subnet; "
        "allowed: /29 or larger"),
    ),
    "special prefix": (
        "[10.0.0.0/16]", "[10.0.0.0/16, 127.0.0.0/16]",
        ("virtualNetwork.addressPrefixes[1] = 127.0.0.0/16: Azure takes no part of 127.0.0.0/8 "
        "into a virtual network"),
    ),
    "VM outside every subnet": (
        "10.0.1.6", "10.0.2.6",
        ("virtualMachines[2].privateIPAddress = 10.0.2.6: VM vm3 is outside every subnet; "
        "allowed: within 10.0.1.0/24 (web)"),
    ),
    "reserved address": (
        "10.0.1.6", "10.0.1.3",
        ("virtualMachines[2].privateIPAddress = 10.0.1.3: Azure reserves the first 4 addresses of "
        "a subnet and the last; allowed in web: 10.0.1.4 to 10.0.1.254"),
    ),
    "private address used twice": (
        "10.0.1.6", "10.0.1.4",
        "virtualMachines[2].privateIPAddress = 10.0.1.4: private address already used by VM vm1",
    ),
    "VM named by another's address": (
        "name: vm3", "name: 10.0.1.9",
        ("virtualMachines[2].name = 10.0.1.9: a VM can be named by its own address (10.0.1.6) "
        "but not by another's"),
    ),
    "public address used twice": (
        "203.0.113.13", "203.0.113.10",
        "publicIPAddresses[3].ipAddress = 203.0.113.10: address already used by pip-a",
    ),
    "public address in the network": (
        "203.0.113.10", "10.0.7.1",
        ("publicIPAddresses[0].ipAddress = 10.0.7.1: a public IP cannot be within the virtual "
        "network (10.0.0.0/16)"),
    ),
    "public address that no host has": (
        "203.0.113.10", "224.0.0.1",
        "publicIPAddresses[0].ipAddress = 224.0.0.1: not an address that a host can have",
    ),
    "frontends that share a public IP": (
        "publicIPAddress: pip-b", "publicIPAddress: pip-a",
        ("loadBalancers[0].frontendIPConfigurations[1].publicIPAddress = pip-a: public IP address "
        "already used by loadBalancers[0].frontendIPConfigurations[0].publicIPAddress; "
        "allowed: one use"),
    ),
    "public IP of a VM and of default outbound access": (
        "publicIPAddresses: [pip-d]", "publicIPAddresses: [pip-d, pip-vm2]",
        ("defaultOutboundAccess.publicIPAddresses[1] = pip-vm2: public IP address already used by "
        "virtualMachines[1].publicIPAddress; allowed: one use"),
    ),
    "inside is outside": (
        "outside: wan0", "outside: lan0",
        ("gateway.inside[0] = lan0: is also gateway.outside; "
        "allowed: an interface that faces the VNet"),
    ),
    "inside twice": (
        "[lan0]", "[lan0, lan0]",
        "gateway.inside[1] = lan0: interface named twice",
    ),
    "frontend port used twice": (
        "50001", "80",
        ("loadBalancers[0].inboundNatRules[0].frontendPort = 80: Tcp port of fe1 already used by "
        "loadBalancers[0].loadBalancingRules[0]"),
    ),
    "VM twice in a pool": (
        "[vm1, vm2]", "[vm1, vm1]",
        ("loadBalancers[0].backendAddressPools[0].virtualMachines[1] = vm1: "
        "VM named twice in this pool"),
    ),
}  # fmt: skip

LATER = "needs gateway.profile: azure-current"
NOT_AVAILABLE = {
    "no such profile": (
        "outside: wan0", "outside: wan0\n  profile: azure-2016",
        ("gateway.profile = azure-2016: no such profile; allowed: azure-2017, azure-current; "
        "did you mean azure-2017?"),
    ),
    "Standard": (
        "name: lb\n", "name: lb\n    sku: Standard\n",
        f"loadBalancers[0].sku = Standard: {LATER}; allowed in azure-2017: Basic",
    ),
    "outbound rule": (
        "name: lb\n",
        ("name: lb\n    outboundRules: [{name: out, frontendIPConfigurations: [fe1], "
        "backendAddressPool: pool, protocol: All}]\n"),
        f"loadBalancers[0].outboundRules: an outbound rule {LATER}",
    ),
    "disableOutboundSnat": (
        "frontendPort: 80,", "frontendPort: 80, disableOutboundSnat: true,",
        f"{RULE}.disableOutboundSnat = true: {LATER}",
    ),
    "enableTcpReset": (
        "frontendPort: 80,", "frontendPort: 80, enableTcpReset: true,",
        f"{RULE}.enableTcpReset = true: {LATER}",
    ),
    "Https probe": (
        "protocol: Http,", "protocol: Https,",
        (f"loadBalancers[0].probes[0].protocol = Https: an Https probe {LATER}; "
        "allowed in azure-2017: Tcp, Http"),
    ),
    "subnet without default outbound access": (
        "10.0.1.0/24}", "10.0.1.0/24, defaultOutboundAccess: false}",
        (f"virtualNetwork.subnets[0].defaultOutboundAccess: a subnet's switch {LATER}; "
        "or leave it out"),
    ),
    "NAT gateway": (
        "defaultOutbound",
        ("  - {name: n, ipAddress: 203.0.113.14}\n"
        "natGateways: [{name: n, publicIPAddresses: [n]}]\ndefaultOutbound"),
        f"natGateways: a NAT gateway {LATER}",
    ),
}  # fmt: skip

ROWS = [
    pytest.param(*row, id=name)
    for table in (WITHIN_FIELDS, BETWEEN_RESOURCES, NOT_AVAILABLE)
    for name, row in table.items()
]


@pytest.mark.parametrize(("old", "new", "message"), ROWS)
def test_the_one_mistake_is_named_and_nothing_else(old: str, new: str, message: str) -> None:
    assert messages(changed(old, new)) == [message]


def pool_of(count: int, extra: str = "") -> str:
    """A load balancer with one frontend and this many VMs behind it."""
    machines = [f"v{number}" for number in range(count)]
    addresses = [f"10.0.{16 + n // 200}.{4 + n % 200}" for n in range(count)]
    return (
        MINIMAL
        + "    - {name: pool, addressPrefix: 10.0.16.0/20}\n"
        + "publicIPAddresses: [{name: a, ipAddress: 203.0.113.1}]\nvirtualMachines:\n"
        + "".join(
            f"  - {{name: {name}, privateIPAddress: {address}}}\n"
            for name, address in zip(machines, addresses, strict=True)
        )
        + f"loadBalancers:\n  - name: lb\n    frontendIPConfigurations: [{{name: fe, "
        f"publicIPAddress: a}}]\n    backendAddressPools: [{{name: pool, virtualMachines: "
        f"[{', '.join(machines)}]}}]\n    loadBalancingRules:\n"
        "      - {name: r, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp, "
        f"frontendPort: 80, backendPort: 80}}\n{extra}"
    )


def test_a_pool_that_fills_the_frontend_to_the_last_port_fits() -> None:
    assert errors(pool_of(2000)) == []


def test_a_rule_port_takes_the_unit_that_the_last_vm_needs() -> None:
    rule = (
        "      - {name: s, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Udp, "
        "frontendPort: 4791, backendPort: 4791}\n"
    )
    assert messages(pool_of(2000, rule)) == [
        (
            "loadBalancers[0].frontendIPConfigurations[0].name = fe: 2000 VMs with 32 SNAT ports each "
            "need 64000, but this frontend has 63992 (in units of 8, without rules' frontend ports); "
            "allowed: at most 1999 VMs"
        )
    ]


def standalone(count: int) -> str:
    return (
        MINIMAL
        + "publicIPAddresses: [{name: a, ipAddress: 203.0.113.1}]\n"
        + "defaultOutboundAccess: {publicIPAddresses: [a]}\nvirtualMachines:\n"
        + "".join(f"  - {{name: v{n}, privateIPAddress: 10.0.1.{4 + n}}}\n" for n in range(count))
    )


def test_standalone_vms_that_default_outbound_access_cannot_carry() -> None:
    assert errors(standalone(62)) == []
    assert messages(standalone(63)) == [
        (
            "defaultOutboundAccess.publicIPAddresses: 63 standalone VMs with 1024 SNAT ports each do "
            "not fit on 1 public IP addresses; allowed: at most 62 VMs, or more addresses"
        )
    ]


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


# (old, new) in a good file, then all that is to be said of it.
WITHHELD = {
    "gateway without outside": (
        "inside: [lan0]\n  outside: wan0", "inside: [lan0, lan0]\n  profile: azure-2016\n  timeScale: x",
        [
            "gateway.inside[1] = lan0: interface named twice",
            "gateway.outside: missing",
            "gateway.profile = azure-2016: no such profile",
            "gateway.timeScale = x: must be a number",
        ],
    ),
    "gateway with a misspelt outside": (
        "outside: wan0", "outsde: lan0",
        ["gateway.inside[0] = lan0: is also gateway.outside", "gateway.outsde: unknown key"],
    ),
    "a misspelt key with a wrong value": (
        "outside: wan0", "outsde: wan 0",
        ["gateway.outsde: unknown key", "gateway.outside = wan 0: not an interface name"],
    ),
    "network without prefixes": (
        "addressPrefixes: [10.0.0.0/16]", "",
        ["virtualNetwork.addressPrefixes: missing"],
    ),
    "network without prefixes, and subnets that overlap": (
        "addressPrefixes: [10.0.0.0/16]\n  subnets:",
        "subnets:\n    - {name: all, addressPrefix: 10.0.0.0/8, networkSecurityGroup: none}",
        [
            "virtualNetwork.addressPrefixes: missing",
            "virtualNetwork.subnets[0].networkSecurityGroup = none: no such name in networkSecurityGroups",
            "virtualNetwork.subnets[1].addressPrefix = 10.0.1.0/24: overlaps virtualNetwork.subnets[0].addressPrefix (10.0.0.0/8)",
        ],
    ),
    "VM without address": (
        "virtualMachines:", "virtualMachines:\n  - {name: vm1, publicIPAddress: nope}",
        [
            "virtualMachines[0].privateIPAddress: missing",
            "virtualMachines[0].publicIPAddress = nope: no such name in publicIPAddresses",
            "virtualMachines[1].name = vm1: name already used by virtualMachines[0]",
        ],
    ),
    "VM without name": (
        "virtualMachines:", "virtualMachines:\n  - {privateIPAddress: 10.0.1.4}",
        [
            "virtualMachines[0].name: missing",
            "virtualMachines[1].privateIPAddress = 10.0.1.4: private address already used by VM one without a name",
        ],
    ),
    "load balancer without name": (
        "- name: lb\n", "- sku: Standard\n",
        [
            "loadBalancers[0].name: missing",
            "loadBalancers[0].sku = Standard: needs gateway.profile: azure-current",
        ],
    ),
    "rule without a protocol": (
        "probe: p,\n         protocol: Tcp, frontendPort: 80,", "probe: none, frontendPort: 50001,",
        [
            "loadBalancers[0].loadBalancingRules[0].protocol: missing",
            "loadBalancers[0].loadBalancingRules[0].probe = none: no such name in probes",
        ],
    ),
    "rule without a frontend port": (
        "frontendPort: 80,", "disableOutboundSnat: true,",
        [
            "loadBalancers[0].loadBalancingRules[0].frontendPort: missing",
            f"{RULE}.disableOutboundSnat = true: needs gateway.profile: azure-current",
        ],
    ),
    "probe without name": (
        "probes: [{name: p, protocol: Http,", "probes: [{protocol: Tcp,",
        [
            "loadBalancers[0].probes[0].name: missing",
            "loadBalancers[0].probes[0]: requestPath is for probes of protocol Http or Https, this one is Tcp",
        ],
    ),
    "probe without protocol": (
        "protocol: Http,", "", ["loadBalancers[0].probes[0].protocol: missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), WITHHELD.values(), ids=WITHHELD)
def test_a_missing_or_misspelt_key_hides_no_other_mistake(
    old: str, new: str, expected: list[str]
) -> None:
    assert sorted(line.split("; ")[0] for line in messages(changed(old, new))) == sorted(expected)


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
