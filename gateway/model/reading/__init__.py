"""A configuration file read: YAML, types, placeholders, and every error reported at once."""
