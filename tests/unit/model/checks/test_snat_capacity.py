"""Whether SNAT ports fit: the last VM that does, and the line for the first that does not."""

from __future__ import annotations

from tests.unit.model.files import MINIMAL, errors, messages


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
