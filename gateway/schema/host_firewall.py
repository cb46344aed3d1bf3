"""How a sentence says what the host's own firewall does to a gateway's packets, for who reads it.

``datapath/firewall/obstacles.py`` makes the sentences, events carry them, and ``diagnose`` knows by
them how bad it is.
"""

from __future__ import annotations

LETS_PASS = "This lets them pass: "  # noqa: S105
"""Behind it, to the end, is a command."""
INSIDE_ONLY = " (what goes to the internet and comes back passes)"
"""VMs are isolated from each other, which may be meant."""
MAY_DROP = " may drop "


def is_critical(sentence: str) -> bool:
    """Whether the gateway cannot do its work; else it is a warning."""
    return MAY_DROP not in sentence and INSIDE_ONLY not in sentence
