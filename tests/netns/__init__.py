"""Tests with real clients in network namespaces: root and Linux."""
