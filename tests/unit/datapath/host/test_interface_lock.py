"""An interface belongs to one gateway at a time."""

from __future__ import annotations

import pytest

from gateway.datapath.errors import DatapathError
from gateway.datapath.host.interface_lock import InterfaceLocks, is_claimed


def test_a_second_gateway_is_told_every_interface_that_is_taken() -> None:
    with InterfaceLocks(["dp-lan0", "dp-wan0"]):
        with pytest.raises(DatapathError) as refused:
            InterfaceLocks(["dp-lan1", "dp-lan0", "dp-wan0"])
        assert [line.split(":")[0] for line in refused.value.problems] == ["dp-lan0", "dp-wan0"]
        assert not is_claimed("dp-lan1")  # all or none


def test_a_claim_ends() -> None:
    with InterfaceLocks(["dp-lan0"]):
        assert is_claimed("dp-lan0")
    assert not is_claimed("dp-lan0")
    InterfaceLocks(["dp-lan0"]).close()
