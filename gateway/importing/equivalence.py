"""Whether two descriptions of one resource say the same.

The same group comes in ``list`` and ``show``, in a template inside its parent and beside it, from
an older az and a newer one. These differ in shape, order and administration only, and need no word.
Where they differ in more, one of them is out of date, and the user must know of it. Knows nothing
of what the properties mean.
"""

from __future__ import annotations

from collections.abc import Mapping

_ADMINISTRATION = """
apiVersion comments condition defaultSecurityRules dependsOn etag id kind location managedBy
metadata name provisioningState resourceGroup resourceGuid resources scope subscriptionId
systemData tags tenantId type
"""
_IGNORED = frozenset(_ADMINISTRATION.casefold().split())


def alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two mappings of a resource differ in nothing that could matter."""
    return _essence(one, whole=True) == _essence(other, whole=True)


def _essence(value: object, *, whole: bool = False) -> object:
    """What a value means: absent, null, false and empty are the same, and so are capitals.

    ``whole``: the resource itself, whose name and id are known already.
    """
    if isinstance(value, Mapping):
        return _mapping(value, whole=whole)
    if isinstance(value, list):
        return sorted((_essence(item) for item in value), key=repr)
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _mapping(value: Mapping[str, object], *, whole: bool) -> dict[str, object]:
    flat = {key.casefold(): item for key, item in value.items()}
    inner = flat.get("properties")
    if isinstance(inner, Mapping):
        del flat["properties"]
        flat = {key.casefold(): item for key, item in inner.items()} | flat
    found = {
        key: essence
        for key, item in flat.items()
        if key not in _IGNORED
        if (essence := _essence(item)) not in (None, False, "", [], {})
    }
    if not whole:  # an item of a list goes by its name, a reference by its id
        key = "name" if "name" in flat else "id"
        found[key] = _essence(flat.get(key))
    return found
