"""The resources as typed, validated data: profiles, configuration, reading YAML.

This layer knows nothing of packets, clocks, sockets or interfaces; everything above imports it.
"""

from gateway.model.configuration import Configuration
from gateway.model.problems import Problem
from gateway.model.profile import PROFILES, DestinationScope, FrontendChoice, Method, Profile
from gateway.model.reading.load import Loaded, load, load_text

__all__ = [
    "PROFILES",
    "Configuration",
    "DestinationScope",
    "FrontendChoice",
    "Loaded",
    "Method",
    "Problem",
    "Profile",
    "load",
    "load_text",
]
