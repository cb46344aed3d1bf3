"""Debian 12 as an image's root, where no registry can be reached: by debootstrap, from this
machine's own package mirror. Kept in the repository's ignored ``.cache`` for a week."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

RELEASE = "bookworm"
CACHE = Path(__file__).parents[2] / ".cache" / "docker"
WEEK = 7 * 24 * 3600


def root_archive(directory: Path) -> Path:
    """A tar archive of a minimal Debian 12; ``directory`` is for what is made on the way."""
    archive = CACHE / f"{RELEASE}.tar"
    if archive.exists() and time.time() - archive.stat().st_mtime < WEEK:
        return archive
    root = directory / "root"
    _run("debootstrap", "--variant=minbase", RELEASE, str(root), mirror())
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = archive.with_suffix(f".{os.getpid()}")
    cached = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./dev/*")
    _run("tar", "-C", str(root), *(f"--exclude={path}" for path in cached), "-cf", str(draft), ".")
    shutil.rmtree(root)
    draft.rename(archive)
    return archive


def mirror() -> str:
    """Where apt on this machine gets Debian 12 from."""
    listed = _run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)")
    for line in listed.splitlines():
        site, release, component = line.split()
        if (release, component) == (RELEASE, "main"):
            # cloud images have the mirror's address in a file
            if site.startswith("mirror+file:"):
                text = Path(site.removeprefix("mirror+file:")).read_text()
                site = re.findall(r"^\s*([a-z]+:\S+)", text, re.M)[0]
            return site
    raise AssertionError(f"apt's sources have no {RELEASE} main, of which the image is made")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}"
    return done.stdout
