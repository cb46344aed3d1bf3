"""The commands against a real API on a Unix socket: output, JSON, exit codes, refusals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.diagnose import _show
from gateway.command import COMMANDS, group
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.event_views import gateway_event
from gateway.daemon.engine_process.host import LinuxHost
from gateway.datapath.host.host_probes import Finding as HostFinding
from tests.unit.daemon.serving import Served, flow, pool, served

CONFIGURATION = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork: {addressPrefixes: [10.0.0.0/16], subnets: [{name: a, addressPrefix: 10.0.1.0/24}]}
publicIPAddresses: [{name: p, ipAddress: 203.0.113.10}]
defaultOutboundAccess: {publicIPAddresses: [p]}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        daemon.engine.flows = [
            flow(1),
            flow(2, vm="vm2", protocol=17, awaiting_removal=True, public_ip=None),
        ]
        daemon.engine.ports = [pool("vm1"), pool("vm2", protocol="Udp")]
        yield daemon


def snatgw(*arguments: str, api: Path | None = None, **environment: str) -> Result:
    flags = [] if api is None else ["--api", str(api)]
    return CliRunner().invoke(
        group, [*arguments, *flags], env={"SNATGW_API": "", **environment}, prog_name="snatgw"
    )


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = snatgw(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"snatgw {name}" in result.output


def test_flows_as_json_have_the_contracts_fields(daemon: Served) -> None:
    first, second = objects(snatgw("flows", "--json", api=daemon.path))
    assert first["private"] == {"ip": "10.0.1.4", "port": 40001}
    assert second["public"] is None


def test_flows_for_people_are_aligned_and_whole(daemon: Served) -> None:
    result = snatgw("flows", api=daemon.path)
    head, first, second = result.stdout.splitlines()
    assert head.index("REMOTE") == first.index("198.51.100.7:443")
    assert "awaiting removal" in second
    assert len(first) > 80
    assert "\x1b" not in result.stdout


def test_flows_filtered(daemon: Served) -> None:
    assert [
        o["id"] for o in objects(snatgw("flows", "--json", "--vm", "vm2", api=daemon.path))
    ] == [2]
    limited = snatgw("flows", "--json", "--sort", "-id", "--limit", "1", api=daemon.path)
    assert [o["id"] for o in objects(limited)] == [2]


def test_ports(daemon: Served) -> None:
    assert [o["vm"] for o in objects(snatgw("ports", "--json", api=daemon.path))] == ["vm1", "vm2"]
    result = snatgw("ports", "--vm", "vm1", api=daemon.path)
    assert result.exit_code == 0
    assert "198.51.100.7 (3)" in result.stdout
    assert "vm2" not in result.stdout


@pytest.mark.parametrize(
    "command", [["flows"], ["ports"], ["flows", "--json"], ["flows", "--watch"], ["nsg"]]
)
def test_an_unknown_vm_is_said_to_be(command: list[str], daemon: Served) -> None:
    result = snatgw(*command, "--vm", "vm33", api=daemon.path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "snatgw: vm: there is no virtual machine 'vm33', did you mean vm3?\n"


def test_events(daemon: Served) -> None:
    assert daemon.log is not None
    daemon.log.add([gateway_event(1.77e9, "Started", "Informational", {"pid": 1})])
    assert objects(snatgw("events", "--json", api=daemon.path))[0]["operationName"] == "Started"
    assert "Started: pid 1" in snatgw("events", api=daemon.path).stdout
    since = snatgw("events", "--since", "2099-01-01T00:00:00Z", api=daemon.path)
    assert (since.exit_code, since.stdout) == (0, "")


def test_status(daemon: Served) -> None:
    (document,) = objects(snatgw("status", "--json", api=daemon.path))
    assert document["flows"] == 2
    assert "drops.Malformed" in snatgw("status", api=daemon.path).stdout


def test_reload(daemon: Served) -> None:
    result = snatgw("reload", api=daemon.path)
    assert (result.exit_code, result.stdout) == (0, "nothing changed\n")
    daemon.on_reload = lambda answer: answer(Kind.FAILED, ["a.yaml: wrong", "a.yaml: worse"])
    result = snatgw("reload", api=daemon.path)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["snatgw: a.yaml: wrong", "snatgw: a.yaml: worse"]
    assert result.stdout == ""


def test_the_socket_is_named_before_or_after_the_command_or_by_the_environment(
    daemon: Served,
) -> None:
    for result in (
        snatgw("--api", str(daemon.path), "flows", "--json"),
        snatgw("flows", "--json", api=daemon.path),
        snatgw("flows", "--json", SNATGW_API=str(daemon.path)),
        snatgw("--api", "/nowhere", "flows", "--json", api=daemon.path),
    ):
        assert len(objects(result)) == 2


@pytest.mark.parametrize("command", ["flows", "ports", "events", "status", "reload", "nsg"])
def test_no_daemon_is_one_line_and_exit_1(command: str, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(stale))
    listener.close()
    for path in (tmp_path / "none.sock", stale):
        result = snatgw(command, api=path)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert str(path) in line
        assert "snatgw run" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["flows", "--sort", "bytsOut"],
        ["flows", "--remote", "nowhere"],
        ["flows", "--protocol", "Xyz"],
        ["flows", "--limit", "0"],
        ["flows", "--no-such-option"],
        ["events", "--since", "soon"],
        ["check"],
        ["run"],
        ["run", "-c", "a.yaml", "--public-ip", "203.0.113.10"],
        ["run", "--inside", "lan0", "--outside", "wan0"],
        ["run", "--inside", "lan0,", "--outside", "wan0", "--public-ip", "203.0.113.10"],
        ["completion", "tcsh"],
        ["frobnicate"],
        ["flows", "--api", ""],
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    result = snatgw(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""


def test_a_diagnosis_wraps_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = "nft '" + "insert rule inet fw forward accept; " * 9 + "'"
    advice = [f"This lets them pass:\n{command}", "and " * 60]
    _show(
        {"severity": "Critical", "title": "It drops", "text": "Since noon.", "advice": advice}, 80
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["  → This lets them pass:", f"    {command}"]
    assert all(len(line) <= 80 for line in lines[4:])


@pytest.mark.parametrize(("ok", "status"), [(False, 1), (None, 0), (True, 0)])
def test_check_fails_where_the_hosts_firewall_drops_for_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ok: bool | None, status: int
) -> None:
    found = [HostFinding("firewall", ok, "it drops", essential=False)]
    monkeypatch.setattr(LinuxHost, "with_real_names", lambda self, configuration: configuration)
    monkeypatch.setattr(LinuxHost, "findings", lambda self, configuration: found)
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIGURATION)
    result = snatgw("check", "-c", str(file), "--host")
    assert result.exit_code == status
    assert result.stdout.startswith("ok: ") == (status == 0)
    assert ("✗ it drops" in result.stderr) == (status == 1)


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIGURATION)
    result = snatgw("check", "-c", str(file))
    assert result.exit_code == 0
    assert result.stdout.startswith("ok: ")
    file.write_text(CONFIGURATION.replace("ipAddress", "ipAdress").replace("lan0", "lan 0"))
    result = snatgw("check", "-c", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert all(line.startswith(str(file)) for line in result.stderr.splitlines())
    as_json = snatgw("check", "-c", str(file), "--json")
    problems = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert len(problems) == len(result.stderr.splitlines()) >= 2
    assert (as_json.exit_code, as_json.stderr) == (1, result.stderr)
    assert {"file", "path", "value", "message", "severity"} <= problems[0].keys()


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = snatgw("check", "-c", str(tmp_path / "none.yaml"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_run_refuses_interfaces_that_are_not_there() -> None:
    result = snatgw(
        "run", "--inside", "nolan0", "--outside", "nowan0", "--public-ip", "203.0.113.10"
    )
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "snatgw: nolan0: there is no such interface",
        "snatgw: nowan0: there is no such interface",
    ]


def test_completion() -> None:
    for shell in ("bash", "zsh", "fish"):
        result = snatgw("completion", shell)
        assert result.exit_code == 0
        assert "_SNATGW_COMPLETE" in result.stdout


def test_a_reader_that_has_seen_enough_is_no_error(daemon: Served) -> None:
    daemon.engine.flows = [flow(number) for number in range(20_000)]
    command = [sys.executable, "-m", "gateway", "flows", "--api", str(daemon.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().split()[0] == b"ID"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(30)


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A socket on which one request gets these bytes, and then its connection closed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'a\r\n{"vm": 1}\n\r\n',  # a whole line and no end
        b'a\r\n{"vm": 1}\n\r\n6\r\n{"vm":',  # half a line
        b'6\r\n{"vm":\r\n',
    ],
)
@pytest.mark.parametrize("command", [["flows"], ["ports"], ["events"], ["events", "--follow"]])
def test_a_list_that_is_cut_short_is_a_failure(
    body: bytes, command: list[str], tmp_path: Path
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = answering(tmp_path / "api.sock", head + body)
    result = snatgw(*command, "--json", api=tmp_path / "api.sock")
    server.join(30)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.endswith("ended while it answered")


@pytest.mark.parametrize(
    "command",
    [["events", "--follow"], ["flows", "--watch"], ["flows", "--watch", "--json"], ["status"]],
)
def test_ctrl_c_is_quiet_and_has_its_status(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *command, "--api", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with listener.accept()[0] as connection:
            connection.recv(65536)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gateway.command import group\n"
        "try: group(['--help'], prog_name='snatgw')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pydantic', 'rich', 'starlette', 'pyroute2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "[]"
