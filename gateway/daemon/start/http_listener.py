"""The TCP side of the API, for the dashboard and metrics: its listener and its token.
Runs in the engine process, before the loop begins.

The engine process makes both while it still may, as it does the API's socket; the API process only
accepts. On a loopback address no token is asked for. On any other there is one, made at the first
start and kept in the state directory, where those who may use the API's socket may read it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from gateway.daemon.start.api_socket import give_to_group
from gateway.model.reading.http_address import Endpoint

TOKEN_FILE = "dashboard-token"  # noqa: S105 - a file's name
"""In the state directory. If it is removed, the next start makes another token."""
MODE = 0o640
BACKLOG = 128
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,256}")


class HttpListenerError(Exception):
    """Why there can be no listener, in one line."""


@dataclass(frozen=True)
class HttpListener:
    """Where the dashboard is, and who may see it."""

    socket: socket.socket
    endpoint: Endpoint
    token: str | None

    @property
    def url(self) -> str:
        """What a browser on this host opens, the token included."""
        any_address = self.endpoint.ip.is_unspecified
        here = "127.0.0.1" if self.endpoint.ip.version == 4 else "[::1]"
        place = f"{here}:{self.endpoint.port}" if any_address else str(self.endpoint)
        return f"http://{place}/" + ("" if self.token is None else f"?token={self.token}")

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()


def open_http_listener(endpoint: Endpoint, token: str | None) -> HttpListener:
    """Listen on an address of this host. Raises HttpListenerError."""
    family = socket.AF_INET if endpoint.ip.version == 4 else socket.AF_INET6
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((str(endpoint.ip), endpoint.port))
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        line = f"gateway.http = {endpoint}: {error.strerror}; choose an address of this host"
        raise HttpListenerError(f"{line} and a port that is free") from error
    return HttpListener(listener, endpoint, token)


def dashboard_token(state_directory: Path) -> str:
    """The token that is kept there, made if there is none. Raises HttpListenerError."""
    path = state_directory / TOKEN_FILE
    try:
        try:
            token = path.read_text("ascii").strip()
        except FileNotFoundError:
            return _new_token(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise HttpListenerError(f"{path}: {why}") from error
    if not _TOKEN.fullmatch(token):
        line = f"{path}: no token; allowed: 16 to 256 letters, digits, '-', '_', '.', '~'"
        raise HttpListenerError(f"{line}; remove the file for a new one")
    return token


def _new_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    # complete under another name first: a half-written token must never be found
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        give_to_group(descriptor)
        os.fchmod(descriptor, MODE)
        file.write(token + "\n")
    draft.rename(path)
    return token
