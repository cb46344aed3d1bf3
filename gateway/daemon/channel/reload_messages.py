"""What the reader hands the engine for a reload: a configuration and what it resolves to, in parts.
Runs in the engine process and in the reader.

A part is small enough to be taken between packets: a length and a tuple, as ``marshal`` writes it.
A configuration's resources come as JSON and are validated once more, each by itself. What holds
between them, and what they resolve to (plan, compiled security groups), is taken from the reader as
it is: that is this program too, run by the supervisor, and the file it reads says the same to both.
What it prints can at worst be a wrong configuration, or fail here; ``marshal`` makes data, and runs
nothing.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import astuple
from functools import cache
from ipaddress import IPv4Network
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter

from gateway.core.policy.nsg import Group, RuleSet
from gateway.core.reload.resolved import Resolved, resolve
from gateway.core.snat.plan import (
    AddressGrant,
    FlowPolicy,
    NatGatewayPlan,
    Plan,
    SubnetPlan,
    VmPlan,
)
from gateway.model.configuration import (
    Configuration,
    LoadBalancer,
    NetworkSecurityGroup,
    Resource,
    ServiceTag,
    ServiceTags,
    VirtualNetwork,
)
from gateway.model.problems import Problem
from gateway.model.profile import Method
from gateway.model.reading.load import Loaded
from gateway.model.resolved.security_rules import Expanded, ResolvedRule

CHUNK = 24  # resources in a part
RULES = 48  # resolved rules in a part
MACHINES = 128  # VMs' plans in a part
LENGTH = 4  # bytes before each part

_Message = tuple[Any, ...]


class Handed(NamedTuple):
    """What became of a file. ``resolved`` is None exactly if a problem is an error."""

    resolved: Resolved | None
    problems: tuple[Problem, ...]


class NotHandedError(ValueError):
    """Not what a reader prints."""


def pack(loaded: Loaded) -> Iterator[bytes]:
    """The parts; only the last one makes the others count."""
    for message in _messages(loaded):
        part = marshal.dumps(message)
        yield len(part).to_bytes(LENGTH, "big") + part


def unpack(data: bytes | bytearray) -> Generator[None, None, Handed]:
    """Put together what ``pack`` took apart; None after each part. Raises NotHandedError.

    ``marshal`` may crash the interpreter over malformed input; only our own reader process, which
    runs the same code, writes it.
    """
    reader = _Reader()
    place = 0
    try:
        while place < len(data):
            end = place + LENGTH + int.from_bytes(data[place : place + LENGTH], "big")
            name, *told = marshal.loads(data[place + LENGTH : end])  # noqa: S302 - it runs nothing
            reader.take[name](*told)
            place = end
            yield
        handed = reader.handed
    except (ValueError, TypeError, EOFError, LookupError, AttributeError) as error:
        raise NotHandedError(str(error)) from error
    if handed is None:
        raise NotHandedError("it ended too early")
    return handed


# -- taking apart


def _messages(loaded: Loaded) -> Iterator[_Message]:
    for problem in loaded.problems:
        yield "problem", *astuple(problem)
    if loaded.configuration is not None:
        resolved = resolve(loaded.configuration)
        yield from _configuration(resolved.configuration)
        yield from _plan(resolved.plan)
        for group in resolved.groups.values():
            yield from _group(group)
    yield "end", loaded.configuration is not None


def _configuration(configuration: Configuration) -> Iterator[_Message]:
    several = _lists(Configuration)
    for name in Configuration.model_fields:
        value = getattr(configuration, name)
        if name == "service_tags":
            yield "tags", value.file
            for tag in value.values:
                yield "tag", tag.name, tag.address_prefixes
        elif name not in several:
            yield from _nested(name, value)
        elif _lists(several[name]):
            for item in value:
                yield from _nested(name, item)
        else:
            for chunk in _chunks(value):
                yield "items", name, _json(several[name], chunk)


def _nested(name: str, item: Resource) -> Iterator[_Message]:
    """A resource that has lists of others in it: the beginning of each list, then the rest."""
    within = {field: getattr(item, field) for field in _lists(type(item))}
    head = item.model_copy(update={field: items[:CHUNK] for field, items in within.items()})
    yield "head", name, head.model_dump_json(by_alias=True, exclude_defaults=True)
    for field, items in within.items():
        for chunk in _chunks(items[CHUNK:]):
            yield "more", field, _json(_lists(type(item))[field], chunk)


def _json(kind: type[Resource], items: tuple[Resource, ...]) -> bytes:
    return _adapter(kind).dump_json(items, by_alias=True, exclude_defaults=True)


def _chunks(items: tuple[Resource, ...]) -> Iterator[tuple[Resource, ...]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


@cache
def _lists(kind: type[Resource]) -> dict[str, type[Resource]]:
    """Which attributes of a resource are lists of resources, and of what kind."""
    found = {}
    for name, field in kind.model_fields.items():
        if get_origin(field.annotation) is tuple:
            item = get_args(field.annotation)[0]
            if isinstance(item, type) and issubclass(item, Resource):
                found[name] = item
    return found


@cache
def _adapter(kind: type[Resource]) -> TypeAdapter[tuple[Resource, ...]]:
    return TypeAdapter(tuple[kind, ...])  # type: ignore[valid-type]


for _kind in (Configuration, VirtualNetwork, LoadBalancer, NetworkSecurityGroup):
    for _item in _lists(_kind).values():
        _adapter(_item)  # takes milliseconds: not while packets wait


def _plan(plan: Plan) -> Iterator[_Message]:
    machines = [
        (
            machine.name,
            machine.address,
            _named(machine.tcp),
            _named(machine.udp),
            machine.instance,
            machine.idle_timeout,
            machine.nat_gateway,
        )
        for machine in plan.machines
    ]
    for start in range(0, len(machines), MACHINES):
        yield "machines", machines[start : start + MACHINES]
    for grant in plan.grants:
        policy = grant.flow_policy
        yield (
            "grant",
            grant.address,
            grant.protocol,
            (policy.method.value, policy.idle_timeout, policy.owner, policy.tcp_reset),
            grant.size,
            grant.ports,
        )
    for address, frontend_ports in plan.addresses.items():
        yield "address", address, frontend_ports
    yield (
        "plan",
        plan.default_addresses,
        [(str(s.prefix), _named(s.tcp), _named(s.udp), s.nat_gateway) for s in plan.subnets],
        [(g.name, g.addresses, g.idle_timeout) for g in plan.nat_gateways],
    )


def _named(method: Method | None) -> str | None:
    return None if method is None else method.value


def _group(group: Group) -> Iterator[_Message]:
    for rule_set in (group.inbound, group.outbound):
        rules = [_rule(rule) for rule in rule_set.rules]
        for start in range(0, len(rules), RULES):
            yield "rules", rules[start : start + RULES]
        for part in rule_set.parts():
            yield "part", part
        yield ("set",)
    yield "group", group.name, group.flush_connection


def _rule(rule: ResolvedRule) -> tuple[Any, ...]:
    *fields, expanded = (getattr(rule, name) for name in ResolvedRule.__slots__)
    told = None if expanded is None else (expanded.source, expanded.destination)
    return (*fields, told)


# -- putting together


class _Reader:
    """Takes part after part, each of them quickly."""

    def __init__(self) -> None:
        self.take: dict[str, Callable[..., None]] = {
            "problem": self._problem,
            "tags": self._begin_tags,
            "tag": self._tag,
            "items": self._items,
            "head": self._head,
            "more": self._more,
            "machines": self._machine_plans,
            "grant": self._grant,
            "address": self._address,
            "plan": self._finish_plan,
            "rules": self._rule_chunk,
            "part": self._part,
            "set": self._finish_set,
            "group": self._group,
            "end": self._end,
        }
        self.handed: Handed | None = None
        self._problems: list[Problem] = []
        self._fields: dict[str, list[Resource]] = {name: [] for name in _lists(Configuration)}
        self._singles: dict[str, Resource] = {}
        self._latest: tuple[str, Resource] | None = None
        self._rest: dict[str, list[Resource]] = {}
        self._tags_file: str | None = None
        self._tags: list[ServiceTag] = []
        self._machines: list[VmPlan] = []
        self._grants: list[AddressGrant] = []
        self._addresses: dict[bytes, frozenset[int]] = {}
        self._plan: Plan | None = None
        self._rules: list[ResolvedRule] = []
        self._parts: list[Any] = []
        self._sets: list[RuleSet] = []
        self._groups: dict[str, Group] = {}

    def _problem(self, *told: Any) -> None:
        self._problems.append(Problem(*told))

    def _begin_tags(self, file: str | None) -> None:
        self._tags_file = file

    def _tag(self, name: str, prefixes: tuple[str, ...]) -> None:
        # There may be ten thousand prefixes; they are read by ``_part``'s intervals only.
        self._tags.append(ServiceTag.model_construct(name=name, address_prefixes=prefixes))

    def _items(self, name: str, text: bytes) -> None:
        self._fields[name] += _adapter(_lists(Configuration)[name]).validate_json(text)

    def _head(self, name: str, text: str) -> None:
        self._complete()
        annotation = _lists(Configuration).get(name) or Configuration.model_fields[name].annotation
        if not isinstance(annotation, type) or not issubclass(annotation, Resource):
            raise NotHandedError(f"{name} is no resource")
        self._latest = name, annotation.model_validate_json(text)

    def _more(self, field: str, text: bytes) -> None:
        if self._latest is None:
            raise NotHandedError(f"more {field} of nothing")
        kind = _lists(type(self._latest[1]))[field]
        self._rest.setdefault(field, []).extend(_adapter(kind).validate_json(text))

    def _complete(self) -> None:
        """Put the latest resource with lists where it belongs: it has all of them now."""
        if self._latest is None:
            return
        name, item = self._latest
        if self._rest:
            whole = {field: (*getattr(item, field), *more) for field, more in self._rest.items()}
            item = item.model_copy(update=whole)
        if name in self._fields:
            self._fields[name].append(item)
        else:
            self._singles[name] = item
        self._latest, self._rest = None, {}

    def _machine_plans(self, told: Iterable[tuple[Any, ...]]) -> None:
        for name, address, tcp, udp, *rest in told:
            self._machines.append(VmPlan(name, address, _method(tcp), _method(udp), *rest))

    def _grant(
        self,
        address: bytes,
        protocol: int,
        policy: tuple[Any, ...],
        size: int,
        ports: dict[str, int],
    ) -> None:
        method, *rest = policy
        terms = FlowPolicy(Method(method), *rest)
        self._grants.append(AddressGrant(address, protocol, terms, size, ports))

    def _address(self, address: bytes, frontend_ports: frozenset[int]) -> None:
        self._addresses[address] = frontend_ports

    def _finish_plan(
        self,
        default_addresses: tuple[bytes, ...],
        subnets: Iterable[tuple[Any, ...]],
        nat_gateways: Iterable[tuple[Any, ...]],
    ) -> None:
        self._plan = Plan(
            tuple(self._machines),
            tuple(self._grants),
            self._addresses,
            default_addresses,
            tuple(
                SubnetPlan(IPv4Network(prefix), _method(tcp), _method(udp), gateway)
                for prefix, tcp, udp, gateway in subnets
            ),
            tuple(NatGatewayPlan(*told) for told in nat_gateways),
        )

    def _rule_chunk(self, told: Iterable[tuple[Any, ...]]) -> None:
        for rule in told:
            *fields, expanded = rule
            rule = (*fields, None if expanded is None else Expanded(*expanded))
            self._rules.append(ResolvedRule(*rule))

    def _part(self, part: Any) -> None:
        self._parts.append(part)

    def _finish_set(self) -> None:
        self._sets.append(RuleSet(self._rules, self._parts))
        self._rules, self._parts = [], []

    def _group(self, name: str, flush_connection: bool) -> None:
        inbound, outbound = self._sets
        self._groups[name] = Group(name, flush_connection, inbound, outbound)
        self._sets = []

    def _end(self, is_good: bool) -> None:
        problems = tuple(self._problems)
        if not is_good:
            self.handed = Handed(None, problems)
            return
        self._complete()
        if self._plan is None:
            raise NotHandedError("the plan is missing")
        tags = ServiceTags.model_construct(file=self._tags_file, values=tuple(self._tags))
        fields: dict[str, Any] = {name: tuple(items) for name, items in self._fields.items()}
        fields |= self._singles | {"service_tags": tags}
        configuration = Configuration.model_construct(**fields)
        if configuration.model_fields_set != Configuration.model_fields.keys():
            raise NotHandedError("a part is missing")
        self.handed = Handed(Resolved(configuration, self._plan, self._groups), problems)


def _method(name: str | None) -> Method | None:
    return None if name is None else Method(name)
