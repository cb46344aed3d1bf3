"""What a flow is: keys, counters, states, timers; its packets rewritten. Knows no configuration."""
