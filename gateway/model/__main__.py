"""``python -m gateway.model FILE [--inside IF[,IF]] [--outside IF]``: validate a file, print the
result as one JSON object. The options stand for the file's interfaces.

The daemon reloads through this process, so that parsing never stalls packets.
Exit status: 0 with a configuration, 1 with errors, 2 on wrong usage.
"""

from __future__ import annotations

import argparse
import sys

from gateway.model.reading.load import Interfaces, load


def main(arguments: list[str]) -> int:
    """Print ``{"configuration": {…} or null, "problems": […]}`` for the named file."""
    parser = argparse.ArgumentParser(prog="python -m gateway.model", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--inside", metavar="IF[,IF]", default="")
    parser.add_argument("--outside", metavar="IF")
    given = parser.parse_args(arguments)
    inside = tuple(given.inside.split(",")) if given.inside else ()
    loaded = load(given.file, Interfaces(inside, given.outside))
    sys.stdout.buffer.write(loaded.to_json().encode("utf-8", "backslashreplace") + b"\n")
    return 0 if loaded.configuration is not None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
