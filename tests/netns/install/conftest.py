"""One installation into an empty root, which the tests leave as it is."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import reaper
from tests.netns import gateway

ROOT = Path(__file__).parents[3]


def install(*arguments: str, source: Path = ROOT, status: int = 0) -> str:
    """Run `scripts/install`; what it said."""
    done = subprocess.run(
        [str(source / "scripts/install"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def bare_root(directory: Path) -> Path:
    """What of a system the installation needs: accounts."""
    (directory / "etc").mkdir(parents=True)
    for name in ("passwd", "group", "shadow", "gshadow"):
        lines = (Path("/etc") / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("snatgw:")]
        (directory / "etc" / name).write_text("".join(kept))
    return directory


@pytest.fixture(scope="package")
def installed() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snatgw-install-") as directory:
        reaper.tell("directory", directory)
        Path(directory).chmod(0o755)
        root = bare_root(Path(directory) / "root")
        install("--root", str(root))
        yield root


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """In place of the one above, once is enough: as in the configuration to begin with."""
    gateway.fast_path = "auto"
