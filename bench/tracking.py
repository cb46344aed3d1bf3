"""Room in the host's connection tracking for more flows than it holds by default.

``nf_conntrack_max`` and the size of its hash table belong to the whole host, not to a namespace:
they are raised for as long as a measurement needs it and put back. A benchmark that is killed
leaves them raised, which costs the host some memory until it restarts and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.namespaces import BenchError

MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
BUCKETS = Path("/sys/module/nf_conntrack/parameters/hashsize")


@contextmanager
def room_for(flows: int) -> Iterator[None]:
    """Have connection tracking hold at least so many flows, at the ratio that it has now."""
    most, buckets = (int(path.read_text()) for path in (MOST, BUCKETS))
    if most >= flows:
        yield
        return
    try:
        # The table first: with the default's one bucket a flow, chains stay as short as they are.
        _write(BUCKETS, flows * buckets // most)
        _write(MOST, flows)
        yield
    finally:
        _write(MOST, most)
        _write(BUCKETS, buckets)


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        why = f"{path} cannot be set to {value:,} ({error.strerror})"
        raise BenchError(f"{why}: run it in the host's own network namespace") from None
