"""The resources as typed, validated data: profiles, configuration, reading YAML.

This layer knows nothing of packets, clocks, sockets or interfaces; everything above imports it.
"""
