"""What the lab runs: servers, of the internet and in VMs, and the gateway's daemon.

The daemon is started like any user would, by its command line; of it only the `ready` line is
known. A server counts as up when it answers in its own namespace.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from dnslib import DNSRecord
from pyroute2 import netns

from gateway.lab import topology, webroot, website
from gateway.lab.processes import Process, module_command, spawn
from gateway.lab.topology import Lab

DAEMON = "gateway"
DAEMON_READY_SECONDS = 30.0
SERVERS_READY_SECONDS = 15.0
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 15

NGINX_CONFIGURATION = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid $run/nginx.pid;
error_log $run/nginx.log;
events { worker_connections 8192; }
http {
    types { text/html html; application/octet-stream bin; text/plain sha256; }
    access_log $run/access.log;
    sendfile on;
    client_body_temp_path $run/nginx-body;
    proxy_temp_path $run/nginx-proxy;
    fastcgi_temp_path $run/nginx-fastcgi;
    uwsgi_temp_path $run/nginx-uwsgi;
    scgi_temp_path $run/nginx-scgi;
    server {
        $listen
        root $run/www;
    }
}
"""


class ServiceError(Exception):
    """A service did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Endpoint:
    """An address at which a service answers when it is up."""

    address: str
    port: int
    datagram: bytes | None = None
    """UDP: what to send it, for any reply. None: TCP, a connection is answer enough."""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}/{'tcp' if self.datagram is None else 'udp'}"


@dataclass(frozen=True)
class Service:
    """One program of the lab, and where it answers when it is up, seen from beside it."""

    name: str
    command: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    role: str = topology.INTERNET


def internet_services(lab: Lab) -> tuple[Service, ...]:
    """Web (Debian's nginx), iperf3 (Debian's), echo and DNS (ours)."""
    run = lab.directory
    question = bytes(DNSRecord.question(topology.MYIP).pack())
    return (
        Service(
            "nginx",
            ("nginx", "-p", str(run), "-c", str(run / "nginx.conf"), "-e", str(run / "nginx.log")),
            tuple(Endpoint(address, 80) for address in topology.WEB),
        ),
        Service(
            "iperf3",
            ("iperf3", "--server", "--bind", topology.IPERF, "--port", str(topology.IPERF_PORT)),
            (Endpoint(topology.IPERF, topology.IPERF_PORT),),
        ),
        Service(
            "echo",
            module_command("gateway.lab.servers", "echo"),
            tuple(
                Endpoint(topology.ECHO, topology.ECHO_PORT, datagram) for datagram in (None, b"?")
            ),
        ),
        Service(
            "dns",
            module_command("gateway.lab.servers", "dns"),
            tuple(
                Endpoint(address, 53, datagram)
                for address in (topology.NAME_SERVER, topology.OPENDNS)
                for datagram in (None, question)
            ),
        ),
    )


def machine_services() -> tuple[Service, ...]:
    """The web servers of the load balanced VMs (ours)."""
    return tuple(
        Service(
            f"web-{vm}",
            module_command("gateway.lab.website", vm),
            (Endpoint("127.0.0.1", website.PORT),),
            vm,
        )
        for vm in topology.WEB_POOL
    )


def prepare(lab: Lab) -> None:
    """Write what the servers read: nginx's configuration and pages. Raises OSError."""
    www = lab.directory / "www"
    www.mkdir()
    webroot.write(www)
    listen = " ".join(f"listen {address}:80;" for address in topology.WEB)
    text = Template(NGINX_CONFIGURATION).substitute(run=lab.directory, listen=listen)
    (lab.directory / "nginx.conf").write_text(text, encoding="utf-8")


def start(lab: Lab, record: Callable[[Process], None]) -> None:
    """Start all servers; `record` gets each as soon as it exists. Raises OSError."""
    for service in (*internet_services(lab), *machine_services()):
        log = lab.log(service.name)
        record(spawn(service.name, lab.namespace(service.role), service.command, log))


def start_daemon(lab: Lab, configuration: Path) -> Process:
    """Start `snatgw run` in the gateway's namespace. Raises OSError."""
    command = module_command(
        "gateway", "run", "-c", str(configuration), "--api", str(lab.api_socket)
    )
    return spawn(DAEMON, lab.namespace(topology.GATEWAY), command, lab.log(DAEMON))


def wait_for_daemon(daemon: Process) -> str:
    """Wait for the daemon's `ready` line and return it. Raises ServiceError."""
    log = Path(daemon.log)
    deadline = time.monotonic() + DAEMON_READY_SECONDS
    while True:
        # Asked before the log is read: what the process wrote last is then in the log.
        running = daemon.running
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("ready") and running:
                return line
        if not running:
            raise ServiceError(f"the gateway's daemon ended before it was ready\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the gateway's daemon was not ready in {DAEMON_READY_SECONDS:.0f} seconds\n"
                + tail(log)
            )
        time.sleep(POLL_SECONDS)


def wait_for_servers(lab: Lab, processes: Sequence[Process]) -> None:
    """Wait until every server answers. Raises ServiceError."""
    failures: list[Exception] = []
    services = (*internet_services(lab), *machine_services())

    def probe(role: str) -> None:
        try:
            # Only this thread enters the namespace, and it ends there.
            netns.setns(lab.namespace(role), flags=0)
            there = [service for service in services if service.role == role]
            _wait_for_answers(there, {p.service: p for p in processes})
        except Exception as error:
            failures.append(error)

    for role in dict.fromkeys(service.role for service in services):
        thread = threading.Thread(target=probe, args=(role,), daemon=True)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]


def _wait_for_answers(services: Sequence[Service], processes: dict[str, Process]) -> None:
    deadline = time.monotonic() + SERVERS_READY_SECONDS
    for service in services:
        process = processes[service.name]
        for endpoint in service.endpoints:
            while not _answers(endpoint):
                if not process.running:
                    raise ServiceError(f"{service.name} ended\n{tail(Path(process.log))}")
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"{service.name} does not answer at {endpoint} after "
                        f"{SERVERS_READY_SECONDS:.0f} seconds\n{tail(Path(process.log))}"
                    )
                time.sleep(POLL_SECONDS)


def _answers(endpoint: Endpoint) -> bool:
    target = (endpoint.address, endpoint.port)
    try:
        if endpoint.datagram is None:
            socket.create_connection(target, timeout=1.0).close()
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(1.0)
                asking.connect(target)
                asking.send(endpoint.datagram)
                asking.recv(65536)
    except OSError:
        return False
    return True


def tail(log: Path) -> str:
    """The last lines of a log, indented, behind a line that names the file."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"  {log}: {error.strerror}"
    shown = lines[-LOG_TAIL_LINES:] or ["(empty)"]
    return "\n".join([f"  {log} ends with:", *(f"    {line}" for line in shown)])
