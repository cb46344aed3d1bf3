"""The prober: an unprivileged process that sends health probes."""
