"""Where the dashboard listens: ``127.0.0.1:8480``, ``0.0.0.0:8480`` or ``[::1]:8480``.

Kept as the text of a configuration, in one spelling. An address, never a name: what a name stands
for may change, and with it who can reach the page. Whether an address is loopback decides whether
a token is asked for (``gateway.web``).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from gateway.model.reading.field_types import refused

USUAL = "127.0.0.1:8480"
_ALLOWED = f"allowed: IP:PORT, as in {USUAL}, 0.0.0.0:8480 or [::1]:8480"
_FORM = re.compile(r"(?P<ip>\[[^\]]*\]|[^:]*):(?P<port>[0-9]{1,5})")


class Endpoint(NamedTuple):
    """Where to listen."""

    ip: IPv4Address | IPv6Address
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return self.ip.is_loopback

    def __str__(self) -> str:
        ip = f"[{self.ip}]" if self.ip.version == 6 else str(self.ip)
        return f"{ip}:{self.port}"


def endpoint(text: str) -> Endpoint:
    """The endpoint that a valid ``gateway.http`` names; raises ValueError with a sentence."""
    if text.isdigit():
        raise ValueError(f"has no address; did you mean 127.0.0.1:{text}?")
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"not an address and a port; {_ALLOWED}")
    host, port = match["ip"], int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"port out of range; allowed: 1 to 65535, as in {USUAL}")
    if host in ("", "*"):
        raise ValueError(
            f"has no address; did you mean 127.0.0.1:{port} (this host) or 0.0.0.0:{port} (all)?"
        )
    if host == "localhost":
        raise ValueError(f"must be an address, not a name; did you mean 127.0.0.1:{port}?")
    bare = host.strip("[]")
    try:
        ip = ip_address(bare)
    except ValueError:
        raise ValueError(f"{bare} is no IP address; {_ALLOWED}") from None
    return Endpoint(ip, port)


def _http(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise refused(f"must be text; {_ALLOWED}")
    try:
        return str(endpoint(value))
    except ValueError as error:
        raise refused(str(error)) from None


HttpAddress = Annotated[str, BeforeValidator(_http)]
