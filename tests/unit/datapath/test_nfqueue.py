"""The kernel's counters of a queue, as far as they can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.datapath import nfqueue
from gateway.datapath.nfqueue import KernelQueue


def test_counters_that_cannot_be_read_are_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is lost would be counted again when they can: they would have grown from 0."""
    file = tmp_path / "nfnetlink_queue"
    monkeypatch.setattr(nfqueue, "_COUNTERS", file)
    queue = KernelQueue(lambda packet: None, [b""], ())
    queue.number = 3
    assert queue.counts() == (0, 0, 0)
    file.write_text("    2  91  8 2 65531  80  90  70  1\n    3  91  4 2 65531  50  60  70  1\n")
    assert queue.counts() == (4, 50, 60)
    file.unlink()  # as without a free descriptor
    assert queue.counts() == (4, 50, 60)
