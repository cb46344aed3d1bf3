"""The fast path's maps have names in bpffs: a start finds them without CAP_SYS_ADMIN."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, Topology, eventually


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """These name their mode."""


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """As systemd mounts it on /sys/fs/bpf; what `ip netns exec` starts does not see that one."""
    subprocess.run(["mount", "-t", "bpf", "-o", "mode=700", "bpf", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def as_a_service(bpffs: Path | None) -> tuple[str, ...]:
    """With bpffs in its place, and the capabilities that the unit leaves."""
    mount = "" if bpffs is None else f"mount --bind {bpffs} /sys/fs/bpf && "
    return ("sh", "-c", f'{mount}exec setpriv --bounding-set -sys_admin "$@"', "sh")


def found(net: Topology, bpffs: Path | None, flows: int) -> list[object]:
    """What the next start finds: see ``inheriting.py``."""
    command = (sys.executable, "-m", "tests.netns.inheriting", str(flows))
    said: list[object] = json.loads(net.run("gw", *as_a_service(bpffs), *command))
    return said


def with_connections(net: Topology, bpffs: Path | None) -> Gateway:
    gateway = Gateway(net, fastPath="on", maximumFlows=500)
    gateway.wrapper = as_a_service(bpffs)
    gateway.start()
    vm = net.client("vm1")
    vm.open(3, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3)
    assert vm.talk() == 3
    return gateway


def pins(bpffs: Path) -> list[str]:
    return sorted(path.name for path in bpffs.glob("snatgw/*/*"))


def test_after_a_crash_the_maps_are_found_by_name(fresh: Topology, bpffs: Path) -> None:
    gateway = with_connections(fresh, bpffs)
    assert [name.split("-")[0] for name in pins(bpffs)] == ["counters", "entries", "reports"]
    for directory in (bpffs / "snatgw", *(bpffs / "snatgw").iterdir()):
        assert directory.stat().st_mode & 0o777 == 0o700
    gateway.kill()
    assert fresh.client("vm1").talk() == 3
    assert found(fresh, bpffs, 500) == [True, "", 6, 6]
    another_size = "they have another size (gateway.maximumFlows)"
    assert found(fresh, bpffs, 600) == [False, another_size, 0, 0]
    shutil.rmtree(gateway.state)  # with live flows it would leave the maps to a next one
    gateway.start()
    assert "fast path" not in gateway.errors.read_text()
    assert gateway.status()["fastPath"]["active"]
    assert len(pins(bpffs)) == 3
    assert gateway.stop() == 0
    assert not (bpffs / "snatgw").exists()


def test_another_size_starts_empty_with_pins_of_its_own(fresh: Topology, bpffs: Path) -> None:
    gateway = with_connections(fresh, bpffs)
    gateway.kill()
    gateway.configuration["gateway"]["maximumFlows"] = 700
    gateway.start()
    assert "they have another size" in gateway.errors.read_text()
    assert found(fresh, bpffs, 700)[:2] == [True, ""]
    gateway.kill()
    gateway.configuration["gateway"]["fastPath"] = "off"
    gateway.start()
    assert not (bpffs / "snatgw").exists()
    assert gateway.stop() == 0


def test_without_bpffs_it_goes_on_and_says_what_the_next_start_lacks(fresh: Topology) -> None:
    gateway = with_connections(fresh, None)
    gateway.kill()
    gateway.start()
    said = gateway.errors.read_text()
    assert "without bpffs on /sys/fs/bpf it takes CAP_SYS_ADMIN" in said
    assert fresh.client("vm1").peer("Tcp", SERVER)
    assert gateway.stop() == 0


def test_pins_of_what_is_gone_are_removed_and_others_stay(fresh: Topology, bpffs: Path) -> None:
    fresh.wire("gw/wan.1 203.0.115.1/24", "narrow/eth9 203.0.115.254/24")
    gateway = Gateway(fresh, fastPath="on", outside="wan.1", maximumFlows=500)
    gateway.wrapper = as_a_service(bpffs)
    gateway.start()
    gateway.kill()
    (directory,) = (bpffs / "snatgw").iterdir()
    namespace = directory.name.split("-")[0]
    assert directory.name == f"{namespace}-wan%2E1"
    fresh.ip("gw", "link del wan.1")
    other = Path("/proc/self/ns/net").stat().st_ino
    (bpffs / "snatgw" / f"{other}-wan0").mkdir(mode=0o700)
    another = Gateway(fresh, fastPath="on", maximumFlows=500)
    another.wrapper = ("sh", "-c", f'mount --bind {bpffs} /sys/fs/bpf && exec "$@"', "sh")
    another.start()
    left = {path.name for path in (bpffs / "snatgw").iterdir()}
    assert left == {f"{other}-wan0", f"{namespace}-wan0"}
    assert another.stop() == 0


def test_what_others_may_write_to_is_not_used(fresh: Topology, bpffs: Path) -> None:
    (bpffs / "snatgw").mkdir(mode=0o700)
    (bpffs / "snatgw").chmod(0o777)
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.wrapper = as_a_service(bpffs)
    gateway.start()
    assert "/sys/fs/bpf/snatgw is not this user's alone" in gateway.errors.read_text()
    assert pins(bpffs) == []
    assert fresh.client("vm1").peer("Tcp", SERVER)
    assert gateway.stop() == 0
