"""Ways in: each that is told apart by fragments has its whole one."""

from __future__ import annotations

from gateway.core.ingress import IngressPath


def test_a_packet_in_fragments_came_the_way_of_a_whole_one() -> None:
    assert {path.name: path.whole.name for path in IngressPath} == {
        "OUTBOUND": "OUTBOUND",
        "INBOUND": "INBOUND",
        "HAIRPIN": "HAIRPIN",
        "LOCAL_ERROR": "LOCAL_ERROR",
        "LATERAL": "LATERAL",
        "PROBE": "PROBE",
        "OUTBOUND_IN_FRAGMENTS": "OUTBOUND",
        "INBOUND_IN_FRAGMENTS": "INBOUND",
        "HAIRPIN_IN_FRAGMENTS": "HAIRPIN",
    }


def test_the_numbers_are_the_datapaths_and_do_not_move() -> None:
    """They are positions in the engine's list of handlers, and in netfilter's marks."""
    assert [int(path) for path in IngressPath] == list(range(9))
