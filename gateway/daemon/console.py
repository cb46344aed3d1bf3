"""The daemon's log: what its processes write to standard error.
Runs in every process of the daemon.

All of it passes here: what a process logs by ``say``, and what libraries log through ``logging``
(``name_process``). Each line has a level of sd-daemon(3). ``SNATGW_LOG`` names the least one that
is logged (``info`` to begin with), ``SNATGW_LOG_FORMAT=json`` makes each a JSON object on a line.
As text a line is the message alone; only where standard error is the journal it begins with
``<N>``, by which the journal knows its level. It must not know what any message means.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

LEVEL, FORMAT = "SNATGW_LOG", "SNATGW_LOG_FORMAT"


class Level(IntEnum):
    """The numbers are syslog's: the lower, the worse."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


_LEVELS = {level.name.lower(): level for level in Level}
_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Settings:
    """What of the environment matters here."""

    least: Level = Level.INFO
    json: bool = False
    journal: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """An unknown value counts as none: ``wrong_settings`` reports it."""
        return cls(
            _LEVELS.get(environment.get(LEVEL, ""), Level.INFO),
            environment.get(FORMAT) == "json",
            _is_journal(environment.get("JOURNAL_STREAM", "")),
        )


def _is_journal(stream: str) -> bool:
    """Whether standard error is the stream that systemd named: device and inode, as in ``8:12``."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


_settings: Settings | None = None
_process = "engine"


def wrong_settings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable with a value that there is none of."""
    known = {LEVEL: tuple(_LEVELS), FORMAT: _FORMATS}
    return [
        f"{name}: {environment[name]!r} is none of {', '.join(values)}"
        for name, values in known.items()
        if environment.get(name) and environment[name] not in values
    ]


def say(message: str, level: Level = Level.INFO) -> None:
    """A line for the operator, or several: a traceback. Who does not hear it (a pipe whose reader
    has gone, a disk that is full) stops no packet."""
    global _settings
    if _settings is None:
        _settings = Settings.of(os.environ)
    # Without a standard error (``2>&-``) print would write to standard output.
    if level <= _settings.least and sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(_written(message, level, _settings), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """What works still, but not as it was meant to."""
    say(message, Level.WARNING)


def _written(message: str, level: Level, settings: Settings) -> str:
    if settings.json:
        about = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level.name.lower(),
            "process": _process,
            "pid": os.getpid(),
            "message": message,
        }
        return json.dumps(about, ensure_ascii=False)
    if settings.journal:
        return "\n".join(f"<{level}>{line}" for line in message.splitlines() or [""])
    return message


def name_process(name: str) -> None:
    """Log as ``name`` from now on, for the libraries that this process uses, too."""
    global _process
    _process = name
    root = logging.getLogger()
    if not any(isinstance(handler, _FromLibraries) for handler in root.handlers):
        root.addHandler(_FromLibraries())


class _FromLibraries(logging.Handler):
    """Records of ``logging`` at the level that they have there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record), _of_logging(record.levelno))
        except Exception:
            self.handleError(record)


def _of_logging(number: int) -> Level:
    if number >= logging.ERROR:
        return Level.ERROR
    if number >= logging.WARNING:
        return Level.WARNING
    return Level.INFO if number >= logging.INFO else Level.DEBUG
