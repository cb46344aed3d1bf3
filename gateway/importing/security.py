"""Network security groups and application security groups, rules with all their properties.

Default rules are every group's and not written down. A side that names IPv6 prefixes beside IPv4
ones loses the former, by name; a rule of IPv6 alone is left out, by name. A rule that lacks what
could not be resolved stays, so that ``snatgw check`` rejects it: it must not vanish unnoticed. A
list of which one item is unknown counts as unknown, since a Deny that is narrower lets through what
Azure stops; lists and groups that are unknown as a whole leave ``UNKNOWN`` behind, for ``check``.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.importing.inventory import APPLICATION_GROUPS, SECURITY_GROUPS, Inventory
from gateway.importing.nodes import Node
from gateway.importing.notes import LEFT_OUT
from gateway.importing.yaml_entries import Entry, distinct, unlike

UNKNOWN = "not-carried-over"
"""Stands, for check to reject it, where a rule or a group is that could not be resolved."""
_SPELLINGS = {
    word.casefold(): word
    for word in ("Inbound", "Outbound", "Allow", "Deny", "Tcp", "Udp", "Icmp", "Esp", "Ah")
}


class SecurityGroups:
    """What the files have of both kinds of groups."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self.entries: list[Entry] = []
        self._applications: list[str] = []
        for resource in inventory.of(APPLICATION_GROUPS):
            resource.node.name_leftovers()
            self._applications.append(resource.name)
        self._spelling = {name.casefold(): name for name in self._applications}
        for resource in inventory.of(SECURITY_GROUPS):
            rules = [self._rule(node) for node in inventory.children(resource, "securityRules")]
            listed = len(resource.node.nodes("securityRules"))
            known = resource.node.is_whole("securityRules", listed)
            if inventory.is_partial(resource):
                message = "only rules of it are in the files; give az network nsg show, too"
                resource.node.note("", message, lost=True)
            if not known or not resource.node.is_whole("copy", 0):
                rules.append(_unknown_rule())
            self.entries.append(
                Entry(
                    name=resource.name,
                    flushConnection=unlike(resource.node.boolean("flushConnection"), False),
                    securityRules=[rule for rule in rules if rule is not None],
                )
            )
            inventory.name_leftovers(resource)

    def group_name(self, node: Node, key: str) -> str | None:
        """The name of the network security group that a property refers to.

        One that is not in the files stays referred to: check rejects that, where leaving the
        reference out would let everything pass. So does one that is not known.
        """
        reference = node.reference(key)
        if reference is None:
            return UNKNOWN if node.has(key) else None
        name = reference.name(SECURITY_GROUPS)
        resource = self._inventory.find(SECURITY_GROUPS, name)
        if resource is not None:
            return resource.name
        if name is None:
            node.note(key, f"{LEFT_OUT} ({reference}): not a network security group")
            return UNKNOWN
        node.note(key, f"{name} is not in the files; give az network nsg show, too")
        return name

    def application_names(self, node: Node, key: str) -> list[str]:
        """The application security groups that a list refers to: each is declared by that.

        For those that are not known ``UNKNOWN`` stands, undeclared, so that check rejects it.
        """
        references = node.references(key)
        names = [] if node.is_whole(key, len(references)) else [UNKNOWN]
        for reference in references:
            name = reference.name(APPLICATION_GROUPS)
            if name is None:
                node.note(key, f"{LEFT_OUT} ({reference}): not an application security group")
                names.append(UNKNOWN)
                continue
            if name.casefold() not in self._spelling:
                self._applications.append(name)
                self._spelling[name.casefold()] = name
            names.append(self._spelling[name.casefold()])
        return distinct(names)

    def applications(self) -> list[Entry]:
        """Those of the files, then those that VMs and rules name."""
        return [Entry(name=name) for name in self._applications]

    def _rule(self, node: Node) -> Entry | None:
        if node.is_unknown:
            return None
        name = node.text("name")
        if name is None:
            node.note("name", "a rule without a name")
        rule = Entry(
            name=name,
            description=node.text("description"),
            priority=node.number("priority"),
            direction=_spelled(node.text("direction")),
            access=_spelled(node.text("access")),
            protocol=_spelled(node.text("protocol")),
        )
        for side in ("source", "destination"):
            if not self._addresses(node, rule, side):
                return None
            _ports(node, rule, side)
        return rule

    def _addresses(self, node: Node, rule: Entry, side: str) -> bool:
        """Put a side's addresses into a rule; False if it is about IPv6 only."""
        single, plural = f"{side}AddressPrefix", f"{side}AddressPrefixes"
        collective = f"{side}ApplicationSecurityGroups"
        one = node.text(single)
        several = node.texts(plural)
        groups = self.application_names(node, collective)
        ipv4 = list(_ipv4(several))
        if (one is not None and ":" in one) or (several and not ipv4):
            node.ignore(f"{LEFT_OUT}: a rule for IPv6, which is not supported")
            return False
        for prefix in several:
            if ":" in prefix:
                node.note(plural, f"{LEFT_OUT} ({prefix}): IPv6 is not supported")
        if not node.is_whole(plural, len(several)):
            return True
        if ipv4:
            rule[plural] = ipv4
        if groups:
            rule[collective] = groups
        if one is not None and ipv4 != [one]:  # given twice and differently: check rejects that
            rule[single] = one
        return True


def _unknown_rule() -> Entry:
    """Rejected by check in one line: it names a service tag that does not exist."""
    return Entry(
        "stands for rules that are not known: write these in its place",
        name=UNKNOWN,
        priority=4096,
        direction="Inbound",
        access="Deny",
        protocol="*",
        sourceAddressPrefix=UNKNOWN,
        sourcePortRange="*",
        destinationAddressPrefix="*",
        destinationPortRange="*",
    )


def _ports(node: Node, rule: Entry, side: str) -> None:
    single, plural = f"{side}PortRange", f"{side}PortRanges"
    one, several = node.text(single), node.texts(plural)
    if not node.is_whole(plural, len(several)):
        return
    if several:
        rule[plural] = several
    if one is not None and several != [one]:
        rule[single] = one


def _ipv4(prefixes: Iterable[str]) -> Iterable[str]:
    return (prefix for prefix in prefixes if ":" not in prefix)


def _spelled(word: str | None) -> str | None:
    return None if word is None else _SPELLINGS.get(word.casefold(), word)
