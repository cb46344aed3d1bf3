"""One row for each class of mistake within a field: what was changed in a good file, and the line."""

from __future__ import annotations

import pytest

from tests.unit.model.files import changed, messages

RULE = "loadBalancers[0].loadBalancingRules[0]"
MISTAKES = {
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


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_one_mistake_is_named_and_nothing_else(old: str, new: str, message: str) -> None:
    assert messages(changed(old, new)) == [message]
