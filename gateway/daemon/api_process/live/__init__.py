"""In the API process: samples of flows and ports for watchers, and their history."""
