"""``gateway.http``: what is an address to listen on, and what a user reads who wrote another."""

from __future__ import annotations

import pytest

from gateway.model.reading.load import load_text
from tests.unit.model.files import MINIMAL, configuration


def written(value: str) -> str:
    return MINIMAL.replace("outside: wan0", f"outside: wan0\n  http: {value}")


@pytest.mark.parametrize(
    ("value", "spelled", "loopback"),
    [
        ("127.0.0.1:8480", "127.0.0.1:8480", True),
        ("127.9.9.9:1", "127.9.9.9:1", True),
        ("'[127.0.0.1]:8480'", "127.0.0.1:8480", True),
        ("'[::1]:65535'", "[::1]:65535", True),
        ("0.0.0.0:8480", "0.0.0.0:8480", False),
        ("'[FD00::0001]:80'", "[fd00::1]:80", False),
        ("'[::]:80'", "[::]:80", False),
    ],
)
def test_addresses(value: str, spelled: str, loopback: bool) -> None:
    loaded = load_text(written(value), "gateway.yaml")
    assert loaded.configuration is not None, loaded.problems
    gateway = loaded.configuration.gateway
    assert gateway.http == spelled
    assert gateway.http_endpoint is not None
    assert gateway.http_endpoint.is_loopback is loopback
    warnings = [str(p) for p in loaded.problems if p.path == "gateway.http"]
    assert len(warnings) == (not loopback)
    assert all("warning" in line and "not a loopback address" in line for line in warnings)


def test_absent_is_none() -> None:
    gateway = configuration(MINIMAL).gateway
    assert (gateway.http, gateway.http_endpoint) == (None, None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("8480", "has no address; did you mean 127.0.0.1:8480?"),
        ("':8480'", "did you mean 127.0.0.1:8480 (this host) or 0.0.0.0:8480 (all)?"),
        ("'*:8480'", "did you mean 127.0.0.1:8480 (this host) or 0.0.0.0:8480 (all)?"),
        ("localhost:8480", "must be an address, not a name; did you mean 127.0.0.1:8480?"),
        ("gateway.lan:8480", "gateway.lan is no IP address; allowed: IP:PORT"),
        ("127.0.0.1", "not an address and a port; allowed: IP:PORT"),
        ("127.0.0.1:0", "port out of range; allowed: 1 to 65535"),
        ("127.0.0.1:65536", "port out of range; allowed: 1 to 65535"),
        ("'::1:8480'", "not an address and a port; allowed: IP:PORT"),
        ("http://127.0.0.1:8480", "not an address and a port; allowed: IP:PORT"),
        ("true", "must be text; allowed: IP:PORT"),
        ("[127.0.0.1]", "must be text; allowed: IP:PORT"),
    ],
)
def test_what_is_no_address(value: str, said: str) -> None:
    loaded = load_text(written(value), "gateway.yaml")
    assert loaded.configuration is None
    (line,) = map(str, loaded.problems)
    assert "gateway.http" in line
    assert said in line
