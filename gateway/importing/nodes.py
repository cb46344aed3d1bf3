"""A resource's JSON under one shape: ARM's (``properties`` inside) and az's (flat) read alike.

A node is a mapping whose keys are found whatever their capitals (``publicIPAddress``,
``publicIpAddress``), where absent, null, "" and [] are the same, and which remembers what was asked
of it: what was not read and is not known to be irrelevant is named at the end. So a property
is carried over, of no meaning here, or on the user's screen; it cannot get lost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway.importing.evaluation import Unresolved
from gateway.importing.notes import LEFT_OUT, Notes, Place
from gateway.model.problems import shown

# Without meaning for a gateway: administration, what Azure only reports, and references that lead
# back to where the relation is read already.
_IRRELEVANT = """
apiVersion comments condition dependsOn etag extendedLocation id identity kind location
managedBy metadata name provisioningState resourceGroup resourceGuid resources scope sku
subscriptionId systemData tags tenantId type zones

auxiliaryMode auxiliarySku defaultSecurityRules dnsSettings ddosSettings encryption
enableAcceleratedNetworking hostedWorkloads macAddress migrationPhase nicType primary
privateEndpointNetworkPolicies privateEndpointVNetPolicies privateIPAddressVersion
privateLinkServiceNetworkPolicies privateIPAddressPrefixLength privateLinkConnectionProperties
provisioningDetails publicIPAddressVersion publicIPAllocationMethod privateIPAllocationMethod
tier vnetEncryptionSupported workloadType

