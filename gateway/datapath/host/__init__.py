"""What the gateway makes of its host: rules, addresses, routes, sysctls; kept, and undone."""
