"""compose.yaml as files: both composes must take it, and strangers get what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.model.reading.load import load
from tests.docker.private_docker import PrivateDocker

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("profile", [(), ("--profile", "monitoring")])
def test_compose_takes_the_file(docker: PrivateDocker, profile: tuple[str, ...]) -> None:
    file = str(DOCKER / "compose.yaml")
    docker.run(["docker-compose", *profile, "-f", file, "config", "--quiet"], 0)


def test_monitoring_comes_on_demand(services: dict[str, Any]) -> None:
    with_a_profile = {name for name, service in services.items() if "profiles" in service}
    assert with_a_profile == {"prometheus", "grafana"}


def test_ports_are_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_only_the_gateway_has_capabilities(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name not in ("prometheus", "grafana"):
            assert service["cap_drop"] == ["ALL"], name
            assert "privileged" not in service, name
        assert ("cap_add" in service) == (name == "gateway"), name


def test_the_gateways_configuration_has_no_mistakes() -> None:
    loaded = load(str(DOCKER / "config" / "gateway.yaml"))
    assert [str(problem) for problem in loaded.problems if problem.severity == "error"] == []


def test_what_the_file_mounts_and_builds_is_there(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    for source in (mount.partition(":")[0] for mount in mounts):
        assert not source.startswith("./") or (DOCKER / source).is_dir(), source
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.M)
    for path in " ".join(copied).split():
        assert list(DOCKER.parent.glob(path)), path
