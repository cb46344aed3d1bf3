"""The engine's state as bytes, and an engine with its state restored after a restart."""
