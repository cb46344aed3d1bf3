"""Up, down, status: the order in which the lab's parts are made and removed.

`up` makes all of it or nothing: whatever goes wrong, or interrupts it, ends in `down`. `down`
trusts no record: it looks for what is there, so it also removes what a crash left, and does
nothing where nothing is. Knows no terminal: results and errors are values.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from gateway.lab import namespaces, processes, services, state, topology
from gateway.lab.processes import Process
from gateway.lab.state import State
from gateway.lab.topology import Lab

PACKAGES = {
    "ip": "iproute2",
    "iptables": "iptables",
    "nginx": "nginx-light",
    "iperf3": "iperf3",
    "dig": "dnsutils",
    "curl": "curl",
}
"""Programs that the lab runs or recommends, and Debian's package of each."""


class LabError(Exception):
    """What a user reads when the lab cannot do as asked: one line, or a line and a log's end."""


@dataclass(frozen=True)
class Status:
    """What there is of a lab. `state` is `up`, `down` or `incomplete` (half up, or damaged)."""

    name: str
    state: str
    namespaces: list[str]
    processes: list[dict[str, Any]]
    api: str
    configuration: str | None
    directory: str


def require_root() -> None:
    """Raises LabError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run it as root (sudo)")


def require_programs() -> None:
    """Raises LabError naming the packages of whatever program is missing."""
    # Debian gives an ordinary user's `su` a path without the places of nginx and iptables.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = {name: package for name, package in PACKAGES.items() if not shutil.which(name)}
    if missing:
        raise LabError(
            f"missing programs: {', '.join(missing)}; "
            f"apt-get install {' '.join(sorted(missing.values()))}"
        )


def write_configuration(lab: Lab, time_scale: float) -> Path:
    """Write the lab's own gateway configuration and return its path. Raises OSError."""
    template = resources.files("gateway.lab").joinpath("gateway.yaml").read_text(encoding="utf-8")
    subnets = "\n".join(
        f"    - {{name: {subnet.name}, addressPrefix: {subnet.prefix}}}"
        for subnet in topology.SUBNETS
    )
    text = Template(template).substitute(
        inside=", ".join(subnet.interface for subnet in topology.SUBNETS),
        outside=topology.OUTSIDE_INTERFACE,
        state_directory=lab.directory / "state",
        time_scale=f"{time_scale:g}",
        subnets=subnets,
        default_public_ip=topology.DEFAULT_PUBLIC_IP,
        frontend_1=topology.FRONTENDS[0],
        frontend_2=topology.FRONTENDS[1],
        web_frontend=topology.WEB_FRONTEND,
        instance_level=topology.INSTANCE_LEVEL_PUBLIC_IP,
        **{vm.name: vm.address for vm in topology.VIRTUAL_MACHINES},
    )
    lab.configuration.write_text(text, encoding="utf-8")
    return lab.configuration


def up(lab: Lab, configuration: Path | None = None, time_scale: float = 1.0) -> str:
    """Build the lab and return the daemon's `ready` line.

    `configuration` None: the lab's own, with `time_scale`. Raises LabError; nothing is then left.
    """
    require_root()
    require_programs()
    if configuration is not None and not configuration.is_file():
        raise LabError(f"{configuration}: no such file")
    lab.run_root.mkdir(parents=True, exist_ok=True)
    try:
        # Also the lock: of two at the same time one gets the directory.
        if namespaces.existing(lab):
            raise FileExistsError
        lab.directory.mkdir()
    except FileExistsError:
        raise LabError(_already(lab)) from None
    try:
        return _build(lab, configuration, time_scale)
    except (services.ServiceError, OSError, NetlinkError) as error:
        _down_quietly(lab)
        raise LabError(f"cannot bring the lab up: {error}") from error
    except BaseException:
        _down_quietly(lab)
        raise


def down(lab: Lab) -> bool:
    """Remove everything of the lab; False if there was nothing. Raises LabError if a process
    survives even SIGKILL."""
    require_root()
    known = state.load(lab)
    there = bool(namespaces.existing(lab)) or lab.directory.exists() or _etc_exists(lab)
    try:
        processes.end(known.processes if known else [], lab.namespaces)
    except TimeoutError as error:
        raise LabError(str(error)) from error
    namespaces.remove(lab)
    shutil.rmtree(lab.directory, ignore_errors=True)
    # Shared with other labs and with a gateway of the host's own: removed only when empty.
    for directory in (lab.run_root, lab.run_root.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()
    return there


def status(lab: Lab) -> Status:
    """What there is of the lab now, looked up rather than remembered."""
    known = state.load(lab)
    present = namespaces.existing(lab)
    listed = known.processes if known else []
    if not present and not lab.directory.exists():
        condition = "down"
    elif (
        known is not None
        and known.complete
        and len(present) == len(lab.namespaces)
        and all(process.running for process in listed)
    ):
        condition = "up"
    else:
        condition = "incomplete"
    return Status(
        name=lab.name,
        state=condition,
        namespaces=present,
        processes=[_process_row(process) for process in listed],
        api=str(lab.api_socket),
        configuration=known.configuration if known else None,
        directory=str(lab.directory),
    )


def _process_row(process: Process) -> dict[str, Any]:
    row = asdict(process)
    del row["start_time"]
    return {**row, "running": process.running}


def _build(lab: Lab, configuration: Path | None, time_scale: float) -> str:
    # nginx's worker and the daemon's API process give up root: they must still get here.
    lab.directory.chmod(0o755)
    used = configuration.resolve() if configuration else write_configuration(lab, time_scale)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    progress = State(lab.name, now, str(used))

    def record(process: Process) -> None:
        progress.processes.append(process)
        state.save(lab, progress)

    state.save(lab, progress)
    namespaces.build(lab)
    services.prepare(lab)
    services.start(lab, record)
    daemon = services.start_daemon(lab, used)
    record(daemon)
    services.wait_for_servers(lab, progress.processes)
    ready = services.wait_for_daemon(daemon)
    progress.complete = True
    state.save(lab, progress)
    return ready


def _down_quietly(lab: Lab) -> None:
    # The first error is the one to report; what cannot be removed now, `lab down` names.
    with contextlib.suppress(LabError):
        down(lab)


def _etc_exists(lab: Lab) -> bool:
    return any(lab.etc(role).exists() for role in topology.ROLES)


def _already(lab: Lab) -> str:
    option = "" if lab.name == topology.DEFAULT_NAME else f" --name {lab.name}"
    found = status(lab)
    if found.state == "up":
        return f"lab {lab.name} is already up (remove it with: snatgw lab down{option})"
    return f"lab {lab.name} is half up or left behind (remove it with: snatgw lab down{option})"
