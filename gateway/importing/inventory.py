"""The resources that the input files have, whatever files and shapes they came in.

A resource is known by its kind and its names; the same one in two files counts once. A child that
stands alone (``virtualNetworks/subnets`` in a template, ``az network nsg rule list``) is found
with its parent, beside those that the parent lists itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.importing.equivalence import alike
from gateway.importing.nodes import Node, Reference
from gateway.importing.notes import LEFT_OUT, Notes, Place

VIRTUAL_NETWORKS = "virtualNetworks"
SECURITY_GROUPS = "networkSecurityGroups"
APPLICATION_GROUPS = "applicationSecurityGroups"
INTERFACES = "networkInterfaces"
PUBLIC_IPS = "publicIPAddresses"
LOAD_BALANCERS = "loadBalancers"
NAT_GATEWAYS = "natGateways"
MACHINES = "virtualMachines"

CHILDREN = {
    VIRTUAL_NETWORKS: ("subnets",),
    SECURITY_GROUPS: ("securityRules",),
    LOAD_BALANCERS: ("backendAddressPools", "inboundNatRules"),
}
"""The kinds whose children Azure takes as resources of their own."""
DEFAULT_RULES = "microsoft.network/networksecuritygroups/defaultsecurityrules"
_NETWORK = (
    VIRTUAL_NETWORKS,
    SECURITY_GROUPS,
    APPLICATION_GROUPS,
    INTERFACES,
    PUBLIC_IPS,
    LOAD_BALANCERS,
    NAT_GATEWAYS,
)
TYPES = {f"microsoft.network/{kind}".casefold(): kind for kind in _NETWORK} | {
    f"microsoft.compute/{MACHINES}".casefold(): MACHINES
}
CHILD_TYPES = {
    f"microsoft.network/{kind}/{child}".casefold(): (kind, child)
    for kind, children in CHILDREN.items()
    for child in children
}


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a kind that is carried over."""

    kind: str
    name: str
    node: Node


