"""Input files to JSON values: bounded, any Unicode encoding, and every error one line.

PowerShell writes UTF-16 where other shells write UTF-8, and templates may have comments: both are
taken. Knows nothing of what the values mean.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from gateway.model.problems import printable

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 64
STANDARD_INPUT = "-"
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


class InputError(Exception):
    """A file that cannot be used; its text is a line for the user, the file's name included."""


def label(name: str) -> str:
    """What lines call a file."""
    return "standard input" if name == STANDARD_INPUT else printable(name)


def read(name: str) -> object:
    """The JSON value of a file, or of standard input for ``-``. Raises InputError."""
    content = _bytes(name)
    try:
        text = content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise InputError(f"{label(name)}: is not a text file: it must be JSON") from None
    if not text.strip():
        raise InputError(f"{label(name)}: is empty; it must be JSON, as az writes with -o json")
    try:
        value = _parse(text)
    except RecursionError:
        raise InputError(f"{label(name)}: is nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        hint = _hint(name, text)
        raise InputError(f"{label(name)}:{error.lineno}: {message}{hint}") from None
    except ValueError as error:
        raise InputError(f"{label(name)}: not JSON: {error}") from None
    if too_deep(value):
        raise InputError(f"{label(name)}: is nested more than {MAX_DEPTH} deep")
    return value


def _bytes(name: str) -> bytes:
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{label(name)}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{label(name)}: is a directory; give the files in it") from None
    except OSError as error:
        raise InputError(f"{label(name)}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{label(name)}: cannot be read: {error}") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{label(name)}: is too large; allowed: {MAX_BYTES >> 20} MiB")
    return content


def _parse(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError:
        without = _COMMENT.sub(_blanked, text)
        if without == text:
            raise
        return json.loads(without, parse_constant=_no_number)


def _blanked(match: re.Match[str]) -> str:
    """Strings as they are; comments as blanks, so that lines keep their numbers."""
    return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON's")


def _hint(name: str, text: str) -> str:
    if name.endswith(".bicep") or re.match(r"\s*(?:targetScope|param|resource|var) ", text):
        return "; a Bicep file becomes a template by: az bicep build --file FILE"
    if text.lstrip()[:1] in "{[":
        return ""
    return "; az writes JSON with -o json"


def too_deep(value: object) -> bool:
    """Whether a value is nested deeper than anything that Azure writes."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
