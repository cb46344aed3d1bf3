"""Checks of a configuration that concern more than one field: each gives problems with a path."""
