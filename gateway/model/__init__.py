"""The resources as typed, validated data: profiles, configuration, reading YAML.

This layer knows nothing of packets, clocks, sockets or interfaces; everything above imports it.
"""

from gateway.model.configuration import Configuration
from gateway.model.loading import Loaded, load, load_text
from gateway.model.problems import InvalidConfiguration, Problem
from gateway.model.profile import PROFILES, DestinationScope, FrontendChoice, Method, Profile
from gateway.model.zero_config import from_flags

__all__ = [
    "PROFILES",
    "Configuration",
    "DestinationScope",
    "FrontendChoice",
    "InvalidConfiguration",
    "Loaded",
    "Method",
    "Problem",
    "Profile",
    "from_flags",
    "load",
    "load_text",
]
