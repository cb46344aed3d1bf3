"""``run`` from start to end with real processes and sockets, on a host that only pretends.

The pretended packet queue is a datagram socket: what is sent to it is handed to the engine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.unit.daemon.serving import NOTHING_DONE

PATIENCE = 30.0
CONFIGURATION = """
gateway: {{inside: [lan0], outside: wan0, stateDirectory: {state}}}
virtualNetwork: {{addressPrefixes: [10.0.0.0/16], subnets: [{{name: a, addressPrefix: 10.0.1.0/24}}]}}
publicIPAddresses: [{{name: p, ipAddress: 203.0.113.10}}]
defaultOutboundAccess: {{publicIPAddresses: [p]}}
"""


class Daemon:
    """A daemon on a pretended host, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.api = directory / "api.sock"
        self.file = directory / "gateway.yaml"
        self.file.write_text(CONFIGURATION.format(state=directory / "state"))
        self.process: subprocess.Popen[str] | None = None

    def start(self, **faults: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.unit.daemon.pretended", self.file, self.api]
        self.process = subprocess.Popen(
            [*map(str, command), json.dumps(faults)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready")

    def http(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.api))
        return httpx.Client(transport=transport, base_url="http://snatgw", timeout=PATIENCE)

    def steps(self) -> list[str]:
        """What was asked of the host, in order."""
        return (self.directory / "steps").read_text().split()

    def children(self) -> list[int]:
        """The supervisor and the API process."""
        assert self.process is not None
        return [pid for pid in _descendants(self.process.pid) if alive(pid)]


def _descendants(pid: int) -> list[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [d for child in map(int, found) for d in (child, *_descendants(child))]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    tmp_path.chmod(0o755)
    found = Daemon(tmp_path)
    yield found
    if found.process is not None:
        children = found.children()
        found.process.kill()
        found.process.communicate()
        eventually(lambda: not any(map(alive, children)))


def ended(daemon: Daemon) -> tuple[int, list[str]]:
    """Exit status and standard error's lines."""
    assert daemon.process is not None
    _, errors = daemon.process.communicate(timeout=PATIENCE)
    return daemon.process.returncode, errors.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_serve_and_stop(daemon: Daemon, number: signal.Signals) -> None:
    process = daemon.start()
    daemon.ready()
    with daemon.http() as http:
        assert http.get("/v1/status").json()["pid"] == process.pid
        assert http.get("/v1/flows").text == ""
    children = daemon.children()
    assert len(children) == 2
    process.send_signal(number)
    assert ended(daemon)[0] == 0
    assert daemon.steps() == [
        "findings",
        "claim",
        "queue",
        "diversion",
        "diversion-removed",
        "queue-closed",
        "released",
    ]
    assert not daemon.api.exists()
    assert not any(map(alive, children))
    log = (daemon.directory / "state" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["operationName"] for line in log] == ["Started", "Stopped"]


def test_each_process_has_what_it_needs_and_no_more(daemon: Daemon) -> None:
    def status(pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    process = daemon.start()
    daemon.ready()
    with daemon.http() as http:
        http.get("/v1/status")
    net_admin, net_raw = 1 << 12, 1 << 13
    engine = status(process.pid)
    assert int(engine["CapEff"], 16) & ~(net_admin | net_raw) == 0
    _, child = daemon.children()
    api = status(child)
    assert {api[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert api["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert api["CapBnd"] == "0" * 16
        assert int(engine["CapBnd"], 16) & ~(net_admin | net_raw) == 0
        assert api["Groups"] == ""
        assert "0" not in api["Uid"].split() + api["Gid"].split()


def test_a_hanging_api_process_does_not_delay_the_end(daemon: Daemon) -> None:
    process = daemon.start()
    daemon.ready()
    _, api = daemon.children()
    os.kill(api, signal.SIGSTOP)
    process.terminate()
    assert ended(daemon)[0] == 0
    assert not alive(api)


def test_the_api_process_is_started_again_and_then_no_more(daemon: Daemon) -> None:
    process = daemon.start()
    daemon.ready()
    for _ in range(6):
        eventually(lambda: len(daemon.children()) == 2)
        api = daemon.children()[1]
        with daemon.http() as http:
            assert http.get("/v1/status").status_code == 200
        os.kill(api, signal.SIGKILL)
        eventually(lambda api=api: not alive(api))  # type: ignore[misc]
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("going on without it" in line for line in lines)
    assert process.poll() is None
    process.terminate()
    assert ended(daemon)[0] == 0


def test_sigkill_leaves_no_process_and_the_next_start_takes_over(daemon: Daemon) -> None:
    process = daemon.start()
    daemon.ready()
    children = daemon.children()
    process.kill()
    ended(daemon)
    eventually(lambda: not any(map(alive, children)))
    assert daemon.api.exists()
    daemon.start()
    daemon.ready()
    with daemon.http() as http:
        started = [e for e in http.get("/v1/events").text.splitlines() if '"Started"' in e]
    assert started  # at least the one from before the crash


def test_a_second_daemon_on_the_socket_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    daemon.ready()
    second = Daemon(tmp_path)
    second.start()
    status, errors = ended(second)
    assert status == 1
    assert errors == [
        f"snatgw: {daemon.api}: another daemon answers there; stop it or choose another --api"
    ]
    with daemon.http() as http:
        assert http.get("/v1/status").status_code == 200


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        ("findings", ["findings"]),
        ("claim", ["findings"]),
        ("queue", ["findings", "claim", "released"]),
        ("diversion", ["findings", "claim", "queue", "queue-closed", "released"]),
    ],
)
def test_a_failure_half_way_undoes_everything(daemon: Daemon, fault: str, done: list[str]) -> None:
    process = daemon.start(fail=fault)
    status, errors = ended(daemon)
    assert status == 1
    assert errors == [f"snatgw: {fault} one", f"snatgw: {fault} two"]
    assert daemon.steps() == done
    assert not daemon.api.exists()
    assert _descendants(process.pid) == []


def test_an_api_process_that_cannot_be_started_is_a_reason(daemon: Daemon) -> None:
    daemon.start(fail="supervisor")
    assert ended(daemon) == (1, ["snatgw: the API process cannot be started: Broken pipe"])
    assert daemon.steps()[-3:] == ["diversion-removed", "queue-closed", "released"]
    assert not daemon.api.exists()


def test_a_stopped_engine_is_said_to_be(daemon: Daemon) -> None:
    process = daemon.start()
    daemon.ready()
    with daemon.http() as http:
        assert http.get("/v1/status").status_code == 200
        process.send_signal(signal.SIGSTOP)
        for path in ("/v1/status", "/v1/flows"):
            answer = http.get(path)
            assert answer.status_code == 503
            assert answer.json()["problems"] == [
                "the engine has sent nothing for 5 s: its process is stopped, or overloaded"
            ]
        process.send_signal(signal.SIGCONT)
        assert http.get("/v1/flows").status_code == 200


def test_a_wrong_file_is_refused_before_anything(daemon: Daemon) -> None:
    daemon.file.write_text(daemon.file.read_text().replace("ipAddress", "ipAdress"))
    daemon.start()
    status, errors = ended(daemon)
    assert status == 1
    assert all(line.startswith(f"snatgw: {daemon.file}") for line in errors)
    assert not (daemon.directory / "steps").exists()
    assert not (daemon.directory / "state").exists()


def test_something_else_at_the_sockets_path_is_left_alone(daemon: Daemon) -> None:
    daemon.api.write_text("precious")
    daemon.start()
    status, (line,) = ended(daemon)
    assert status == 1
    assert "is no socket" in line
    assert daemon.api.read_text() == "precious"


def test_reload_by_request_and_by_signal(daemon: Daemon) -> None:
    process = daemon.start()
    daemon.ready()
    text = daemon.file.read_text()
    with daemon.http() as http:
        assert http.post("/v1/reload").json() == {"changes": [], **NOTHING_DONE}
        daemon.file.write_text(text.replace("wan0,", "wan0, maximumFlows: 7,"))
        changes = http.post("/v1/reload").json()["changes"]
        assert any("maximumFlows" in change for change in changes)
        assert http.get("/v1/status").json()["maximumFlows"] == 7
        daemon.file.write_text(text.replace("lan0", "lan1"))
        response = http.post("/v1/reload")
        assert response.status_code == 422
        assert response.json()["problems"][0].startswith("gateway.inside: ")
        daemon.file.write_text(text.replace("wan0,", "wan0, maximumFlows: 9,"))
        process.send_signal(signal.SIGHUP)
        eventually(lambda: http.get("/v1/status").json()["maximumFlows"] == 9)


def test_rules_that_cannot_be_changed_refuse_the_reload(daemon: Daemon) -> None:
    daemon.start(fail="divert")
    daemon.ready()
    daemon.file.write_text(daemon.file.read_text().replace("wan0,", "wan0, maximumFlows: 7,"))
    with daemon.http() as http:
        response = http.post("/v1/reload")
        assert response.status_code == 422
        assert "rules could not be changed" in response.json()["problems"][0]
        assert http.get("/v1/status").json()["maximumFlows"] == 1_000_000


def test_readiness_is_told_to_the_service_manager(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daemon.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        process = daemon.start()
        assert manager.recv(100) == b"READY=1"
        process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
    assert ended(daemon)[0] == 0


def test_losses_of_the_queue_become_an_event_and_show(daemon: Daemon) -> None:
    daemon.start(lose="5")
    daemon.ready()
    with daemon.http() as http:
        eventually(lambda: '"QueueOverflow"' in http.get("/v1/events").text)
        assert http.get("/v1/status").json()["queue"]["kernelDropped"] == 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_the_dashboard_is_served_by_tcp_and_outlives_its_process(daemon: Daemon) -> None:
    port = free_port()
    text = daemon.file.read_text()
    daemon.file.write_text(text.replace("wan0,", f"wan0, http: '127.0.0.1:{port}',"))
    process = daemon.start()
    daemon.ready()
    for _ in range(2):  # the second time it has been started again, with the same listener
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:
            assert http.get("/").headers["content-type"].startswith("text/html")
            status = http.get("/v1/status").json()
            assert (status["pid"], status["http"]) == (process.pid, f"127.0.0.1:{port}")
            assert http.post("/v1/reload").status_code == 405
        api = daemon.children()[1]
        os.kill(api, signal.SIGKILL)
        eventually(lambda api=api: not alive(api))  # type: ignore[misc]
    with daemon.http() as http:
        eventually(lambda: http.get("/v1/status").status_code == 200)
        daemon.file.write_text(text)
        problem = (
            f"a reload cannot change it from 127.0.0.1:{port} to none; restart snatgw for that"
        )
        assert http.post("/v1/reload").json()["problems"] == [f"gateway.http: {problem}"]
    process.terminate()
    code, errors = ended(daemon)
    assert code == 0
    assert f"dashboard: http://127.0.0.1:{port}/" in errors
    assert not (daemon.directory / "state" / "dashboard-token").exists()


def test_a_dashboard_for_others_takes_a_token(daemon: Daemon) -> None:
    port = free_port()
    text = daemon.file.read_text()
    daemon.file.write_text(text.replace("wan0,", f"wan0, http: '0.0.0.0:{port}',"))
    process = daemon.start()
    daemon.ready()
    token = (daemon.directory / "state" / "dashboard-token").read_text().strip()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:
        assert http.get("/v1/status").status_code == 401
        assert (
            http.get("/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        )
    process.terminate()
    status, errors = ended(daemon)
    assert status == 0
    assert f"dashboard: http://127.0.0.1:{port}/?token={token}" in errors
    assert any("gateway.http = " in line and "warning" in line for line in errors)


def test_a_port_that_is_taken_is_refused(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        text = daemon.file.read_text()
        daemon.file.write_text(text.replace("wan0,", f"wan0, http: '{place}',"))
        daemon.start()
        status, errors = ended(daemon)
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"snatgw: gateway.http = {place}: Address already in use")
    assert not daemon.api.exists()
    assert daemon.steps() == ["findings", "claim", "released"]
