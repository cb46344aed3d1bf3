"""The engine's state as bytes, and an engine with its state put back after a restart."""