class Inventory:
    """All resources, in the order of the files."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._resources: dict[str, dict[str, Resource]] = {kind: {} for kind in TYPES.values()}
        self._identities: dict[tuple[str, str], str | None] = {}
        self._children: dict[tuple[str, str, str], dict[str, Node]] = {}
        self._partial: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._resources.values())) + sum(map(len, self._children.values()))

    def add(
        self,
        type_: str,
        names: list[str],
        data: dict[str, object],
        file: str,
        *,
        one_of_many: bool = False,
    ) -> None:
        """Take a resource by its full type and names; what is of no known type is named.

        ``one_of_many``: a child whose parent may have others that are not in the files.
        """
        folded = type_.casefold()
        provider, *types = type_.split("/")
        del provider
        written = "/".join(f"{kind}/{name}" for kind, name in zip(types, names, strict=False))
        place = Place(file, written or "/".join(names))
        if folded in TYPES and len(names) == 1:
            self._add_resource(TYPES[folded], names[0], data, place)
        elif folded in CHILD_TYPES and len(names) == 2:
            kind, child = CHILD_TYPES[folded]
            self._parent(kind, names[0], place)
            if one_of_many:
                self._partial.add((kind, names[0].casefold()))
            self._add_child((kind, names[0].casefold(), child), names[1], data, place)
        elif folded == DEFAULT_RULES and len(names) == 2:  # every group's; only the group is news
            self._parent(SECURITY_GROUPS, names[0], place)
            if one_of_many:
                self._partial.add((SECURITY_GROUPS, names[0].casefold()))
        elif folded in CHILD_TYPES and len(names) == 1:
            kind, _ = CHILD_TYPES[folded]
            message = f"{LEFT_OUT}: without its id it is unknown which of the {kind} has it"
            self._notes.add(place, "", message, lost=True)
        elif folded in TYPES or folded in CHILD_TYPES:
            message = f"{LEFT_OUT}: {type_} has a name of another length"
            self._notes.add(place, "", message, lost=True)
        else:
            self._notes.add(place, "", f"{LEFT_OUT}: resources of type {type_} are not read")

    def is_partial(self, resource: Resource) -> bool:
        """Whether only some of its children are there, and not the resource itself."""
        key = resource.kind, resource.name.casefold()
        return key in self._partial and key not in self._identities

    def of(self, kind: str) -> list[Resource]:
        """The resources of a kind, those included of which only children are there."""
        return list(self._resources[kind].values())

    def find(self, kind: str, name: str | None) -> Resource | None:
        """The resource that a reference's name leads to."""
        return None if name is None else self._resources[kind].get(name.casefold())

    def children(self, parent: Resource, child: str) -> Iterator[Node]:
        """Those that the parent lists, and those that stand alone: these count, given twice."""
        alone = self._children.get((parent.kind, parent.name.casefold(), child), {})
        rest = dict(alone)
        for node in parent.node.nodes(child):
            name = (node.text("name") or "").casefold()
            other = rest.pop(name, None)
            if other is not None:
                _replace(node, other)
            yield other or node
        yield from rest.values()

    def name_leftovers(self, resource: Resource) -> None:
        """Name what was not read, of a resource and of its children that stand alone."""
        resource.node.name_leftovers()
        for child in CHILDREN.get(resource.kind, ()):
            key = (resource.kind, resource.name.casefold(), child)
            for node in self._children.get(key, {}).values():
                node.name_leftovers()

    def _add_resource(self, kind: str, name: str, data: dict[str, object], place: Place) -> None:
        folded = name.casefold()
        identity = data.get("id")
        identity = identity.casefold() if isinstance(identity, str) else None
        before = self._resources[kind].get(folded)
        if before is None or (kind, folded) not in self._identities:  # only children so far
            self._identities[kind, folded] = identity
            node = Node(data, place, "", self._notes)
            self._resources[kind][folded] = Resource(kind, name, node)
        elif identity is None or identity != self._identities[kind, folded]:
            self._name_second(kind, before.node, data, place, "one of this name already")
        elif not alike(before.node.data, data):
            self._name_second(kind, before.node, data, place, "another version of it, which counts")

    def _add_child(
        self, key: tuple[str, str, str], name: str, data: dict[str, object], place: Place
    ) -> None:
        children = self._children.setdefault(key, {})
        before = children.get(name.casefold())
        if before is None:
            children[name.casefold()] = Node({**data, "name": name}, place, "", self._notes)
        elif not alike(before.data, data):
            says = "another version of it, which counts"
            self._name_second(key[0], before, data, place, says)

    def _name_second(
        self, kind: str, first: Node, data: dict[str, object], place: Place, says: str
    ) -> None:
        """Name what is there twice. Of rules that differ the right ones are not known: lost."""
        where = "the same file" if first.place.file == place.file else first.place.file
        lost = kind == SECURITY_GROUPS and not alike(first.data, data)
        self._notes.add(place, "", f"{LEFT_OUT}: {where} has {says}", lost=lost)

    def _parent(self, kind: str, name: str, place: Place) -> None:
        if name.casefold() not in self._resources[kind]:
            node = Node({}, Place(place.file, f"{kind}/{name}"), "", self._notes)
            self._resources[kind][name.casefold()] = Resource(kind, name, node)


def _replace(listed: Node, alone: Node) -> None:
    """Of a child that its parent lists too: name the difference, if there is one."""
    if alike(listed.data, alone.data):
        listed.ignore("")
    else:
        place = alone.place
        listed.ignore(f"{LEFT_OUT}: {place.file} has {place.resource} on its own, which counts")


def type_and_names(identity: str) -> tuple[str, list[str]] | None:
    """What the id of a resource tells about it, or None if it is not one."""
    folded = identity.casefold()
    if "/providers/" not in folded:
        return None
    provider = identity[folded.rindex("/providers/") + 11 :].split("/")[0]
    pairs = Reference.of(identity).pairs
    if not pairs:
        return None
    return "/".join([provider, *(kind for kind, _ in pairs)]), [name for _, name in pairs]
