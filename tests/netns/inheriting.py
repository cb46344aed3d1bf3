"""What a start would find of an earlier daemon's fast path: run in a gateway's namespace."""

from __future__ import annotations

import json
import sys

from gateway.datapath.fastpath import FastPath
from gateway.datapath.fastpath.map_layout import ENTRY_SIZE, KEY


def main() -> None:
    """The argument: for how many flows. Attaches nothing and leaves everything as it is."""
    path = FastPath(["lan0"], "wan0", int(sys.argv[1]))
    library = path._object
    keys = list(library.keys(library.map("entries"), KEY.size, ENTRY_SIZE))
    found = [path.inherits, path.not_inherited, len(keys), len(set(keys))]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
