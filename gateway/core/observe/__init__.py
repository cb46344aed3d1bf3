"""What is seen of the engine: drops counted, exhaustion, flow logs, listings. Decides nothing."""
