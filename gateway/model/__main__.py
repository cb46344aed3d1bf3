"""``python -m gateway.model FILE``: validate a file, print the result as one JSON object.

The daemon reloads through this process, so that parsing never stalls packets.
Exit status: 0 with a configuration, 1 with errors, 2 on wrong usage.
"""

from __future__ import annotations

import sys

from gateway.model.loading import load


def main(arguments: list[str]) -> int:
    """Print ``{"configuration": {…} or null, "problems": […]}`` for the named file."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m gateway.model FILE", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    loaded = load(arguments[0])
    sys.stdout.buffer.write(loaded.to_json().encode("utf-8", "backslashreplace") + b"\n")
    return 0 if loaded.configuration is not None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
