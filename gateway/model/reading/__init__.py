"""A configuration file read: YAML, types, placeholders, and every mistake reported at once."""
