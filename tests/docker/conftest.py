"""The compose lab, up for all tests of this folder, on a Docker of their own.

Everything is real: the image is built as a stranger builds it, but for its base (debootstrap; no
registry is asked) and for pip's packages (downloaded beforehand by pip as this machine has it).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.base_image import root_archive
from tests.docker.lab import Lab
from tests.docker.private_docker import ROOT, CannotRunError, PrivateDocker

LEFT_OUT = "SNATGW_NO_DOCKER"
BUILT_FROM = (
    "docker",
    "gateway",
    "scripts",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".dockerignore",
)
BUILD_BACKENDS = ("setuptools>=68", "wheel", "cython")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))  # the first one waits for the images


@pytest.fixture(scope="session")
def docker() -> Iterator[PrivateDocker]:
    if os.environ.get(LEFT_OUT) == "1":
        pytest.skip(f"{LEFT_OUT}=1: this environment is said to be unable to run dockerd")
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/docker needs root: sudo scripts/test")
    try:
        with PrivateDocker(Path(tempfile.mkdtemp(prefix="snatgw-docker-"))) as docker:
            yield docker
    except CannotRunError as error:
        pytest.fail(
            f"dockerd cannot run here: {error}\nWhere it never can, {LEFT_OUT}=1 leaves these "
            "tests out.",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def project(docker: PrivateDocker) -> Path:
    """A copy of what images are built from, with wheels for pip, and the base image."""
    project = docker.directory / "project"
    project.mkdir()
    for name in BUILT_FROM:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, project / name)
    wheels = str(project / "docker" / "wheels")
    for what in (("--no-binary=NetfilterQueue", str(project)), BUILD_BACKENDS):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels, *what],
            check=True,
            timeout=600,
        )
    archive = root_archive(docker.directory)
    docker.cli("import", str(archive), "debian:12-slim")
    return project


@pytest.fixture(scope="session")
def images(docker: PrivateDocker, project: Path) -> PrivateDocker:
    """Docker with `snatgw` and `snatgw-lab`."""
    docker.compose(project, "build")
    return docker


@pytest.fixture(scope="session")
def lab(images: PrivateDocker, project: Path) -> Iterator[Lab]:
    """The compose lab, up; tests leave it as they found it."""
    lab = Lab(images, project)
    lab.compose("up", "-d")
    yield lab
    lab.compose("down", "--volumes")
    assert images.cli("ps", "-aq") == ""
    assert images.cli("volume", "ls", "-q") == ""
    assert "snatgw" not in images.cli("network", "ls", "--format", "{{.Name}}")
