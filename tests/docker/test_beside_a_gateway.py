"""A real Docker on the gateway's own host: started before or after it, it has its network, and has
it still when the gateway has stopped."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker.private_docker import PrivateDocker
from tests.netns.gateway import Gateway
from tests.netns.servers import WHO
from tests.netns.topology import OUTSIDE, SERVER, Topology, eventually

# An image with nothing in it: programs are this machine's.
BINDS = [
    word for path in ("/usr", "/lib", "/lib64", "/bin") for word in ("-v", f"{path}:{path}:ro")
]
SERVE = "import socket; s = socket.socket(); s.bind(('', 80)); s.listen()\nwhile True: c = s.accept()[0]; c.send(b'hello'); c.close()"
FETCH = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(s.recv(99).decode(), end='')"


@contextmanager
def dockerd(net: Topology) -> Iterator[PrivateDocker]:
    """In the gateway's network, with a container that publishes a port."""
    directory = Path(tempfile.mkdtemp(prefix="snatgw-docker-"))
    with PrivateDocker(directory, net.file("gw")) as docker:
        empty = directory / "empty.tar"
        subprocess.run(["tar", "-cf", str(empty), "-T", "/dev/null"], check=True)
        docker.cli("import", str(empty), "empty")
        docker.cli(
            "run", "-d", "--init=false", "-p", "8080:80", *BINDS, "empty", sys_python(), "-c", SERVE
        )
        yield docker


def sys_python() -> str:
    return str(Path(sys.executable).resolve())


def outward(docker: PrivateDocker) -> str:
    """The address that a server on the internet sees of a container."""
    said = docker.cli(
        "run", "--rm", *BINDS, "empty", sys_python(), "-c", FETCH, SERVER, str(WHO), status=None
    )
    return said.partition(":")[0]


def inward(net: Topology) -> str:
    return net.run("internet", sys.executable, "-c", FETCH, OUTSIDE, "8080", check=False)


def works(net: Topology, docker: PrivateDocker) -> None:
    eventually(lambda: outward(docker), lambda seen: seen == OUTSIDE)
    eventually(lambda: inward(net), lambda seen: seen == "hello")


def test_a_docker_that_starts_after_the_gateway() -> None:
    with Topology() as net:
        gateway = Gateway(net)
        gateway.start()
        with dockerd(net) as docker:
            works(net, docker)
            assert net.client("vm1").peer("Tcp", SERVER).startswith("203.0.113.40:")
            assert gateway.stop() == 0
            works(net, docker)
            gateway.start()
            works(net, docker)
            assert net.client("vm1").peer("Tcp", SERVER).startswith("203.0.113.40:")
            assert gateway.stop() == 0


def test_a_docker_that_was_there_before_the_gateway() -> None:
    with Topology() as net, dockerd(net) as docker:
        works(net, docker)
        gateway = Gateway(net)
        gateway.start()
        assert "firewall" not in gateway.errors.read_text()
        works(net, docker)
        assert net.client("vm1").peer("Tcp", SERVER).startswith("203.0.113.40:")
        assert gateway.stop() == 0
        works(net, docker)
