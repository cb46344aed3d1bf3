"""What the lab's web servers serve: a page, and a large file whose hash is known beforehand.

The file is 200 MiB, of which one 4 KiB block in every 64 KiB holds bytes that depend on the
block's number (at an offset that moves); the rest is sparse. So it costs 13 MB of disk or memory,
is written in a moment, and still shows any byte lost, repeated or moved.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LARGE_NAME = "large.bin"
LARGE_SIZE = 200 << 20
LARGE_SHA256 = "da49f1d833a37247aeaffa220d9553a7c50ae48d47b050ecbe44786a9c35eaf5"
_STRIDE = 64 << 10
_BLOCK = 4 << 10


def write(directory: Path) -> None:
    """Fill `directory`, which must exist and be empty. Raises OSError."""
    page = "<!doctype html>\n<title>snatgw lab</title>\n<p>Hello from the lab's internet.</p>\n"
    (directory / "index.html").write_text(page, encoding="utf-8")
    (directory / f"{LARGE_NAME}.sha256").write_text(f"{LARGE_SHA256}  {LARGE_NAME}\n")
    write_large(directory / LARGE_NAME)


def write_large(path: Path, size: int = LARGE_SIZE) -> None:
    """Write the large file, or its first `size` bytes (a multiple of 64 KiB). Raises OSError."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(size // _STRIDE):
            block = hashlib.shake_128(number.to_bytes(4, "big")).digest(_BLOCK)
            offset = number * _STRIDE + number % (_STRIDE // _BLOCK) * _BLOCK
            os.pwrite(file.fileno(), block, offset)
