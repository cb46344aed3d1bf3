"""``python -m gateway.daemon.reader FILE [--inside IF[,IF]] [--outside IF]``: validate a file,
resolve it, and print both in parts that the engine takes between packets.
Runs in the reader process, which the supervisor starts.

The options stand for the file's interfaces. Exit status: 0 with a configuration, 1 with errors, 2
on wrong usage.
"""

from __future__ import annotations

import argparse
import sys

from gateway.daemon.channel.reload_messages import pack
from gateway.model.reading.load import Interfaces, load


def main(arguments: list[str]) -> int:
    """Print what ``reload_messages.unpack`` reads."""
    parser = argparse.ArgumentParser(prog="python -m gateway.daemon.reader", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--inside", metavar="IF[,IF]", default="")
    parser.add_argument("--outside", metavar="IF")
    given = parser.parse_args(arguments)
    inside = tuple(given.inside.split(",")) if given.inside else ()
    loaded = load(given.file, Interfaces(inside, given.outside))
    sys.stdout.buffer.writelines(pack(loaded))
    return 0 if loaded.configuration is not None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
