"""The lab's record of itself: `state.json` in its run directory, replaced whole at each change.

Written before anything is built, so that `down` after a crash in the middle of `up` still knows
what was started. Absent or unreadable means that nothing is known, never that nothing is there.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from gateway.lab.processes import Process
from gateway.lab.topology import Lab


@dataclass
class State:
    """What `up` has done so far."""

    name: str
    started: str
    """ISO 8601, UTC."""
    configuration: str
    complete: bool = False
    processes: list[Process] = field(default_factory=list)


def save(lab: Lab, state: State) -> None:
    """Replace the state file. Raises OSError."""
    draft = lab.state_file.with_suffix(".new")
    draft.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    os.replace(draft, lab.state_file)


def load(lab: Lab) -> State | None:
    """The state as last saved; None if there is none that can be read."""
    try:
        fields = json.loads(lab.state_file.read_text(encoding="utf-8"))
        fields["processes"] = [Process(**entry) for entry in fields["processes"]]
        return State(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None
