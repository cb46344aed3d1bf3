"""The TCP listener and the token, without a daemon."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gateway.daemon.start.http_listener import (
    TOKEN_FILE,
    HttpListener,
    HttpListenerError,
    dashboard_token,
    open_http_listener,
)
from gateway.model.reading.http_address import endpoint


def test_the_token_is_made_once_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    token = dashboard_token(directory)
    assert len(token) >= 40
    assert dashboard_token(directory) == token
    assert stat.S_IMODE((directory / TOKEN_FILE).stat().st_mode) == 0o640
    assert os.listdir(directory) == [TOKEN_FILE]
    assert dashboard_token(tmp_path / "other") != token
    (directory / TOKEN_FILE).write_text("one-of-my-own-choice\n")
    assert dashboard_token(directory) == "one-of-my-own-choice"


@pytest.mark.parametrize("content", [b"", b"short", b"with spaces in its middle", b"\xff" * 32])
def test_what_is_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TOKEN_FILE).write_bytes(content)
    with pytest.raises(HttpListenerError, match=TOKEN_FILE) as error:
        dashboard_token(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / TOKEN_FILE).read_bytes() == content


def test_a_port_in_use_and_an_address_that_is_not_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = endpoint(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(
            HttpListenerError, match=f"gateway.http = {place}: Address already in use"
        ):
            open_http_listener(place, None)
    with pytest.raises(
        HttpListenerError, match=r"gateway.http = 203\.0\.113\.9:8480: Cannot assign"
    ):
        open_http_listener(endpoint("203.0.113.9:8480"), None)


@pytest.mark.parametrize(
    ("place", "token", "url"),
    [
        ("127.0.0.1:8480", None, "http://127.0.0.1:8480/"),
        ("0.0.0.0:8480", "abc", "http://127.0.0.1:8480/?token=abc"),
        ("10.0.1.1:80", "abc", "http://10.0.1.1:80/?token=abc"),
        ("[::]:8480", "abc", "http://[::1]:8480/?token=abc"),
        ("[fd00::1]:8480", "abc", "http://[fd00::1]:8480/?token=abc"),
    ],
)
def test_what_a_browser_opens(place: str, token: str | None, url: str) -> None:
    with socket.socket() as unused:
        assert HttpListener(unused, endpoint(place), token).url == url
