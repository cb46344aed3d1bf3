"""Which addresses are the virtual network's, which are internet's, which are neither.

Source: docs/fidelity.md A10 and the service tags documentation. "Internet" is everything outside
the virtual network that is publicly reachable; here the documentation and benchmark ranges count
as internet, so that a lab can use them, and a configuration may add ranges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from gateway.model.resolved.tags import NOT_INTERNET, NOT_JUDGED


class Prefixes:
    """Tests whether an address of 4 bytes lies in one of some prefixes, in one binary search."""

    __slots__ = ("_bounds",)

    def __init__(self, networks: Iterable[IPv4Network]) -> None:
        # Collapsed prefixes are disjoint: the number of bounds at or below an address is odd
        # exactly where it lies inside of one.
        self._bounds = [
            bound
            for network in sorted(collapse_addresses(networks))
            for bound in (int(network.network_address), int(network.broadcast_address) + 1)
        ]

    def __contains__(self, address: bytes) -> bool:
        return bisect_right(self._bounds, int.from_bytes(address, "big")) & 1 == 1


class AddressScope:
    """The configuration's view of the address space."""

    def __init__(
        self,
        virtual_network: Iterable[IPv4Network],
        subnets: Iterable[IPv4Network],
        internet: Iterable[IPv4Network],
    ) -> None:
        self.virtual_network = Prefixes(virtual_network)
        networks = list(subnets)
        self.subnets = Prefixes(networks)
        self.nobody = frozenset(
            address.packed
            for network in networks
            if network.prefixlen < 31
            for address in (network.network_address, network.broadcast_address)
        )
        """Addresses in subnets that no host has: the networks' own, and broadcast."""
        self._added = Prefixes(internet)
        self._excluded = Prefixes(NOT_INTERNET)
        self.not_judged = Prefixes(NOT_JUDGED)

    def is_internet(self, address: bytes) -> bool:
        """Whether an outbound flow to ``address`` (4 bytes) is translated."""
        if address in self.virtual_network:
            return False
        return address in self._added or address not in self._excluded

    def can_be_outside(self, source: bytes) -> bool:
        """Whether what comes in from outside may have this source (4 bytes) without lying.

        The virtual network's addresses and the platform's are in tags that admit: a sender who
        could borrow them would pass the groups.
        """
        if source in self.virtual_network:
            return False
        return source in self._added or source not in self.not_judged
