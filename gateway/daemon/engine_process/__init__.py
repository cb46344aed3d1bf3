"""The engine process: packets, rules, reloads and state, in one loop; it alone has capabilities."""
