"""IPv4 packets as bytes: checked once, then views that cannot fail. Knows no flow."""
