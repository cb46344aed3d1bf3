"""What ``az network … list/show -o json`` prints: objects with id and type, alone or in a list.

Objects of the REST API (``properties`` inside, lists under ``value``) are the same to this. Where
the type is missing, as in hand-trimmed files, the id or a telltale property gives it away.
"""

from __future__ import annotations

from gateway.importing.inventory import CHILD_TYPES, TYPES, Inventory, type_and_names
from gateway.importing.notes import LEFT_OUT, Notes, Place

TELLTALES = (
    ("securityRules", "networkSecurityGroups"),
    ("defaultSecurityRules", "networkSecurityGroups"),
    ("addressSpace", "virtualNetworks"),
    ("frontendIPConfigurations", "loadBalancers"),
    ("loadBalancingRules", "loadBalancers"),
    ("publicIPAllocationMethod", "publicIPAddresses"),
    ("ipAddress", "publicIPAddresses"),
    ("ipConfigurations", "networkInterfaces"),
    ("priority", "networkSecurityGroups/securityRules"),
)


def add_output(document: object, file: str, inventory: Inventory, notes: Notes) -> None:
    """Put the objects of one file into the inventory."""
    if isinstance(document, dict) and isinstance(document.get("value"), list):
        document = document["value"]
    if not isinstance(document, list):
        _add(document, Place(file), inventory, notes, alone=True)
        return
    for number, item in enumerate(document):
        _add(item, Place(file, f"[{number}]"), inventory, notes)


def _add(
    item: object, place: Place, inventory: Inventory, notes: Notes, *, alone: bool = False
) -> None:
    """``alone``: from a ``show``, which of a parent's children gives one."""
    if not isinstance(item, dict):
        notes.add(place, "", f"{LEFT_OUT}: not a resource (it must be a mapping)")
        return
    identity, name = item.get("id"), item.get("name")
    found = type_and_names(identity) if isinstance(identity, str) else None
    if found is None:
        type_ = _type(item)
        if type_ is None or not isinstance(name, str) or not name:
            notes.add(place, "", f"{LEFT_OUT}: not a resource of a known kind with a name")
            return
        found = type_, name.split("/")
    type_, names = found
    folded = type_.casefold()
    if folded.startswith("microsoft.compute/virtualmachines") and folded in TYPES:
        item = {
            k: v for k, v in item.items() if k in ("id", "name", "networkProfile", "properties")
        }
    elif folded not in TYPES and folded not in CHILD_TYPES:
        item = {}
    inventory.add(type_, names, item, place.file, one_of_many=alone)


def _type(item: dict[str, object]) -> str | None:
    written = item.get("type")
    if isinstance(written, str) and "/" in written:
        return written
    inner = item.get("properties")
    keys = [*item, *(inner if isinstance(inner, dict) else ())]
    folded = {key.casefold() for key in keys}
    for key, kind in TELLTALES:
        if key.casefold() in folded:
            return f"Microsoft.Network/{kind}"
    return None
