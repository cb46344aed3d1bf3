"""Configuration texts for the tests, and what a test asks of the problems found in one."""

from __future__ import annotations

from gateway.model import Configuration, load_text

MINIMAL = """\
gateway:
  inside: [lan0]
  outside: wan0
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24}
"""

LOAD_BALANCED = """\
gateway:
  inside: [lan0]
  outside: wan0
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24}
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.10}
  - {name: pip-b, ipAddress: 203.0.113.11}
  - {name: pip-vm2, ipAddress: 203.0.113.12}
  - {name: pip-d, ipAddress: 203.0.113.13}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2}
  - {name: vm3, privateIPAddress: 10.0.1.6}
loadBalancers:
  - name: lb
    frontendIPConfigurations:
      - {name: fe1, publicIPAddress: pip-a}
      - {name: fe2, publicIPAddress: pip-b}
    backendAddressPools: [{name: pool, virtualMachines: [vm1, vm2]}]
    probes: [{name: p, protocol: Http, port: 80, requestPath: /health, probeThreshold: 2}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe1, backendAddressPool: pool, probe: p,
         protocol: Tcp, frontendPort: 80, backendPort: 80}
    inboundNatRules:
      - {name: ssh1, frontendIPConfiguration: fe1, protocol: Tcp, frontendPort: 50001,
         virtualMachine: vm1, backendPort: 22}
"""


def changed(old: str, new: str, text: str = LOAD_BALANCED) -> str:
    """The text with one part replaced; the part must be in it."""
    assert old in text, f"{old!r} is not in the text"
    return text.replace(old, new, 1)


def configuration(text: str) -> Configuration:
    """What a text without errors loads as."""
    loaded = load_text(text, "test.yaml")
    assert loaded.configuration is not None, "\n".join(map(str, loaded.problems))
    return loaded.configuration


def errors(text: str) -> list[str]:
    """The lines that a user reads, without the warnings and the file's name."""
    loaded = load_text(text, "test.yaml")
    found = [str(p).removeprefix("test.yaml:") for p in loaded.problems if p.severity == "error"]
    assert bool(found) == (loaded.configuration is None)
    return found


def messages(text: str) -> list[str]:
    """As ``errors``, without the line numbers: ``field = value: message``."""
    return [line.split(": ", 1)[1] for line in errors(text)]
