"""A configuration with what it resolves to: made once, by another process where packets flow.

What does not depend on the gateway's state is worked out here; the rest is ``preparation.py``.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.policy.nsg import Group, compiled
from gateway.core.snat.plan import Plan, plan
from gateway.model.configuration import Configuration


class Resolved(NamedTuple):
    """Plan and compiled security groups of a configuration, which belong together."""

    configuration: Configuration
    plan: Plan
    groups: dict[str, Group]


def resolve(configuration: Configuration) -> Resolved:
    """Work it all out. Pure; takes long for thousands of VMs."""
    profile = configuration.profile
    return Resolved(configuration, plan(configuration, profile), compiled(configuration))