backendIPConfigurations ipConfiguration ipConfigurationProfiles ipConfigurations flowLogs
inboundNatPools inboundNatRules loadBalancingRules networkInterfaces outboundRule
outboundRules purpose subnets virtualMachine virtualNetwork
"""
IRRELEVANT = frozenset(_IRRELEVANT.casefold().split())
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a resource id leads: ``…/virtualNetworks/v/subnets/web`` as pairs."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, identity: str) -> Reference:
        """From an id, or the end of one: names whatever stands in front of the provider."""
        path = re.split(r"/providers/[^/]+/", identity, flags=re.IGNORECASE)[-1]
        parts = [part for part in path.split("/") if part]
        if len(parts) % 2:
            parts = parts[1:]
        return cls(tuple(zip(parts[::2], parts[1::2], strict=True)))

    def name(self, kind: str) -> str | None:
        """The name given for one of its types, as in ``subnets``."""
        folded = kind.casefold()
        return next((name for other, name in self.pairs if other.casefold() == folded), None)

    def __str__(self) -> str:
        return "/".join(f"{kind}/{name}" for kind, name in self.pairs)


class Node:
    """A mapping of a resource, to be asked for its properties."""

    def __init__(self, data: dict[str, object], place: Place, path: str, notes: Notes) -> None:
        self.data = data
        """As it was given."""
        self.place = place
        self.path = path
        self._notes = notes
        self._fields: dict[str, tuple[str, object]] = {}
        self._read: set[str] = set()
        self._children: dict[str, Node] = {}
        inside: list[dict[str, object]] = []
        self.is_unknown = False
        """Whether its properties as a whole could not be resolved: named already, and lost."""
        for key, value in data.items():
            if key.casefold() == "properties" and isinstance(value, dict):
                inside.append(value)
            elif key.casefold() == "properties" and isinstance(value, Unresolved):
                self.is_unknown = True
                self.note(key, f"{LEFT_OUT}: {value.reason}", lost=True)
            elif not _is_nothing(value):
                self._fields.setdefault(key.casefold(), (key, value))
        for properties in inside:
            for key, value in properties.items():
                if not _is_nothing(value):
                    self._fields.setdefault(key.casefold(), (key, value))

    def at(self, key: str) -> str:
        """The path of a property."""
        return f"{self.path}.{key}" if self.path else key

    def note(self, key: str, message: str, *, lost: bool = False) -> None:
        """Say something about a property, or about this mapping if ``key`` is empty."""
        self._notes.add(self.place, self.at(key) if key else self.path, message, lost=lost)

    def has(self, key: str) -> bool:
        """Whether the property is there and not empty; counts as asked for."""
        self._read.add(key.casefold())
        return key.casefold() in self._fields

    def text(self, key: str) -> str | None:
        """A text; a number counts as one."""
        return self._typed(key, _text, "a text")

    def texts(self, key: str) -> list[str]:
        """A list of texts; what is none is named and left out."""
        found = []
        for number, item in enumerate(self._list(key)):
            value = self._converted(f"{key}[{number}]", item, _text, "a text")
            if value is not None:
                found.append(value)
        return found

    def is_whole(self, key: str, found: int) -> bool:
        """Whether ``found`` is all that a list has: nothing of it was named and left out."""
        _, value = self._fields.get(key.casefold(), (key, []))
        return isinstance(value, list) and sum(not _is_nothing(item) for item in value) == found

    def number(self, key: str) -> int | float | None:
        """The number at ``key``; None where there is none."""
        return self._typed(key, _number, "a number")

    def boolean(self, key: str) -> bool | None:
        """The truth value at ``key``; None where there is none."""
        return self._typed(key, _boolean, "true or false")

    def node(self, key: str) -> Node | None:
        """A mapping in this one."""
        value = self._typed(key, _mapping, "a mapping")
        return None if value is None else self._child(value, key.casefold(), self.at(key))

    def nodes(self, key: str) -> list[Node]:
        """The mappings of a list; in paths they go by their names."""
        found = []
        for number, item in enumerate(self._list(key)):
            value = self._converted(f"{key}[{number}]", item, _mapping, "a mapping")
            if value is not None:
                name = next((v for k, v in value.items() if k.casefold() == "name"), None)
                shown_as = name if isinstance(name, str) else number
                path = self.at(f"{key}[{shown_as}]")
                found.append(self._child(value, f"{key.casefold()}[{number}]", path))
        return found

    def reference(self, key: str) -> Reference | None:
        """``{"id": …}``."""
        node = self.node(key)
        return None if node is None else node.target()

    def references(self, key: str) -> list[Reference]:
        """``[{"id": …}, …]``."""
        targets = (node.target() for node in self.nodes(key))
        return [target for target in targets if target is not None]

    def target(self) -> Reference | None:
        """Where this mapping's own id leads. Its other properties are its target's business."""
        self._read.update(self._fields)
        identity = self.text("id")
        if identity is None:
            self.note("", f"{LEFT_OUT}: not a reference, as in {{id: …}}")
            return None
        reference = Reference.of(identity)
        if not reference.pairs:
            self.note("id", f"{LEFT_OUT}: not the id of a resource")
            return None
        return reference

    def ignore(self, message: str) -> None:
        """Say that this mapping is left out as a whole: nothing more of it is named.

        An empty message: nor that.
        """
        if message:
            self.note("", message)
        self._read.update(self._fields)
        self._children.clear()

    def name_leftovers(self) -> None:
        """Name what was not read, here and in the mappings that were taken from here."""
        for folded, (key, value) in self._fields.items():
            if folded in self._read or folded in IRRELEVANT or _says_no(value):
                continue
            if isinstance(value, Unresolved):
                self.note(key, f"{LEFT_OUT}: {value.reason}")
            else:
                text = shown(value) if not isinstance(value, list) else None
                self.note(key, LEFT_OUT if text is None else f"{LEFT_OUT} ({text})")
        for child in self._children.values():
            child.name_leftovers()

    def _child(self, data: dict[str, object], key: str, path: str) -> Node:
        """The same node each time, so that it knows all that was asked of it."""
        if key not in self._children:
            self._children[key] = Node(data, self.place, path, self._notes)
        return self._children[key]

    def _list(self, key: str) -> list[object]:
        return self._typed(key, lambda v: v if isinstance(v, list) else None, "a list") or []

    def _typed(
        self, key: str, convert: Callable[[object], Value | None], wanted: str
    ) -> Value | None:
        self._read.add(key.casefold())
        if key.casefold() not in self._fields:
            return None
        written, value = self._fields[key.casefold()]
        return self._converted(written, value, convert, wanted)

    def _converted(
        self, key: str, value: object, convert: Callable[[object], Value | None], wanted: str
    ) -> Value | None:
        if _is_nothing(value):
            return None
        if isinstance(value, Unresolved):
            # What is read matters. Security groups leave something behind for check themselves.
            refused = self.place.resource.startswith("networkSecurityGroups")
            lost = not refused or key.casefold() == "flushconnection"
            self.note(key, f"{LEFT_OUT}: {value.reason}", lost=lost)
            return None
        converted = convert(value)
        if converted is None:
            self.note(key, f"{LEFT_OUT}: must be {wanted}")
        return converted


def _is_nothing(value: object) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _says_no(value: object, depth: int = 3) -> bool:
    """Whether a property only says that something is not so: false, or lists without items."""
    if isinstance(value, dict) and depth:
        return all(_says_no(item, depth - 1) for item in value.values())
    return value is False or _is_nothing(value)


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else None


def _number(value: object) -> int | float | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value


def _boolean(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.casefold())
    return value if isinstance(value, bool) else None


def _mapping(value: object) -> dict[str, object] | None:
    return value if isinstance(value, dict) else None
