"""The table of stages: every way in has a path, every path ends in a verdict."""

from __future__ import annotations

import inspect

import pytest

from gateway.core import pipeline, stages, stages_icmp
from gateway.core.ingress import IngressPath
from gateway.core.pipeline import HAIRPIN, INBOUND, LATERAL, OUTBOUND, PATHS
from gateway.core.stages import Path, Stage

LAST = {
    stages.translate_source,
    stages.translate_destination,
    stages.pass_unchanged,
    stages.drop_routed_elsewhere,
}
"""Stages that always give a verdict."""
EVERY = [OUTBOUND, INBOUND, LATERAL, HAIRPIN, *PATHS.values()]


def test_every_way_in_has_a_path() -> None:
    assert set(PATHS) == {ingress.whole for ingress in IngressPath}


@pytest.mark.parametrize("path", EVERY)
def test_a_path_ends_with_its_only_stage_that_always_decides(path: Path) -> None:
    assert [stage for stage in path if stage in LAST] == [path[-1]]


def test_every_stage_is_on_a_path_and_says_what_it_is_for() -> None:
    def is_stage(thing: object) -> bool:
        if not inspect.isfunction(thing) or thing.__name__.startswith("_"):
            return False
        return list(inspect.signature(thing).parameters) == ["packet"]

    written: set[Stage] = {
        function
        for module in (stages, stages_icmp, pipeline)
        for _, function in inspect.getmembers(module, is_stage)
    }
    assert written == {stage for path in EVERY for stage in path}
    assert all(stage.__doc__ for stage in written)
