"""A configuration with no file: from ``snatgw run --inside … --outside … --public-ip …``.

Every source behind an inside interface is a standalone VM with default SNAT. The inside interfaces'
networks are the virtual network, one subnet each. The private ranges count as internet, because
the "internet" of somebody who just tries this is often another private network (docs/fidelity.md,
A10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from pydantic import ValidationError

from gateway.model import addressing
from gateway.model.configuration import Configuration, arm_name
from gateway.model.problems import InvalidConfiguration, Problem, shown

PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
SOURCE = "command line"
"""What problems name instead of a file."""


def from_flags(
    inside: Sequence[str],
    outside: str,
    public_ips: Sequence[IPv4Address],
    inside_networks: Sequence[IPv4Network],
    **overrides: object,
) -> Configuration:
    """Build the configuration. ``overrides`` are attributes of ``gateway``, as ``time_scale=60``.

    Raises InvalidConfiguration with every problem, under the flags' names.
    """
    problems = list(_problems(inside, outside, public_ips, inside_networks))
    if problems:
        raise InvalidConfiguration(problems)
    names = [f"public-ip-{number}" for number in range(1, len(public_ips) + 1)]
    gateway: dict[str, object] = {
        "inside": list(inside),
        "outside": outside,
        "internetAddressPrefixes": list(PRIVATE_RANGES),
    }
    gateway |= {arm_name(name): value for name, value in overrides.items()}
    data = {
        "gateway": gateway,
        "virtualNetwork": {
            "addressPrefixes": list(inside_networks),
            "subnets": [
                {"name": f"inside-{number}", "addressPrefix": network}
                for number, network in enumerate(inside_networks, 1)
            ],
        },
        "publicIPAddresses": [
            {"name": name, "ipAddress": address}
            for name, address in zip(names, public_ips, strict=True)
        ],
        "defaultOutboundAccess": {"publicIPAddresses": names},
    }
    try:
        return Configuration.model_validate(data)
    except ValidationError as invalid:
        raise InvalidConfiguration(
            Problem(
                SOURCE,
                _flag(str(error["loc"][1])),
                shown(error["input"]),
                str(error.get("ctx", {}).get("reason", error["msg"])),
            )
            for error in invalid.errors()
        ) from None


def _flag(key: str) -> str:
    """``timeScale`` → ``--time-scale``."""
    return "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in key)


def _problems(
    inside: Sequence[str],
    outside: str,
    public_ips: Sequence[IPv4Address],
    inside_networks: Sequence[IPv4Network],
) -> Iterator[Problem]:
    def problem(flag: str, value: object, message: str) -> Problem:
        return Problem(SOURCE, flag, None if value is None else str(value), message)

    if not inside:
        yield problem("--inside", None, "names no interface")
    for index, name in enumerate(inside):
        if name in inside[:index]:
            yield problem("--inside", name, "interface named twice")
        if name == outside:
            yield problem("--inside", name, "is also --outside; allowed: another interface")
    if not inside_networks:
        names = ", ".join(inside)
        yield problem("--inside", names, "has no IPv4 address; give it one, with its prefix")
    places = [(("inside", index), network) for index, network in enumerate(inside_networks)]
    for _, network, _, other in addressing.overlapping(places):
        yield problem("--inside", network, f"this interface's network overlaps another's ({other})")
    if not public_ips:
        yield problem("--public-ip", None, "names no address")
    for index, address in enumerate(public_ips):
        if address in public_ips[:index]:
            yield problem("--public-ip", address, "address named twice")
        if any(address in special for special in addressing.NOT_FOR_NETWORKS):
            yield problem("--public-ip", address, "not an address that a host can have")
        for network in dict.fromkeys(inside_networks):
            if address in network:
                message = f"a public IP cannot be within an inside interface's network ({network})"
                yield problem("--public-ip", address, message)
