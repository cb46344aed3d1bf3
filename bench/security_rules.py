"""Network security groups by themselves: what judging a flow's first packet costs.

``python -m bench.security_rules 11`` prints one JSON object: microseconds of ``Policy.inbound``, as
the engine asks it, for a group of 10 rules and for one of 1,000, four source prefixes each (4,000
in the large one). The two take turns in one process; the median counts.

"""

from __future__ import annotations

import gc
import json
import random
import sys
from ipaddress import IPv4Address
from statistics import median
from time import process_time

from gateway.core.policy.nsg import FiveTuple, Policy
from gateway.model.configuration import Configuration

PREFIXES = 4
FEW, MANY = 10, 1000
PACKETS = 5_000
VM = int(IPv4Address("10.0.0.4"))


def policy(rules: int) -> Policy:
    """A VM behind a subnet's group with this many rules, all different."""
    dice = random.Random(rules)
    return Policy(
        Configuration.model_validate(
            {
                "gateway": {"inside": ["lan0"], "outside": "wan0"},
                "virtualNetwork": {
                    "addressPrefixes": ["10.0.0.0/16"],
                    "subnets": [
                        {
                            "name": "vms",
                            "addressPrefix": "10.0.0.0/16",
                            "networkSecurityGroup": "group",
                        }
                    ],
                },
                "networkSecurityGroups": [
                    {"name": "group", "securityRules": [_rule(n, dice) for n in range(rules)]}
                ],
            }
        )
    )


def _rule(number: int, dice: random.Random) -> dict[str, object]:
    prefixes = {f"{IPv4Address(dice.randrange(1 << 24, 223 << 24) & ~0xFF)}/24" for _ in range(9)}
    port = dice.randrange(65_000)
    return {
        "name": f"rule-{number}",
        "priority": 100 + number,
        "direction": "Inbound",
        "access": dice.choice(["Allow", "Deny"]),
        "protocol": dice.choice(["Tcp", "Udp", "*"]),
        "sourceAddressPrefixes": sorted(prefixes)[:PREFIXES],
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": f"{port}-{port + 10}",
    }


def measure(repeats: int) -> dict[str, float]:
    """Microseconds a judgement with few and with many rules."""
    dice = random.Random(1)
    packets = [
        FiveTuple(6, dice.randrange(1 << 32), dice.randrange(65536), VM, dice.randrange(65536))
        for _ in range(PACKETS)
    ]
    policies = {"few": policy(FEW), "many": policy(MANY)}
    times: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(repeats):
        for name, judge in policies.items():
            inbound = judge.inbound
            start = process_time()
            for packet in packets:
                inbound(packet)
            times[name].append((process_time() - start) * 1e6 / PACKETS)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    gc.disable()
    print(json.dumps(measure(int(sys.argv[1]))))
