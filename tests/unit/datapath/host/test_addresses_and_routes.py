"""Interfaces that go while they are looked at."""

from __future__ import annotations

import errno

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.host import addresses_and_routes


class Going:
    """Netlink's answers about an interface that is removed after the first."""

    def __enter__(self) -> Going:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def link_lookup(self, **_: str) -> list[int]:
        return [7]

    def get_links(self, _: int) -> list[object]:
        raise NetlinkError(errno.ENODEV, "No such device")


def test_one_that_goes_between_two_questions_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses_and_routes, "IPRoute", Going)
    assert addresses_and_routes.find_link("lan0") is None
