"""What a configuration means, worked out once: rules, tags, port grants, outbound methods."""
