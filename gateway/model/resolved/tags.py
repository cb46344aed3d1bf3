"""What counts as the virtual network, the platform and the internet: data, and Azure's three tags.

Sources: docs/fidelity.md A10 and the service tags documentation. "Internet" is everything outside
the virtual network that is publicly reachable; here the documentation and benchmark ranges count
as internet, so that a lab can use them, and a configuration may add ranges
(``gateway.internetAddressPrefixes``). The core's address scope is built on the same data, so that
what a rule calls internet is what gets translated.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from gateway.model.configuration import Configuration
from gateway.model.resolved.intervals import EVERY_ADDRESS, Intervals, of_networks, subtract, union

PLATFORM_ADDRESS = IPv4Network("168.63.129.16/32")
"""Where probes come from, and where a VM finds DNS and the agent's server."""

# "This network", loopback, link-local with the platform's 169.254.169.254, multicast, reserved and
# broadcast; and Azure's platform address, which belongs to the VirtualNetwork tag.
NOT_JUDGED = (
    *map(
        IPv4Network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
    ),
    PLATFORM_ADDRESS,
)
"""Where no flow leads to, and what no security group evaluates outbound."""

# RFC 1918, RFC 6598: outside the virtual network these are in no tag, so DenyAllOutBound has them.
PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
)
NOT_INTERNET = (*PRIVATE, *NOT_JUDGED)

VIRTUAL_NETWORK = "VirtualNetwork"
AZURE_LOAD_BALANCER = "AzureLoadBalancer"
INTERNET = "Internet"
BUILT_IN = (VIRTUAL_NETWORK, AZURE_LOAD_BALANCER, INTERNET)
"""The tags that need no file, in Azure's spelling."""


def built_in(configuration: Configuration) -> dict[str, Intervals]:
    """What the three tags stand for in a configuration."""
    network = of_networks(configuration.virtual_network.address_prefixes)
    platform = of_networks([PLATFORM_ADDRESS])
    public = subtract(EVERY_ADDRESS, of_networks(NOT_INTERNET))
    added = of_networks(configuration.gateway.internet_address_prefixes)
    return {
        VIRTUAL_NETWORK: union([*network, *platform]),
        AZURE_LOAD_BALANCER: platform,
        INTERNET: subtract(union([*public, *added]), network),
    }


def by_folded(names: Iterable[str]) -> dict[str, str]:
    """Spellings by what is looked up: capitals make no difference in tags' names."""
    return {name.casefold(): name for name in names}
