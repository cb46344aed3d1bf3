"""The API process: an unprivileged one that answers HTTP from what the engine process sends it."""
