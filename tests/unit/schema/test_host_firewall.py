"""How bad it is what a sentence says about the host's firewall."""

from __future__ import annotations

import pytest

from gateway.schema.host_firewall import INSIDE_ONLY, LETS_PASS, is_critical


@pytest.mark.parametrize(
    ("sentence", "critical"),
    [
        ("iptables FORWARD drops what VMs send.", True),
        (f"iptables FORWARD drops what VMs send. {LETS_PASS}iptables -I FORWARD -j ACCEPT", True),
        ("nft chain x may drop what VMs send.", False),
        (f"iptables FORWARD drops what VMs send each other{INSIDE_ONLY}.", False),
    ],
)
def test_only_what_surely_drops_the_gateways_own_traffic_is_critical(
    sentence: str, critical: bool
) -> None:
    assert is_critical(sentence) is critical
