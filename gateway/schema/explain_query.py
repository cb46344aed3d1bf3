"""What ``explain`` may be asked: the packet that would open a flow, one way or the other.

Parsed and checked here for the command line, the API and, a second time, the engine process, which
takes nothing on trust from the API process. All problems of a query are found at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from gateway.schema.queries import QueryError, parse_flag, unknown_parameters, whole

PARAMETERS = ("vm", "to", "fromPort", "inbound", "from", "trace")
PROTOCOLS = {"tcp": "Tcp", "udp": "Udp", "icmp": "Icmp"}
MAXIMUM_NAME = 256


@dataclass(frozen=True)
class ExplainQuery:
    """A packet from ``vm`` (outbound), or from ``remote`` to a public IP (inbound).

    Ports are 0 for Icmp; ``from_port`` None: any that has no flow yet. ``trace``: with the stages
    of its path.
    """

    protocol: str
    to: IPv4Address
    to_port: int
    vm: str | None = None
    from_port: int | None = None
    remote: IPv4Address | None = None
    remote_port: int = 0
    trace: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> ExplainQuery:
        """From a query string's values; raises QueryError."""
        problems = unknown_parameters(values, PARAMETERS)
        try:
            inbound = parse_flag(values, "inbound")
            trace = parse_flag(values, "trace")
        except QueryError as error:
            raise QueryError(problems + error.problems) from None
        wanted, others = (
            (("from", "to"), ("vm", "fromPort")) if inbound else (("vm", "to"), ("from",))
        )
        problems += [f"{name}: missing; {_MEANING[name]}" for name in wanted if name not in values]
        when = "only for a packet from a VM" if inbound else "only for an inbound packet"
        problems += [f"{name}: {when}; leave it out" for name in others if name in values]
        protocol, to, to_port = "Tcp", IPv4Address(0), 0
        try:
            if "to" in values:
                protocol, to, to_port = _destination(values["to"])
        except QueryError as error:
            problems += error.problems
        if len(values.get("vm", "")) > MAXIMUM_NAME:
            problems.append(f"vm: a name of more than {MAXIMUM_NAME} characters")
        from_port, remote, remote_port = None, None, 0
        try:
            if inbound and "from" in values:
                remote, remote_port = _remote(values["from"], protocol)
            elif not inbound and "fromPort" in values:
                from_port = _port(values["fromPort"], "fromPort")
        except QueryError as error:
            problems += error.problems
        if problems:
            raise QueryError(problems)
        vm = None if inbound else values["vm"]
        return cls(protocol, to, to_port, vm, from_port, remote, remote_port, trace)


_MEANING = {
    "vm": "the name or private address of the VM that sends",
    "to": "where to, as in 198.51.100.7:443/tcp",
    "from": "the sender outside, as in 198.51.100.7:50000",
}


def _destination(text: str) -> tuple[str, IPv4Address, int]:
    endpoint, _, name = text.partition("/")
    protocol = PROTOCOLS.get(name.casefold())
    address, colon, port = endpoint.partition(":")
    try:
        if protocol is None or bool(colon) is (protocol == "Icmp"):
            raise ValueError
        return protocol, IPv4Address(address), whole(port, 0, 65535) if colon else 0
    except ValueError:
        forms = "IP:PORT/tcp, IP:PORT/udp nor IP/icmp, as in 198.51.100.7:443/tcp"
        raise QueryError([f"to: {text!r} is neither {forms}"]) from None


def _remote(text: str, protocol: str) -> tuple[IPv4Address, int]:
    address, colon, port = text.partition(":")
    try:
        if bool(colon) is (protocol == "Icmp"):
            raise ValueError
        return IPv4Address(address), whole(port, 0, 65535) if colon else 0
    except ValueError:
        form = (
            "IP, as in 198.51.100.7" if protocol == "Icmp" else "IP:PORT, as in 198.51.100.7:50000"
        )
        raise QueryError([f"from: {text!r} is not {form}"]) from None


def _port(text: str, name: str) -> int:
    try:
        return whole(text, 0, 65535)
    except ValueError:
        raise QueryError([f"{name}: {text!r} is no port from 0 to 65535"]) from None
