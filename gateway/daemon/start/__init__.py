"""The parent process: checks, sockets, privileges before the engine process is; then it waits."""
