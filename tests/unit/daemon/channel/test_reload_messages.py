"""What the reader hands over: the same on both sides, in small parts, and nothing else passes."""

from __future__ import annotations

import marshal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reload.resolved import resolve
from gateway.daemon.channel import reload_messages
from gateway.daemon.channel.reload_messages import Handed, NotHandedError, pack, unpack
from gateway.model.configuration import Configuration
from gateway.model.reading.load import Loaded, load_text
from tests.scenario import configuration
from tests.unit.core.policy.test_nsg import NO_SMTP, WEB, network
from tests.unit.core.reload.test_network_changes import TOWN
from tests.unit.core.snat.test_nat_gateway_pool import ONE

TAGGED = network(NO_SMTP + WEB)


def handed(data: bytes) -> Handed:
    """What the engine makes of it, in one go."""
    steps = unpack(data)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            told: Handed = finished.value
            return told


def assert_same(read: Configuration) -> None:
    told = handed(b"".join(pack(Loaded(configuration=read)))).resolved
    assert told is not None
    expected = resolve(read)
    assert told.configuration == read
    assert told.configuration.to_json() == read.to_json()
    assert told.plan == expected.plan
    assert [(m.tcp, m.udp) for m in told.plan.machines] == [
        (m.tcp, m.udp) for m in expected.plan.machines
    ]
    assert list(told.groups) == list(expected.groups)
    for name, group in expected.groups.items():
        other = told.groups[name]
        assert other.flush_connection == group.flush_connection
        for one, two in ((other.inbound, group.inbound), (other.outbound, group.outbound)):
            assert one.rules == two.rules
            assert one.parts() == two.parts()


@pytest.mark.parametrize("text", [TOWN, TAGGED, ONE])
@pytest.mark.parametrize("chunk", [1, 2, 24])
def test_the_engine_gets_what_the_reader_has(
    text: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("CHUNK", "RULES", "MACHINES"):
        monkeypatch.setattr(reload_messages, limit, chunk)
    assert_same(configuration(text))


def test_problems_come_as_they_are() -> None:
    bad = load_text(TOWN.replace("ipAddress", "ipAdress"), "gateway.yaml")
    told = handed(b"".join(pack(bad)))
    assert told == Handed(None, bad.problems)


def test_no_part_is_large() -> None:
    machines = "".join(
        f"  - {{name: a{n}, privateIPAddress: 10.0.{n // 200 + 2}.{n % 200 + 4}}}\n"
        for n in range(600)
    )
    text = TOWN.replace("virtualMachines:\n", "virtualMachines:\n" + machines)
    text = text.replace("10.0.1.0/24", "10.0.0.0/20").replace("[pip-d]", "[]")
    parts = list(pack(Loaded(configuration=configuration(text))))
    assert max(map(len, parts)) < 16_384


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"Traceback (most recent call last)",
        b"\0\0\0\x05hello",
        *(
            len(part).to_bytes(4, "big") + part
            for part in map(
                marshal.dumps,  # type: ignore[arg-type]
                [
                    ("end", True),
                    ("what",),
                    ("items", "gateway", b"[]"),
                    ("items", "virtual_machines", b'[{"name": "a"}]'),
                    ("more", "probes", b"[]"),
                    ("group", "a", False),
                    5,
                ],
            )
        ),
    ],
)
def test_anything_else_is_rejected(data: bytes) -> None:
    with pytest.raises(NotHandedError):
        handed(data)


@given(cut=st.integers(0, 3000))
def test_what_ends_too_early_is_rejected(cut: int) -> None:
    whole = b"".join(pack(Loaded(configuration=configuration(TOWN))))
    with pytest.raises(NotHandedError):
        handed(whole[: min(cut, len(whole) - 1)])
