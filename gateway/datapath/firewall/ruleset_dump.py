"""Has ``nft`` and ``iptables-save`` print the host's rules: every table, of any program.

``iptables`` has two back ends, and a host may have rules of both: those in nf_tables are opaque to
``nft``, and the legacy ones it does not see at all.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 10.0
"""Seconds for each command: a host may have very many rules."""
_LEGACY_TABLES = Path("/proc/net/ip_tables_names")


@dataclass(frozen=True)
class Rulesets:
    """``nft``: its JSON; ``iptables``: what each command's ``-save`` prints, by the command that
    changes it. ``own`` is the one that the gateway uses."""

    nft: dict[str, Any] = field(default_factory=dict)
    iptables: dict[str, str] = field(default_factory=dict)
    own: str = "iptables"
    own_is_nft: bool = True


def read_host() -> Rulesets:
    """The rules of this network namespace. What a command does not print is left out."""
    own_is_nft = "legacy" not in _output(["iptables", "-V"])
    texts = {"iptables": _output(["iptables-save"])}
    if own_is_nft and _has_legacy_tables():
        texts["iptables-legacy"] = _output(["iptables-legacy-save"])
    if not own_is_nft and shutil.which("iptables-nft-save"):
        texts["iptables-nft"] = _output(["iptables-nft-save"])
    listed = _output(["nft", "-j", "list", "ruleset"])
    try:
        document = json.loads(listed or "{}")
    except ValueError:
        document = {}
    return Rulesets(
        document, {name: text for name, text in texts.items() if text}, "iptables", own_is_nft
    )


def _has_legacy_tables() -> bool:
    try:
        return bool(_LEGACY_TABLES.read_text().strip())
    except OSError:
        return False


def _output(command: list[str]) -> str:
    """What it prints; empty if it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
