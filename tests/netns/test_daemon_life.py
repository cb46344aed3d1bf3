"""What a running daemon survives, counts and says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def supervisor_of(gateway: Gateway) -> int:
    """The engine's child once it is the only one: a look at the host's firewall is soon over."""
    assert gateway.process is not None
    engine = gateway.process.pid
    (supervisor,) = eventually(lambda: children(engine), lambda found: len(found) == 1)
    assert isinstance(supervisor, int)
    return supervisor


def test_packets_that_the_queue_loses_are_counted_and_said(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    assert vm1.echo(SERVER) == "whole"
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGSTOP)
    vm1.keep_sending(SERVER2, rate=20_000)
    eventually(vm1.counts, lambda seen: seen[0].get("sent", 0) > 6000)
    vm1.stop()
    gateway.process.send_signal(signal.SIGCONT)
    event = gateway.event(operationName="QueueOverflow")
    assert event["level"] == "Error"
    lost = gateway.losses()
    assert sum(lost.values()) > 0
    assert vm1.echo(SERVER) == "whole"


def test_packets_do_not_depend_on_the_api_process(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.keep_asking(SERVER)
    gateway.status()
    supervisor = supervisor_of(gateway)
    (api,) = children(supervisor)
    owner = int(Path(f"/proc/{api}/status").read_text().split("Uid:")[1].split()[0])
    assert owner != 0
    os.kill(api, signal.SIGKILL)
    eventually(lambda: [p for p in children(supervisor) if p != api])
    status = eventually(lambda: gateway.try_status())
    assert status["apiRestarts"] == 1
    (count,) = vm1.stop()
    assert count["sent"] == count["answered"]
    assert gateway.stop() == 0


def test_the_engine_keeps_few_capabilities_and_the_api_none(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    gateway.status()

    def effective(pid: int) -> int:
        return int(Path(f"/proc/{pid}/status").read_text().split("CapEff:")[1].split()[0], 16)

    supervisor = supervisor_of(gateway)
    (api,) = children(supervisor)
    wanted = 1 << 12 | 1 << 13  # CAP_NET_ADMIN, CAP_NET_RAW
    if gateway.status()["fastPath"]["active"]:
        wanted |= 1 << 39  # CAP_BPF
    assert gateway.process is not None
    assert effective(gateway.process.pid) == wanted
    assert effective(api) == 0


def test_no_process_outlives_a_killed_engine(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    gateway.status()
    supervisor = supervisor_of(gateway)
    everyone = [supervisor, *children(supervisor)]
    assert len(everyone) == 2
    gateway.kill()
    eventually(lambda: not [pid for pid in everyone if _alive(pid)])


def test_however_often_ctrl_c_is_pressed_the_end_is_clean(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    process = gateway.process
    assert process is not None
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.002)
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == 0
    assert "Traceback" not in gateway.errors.read_text()
    assert "snatgw" not in fresh.run("gw", "iptables-save")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_full_table_refuses_new_flows_and_says_so(fresh: Topology) -> None:
    gateway = Gateway(fresh, maximumFlows=50)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(60, SERVER)
    eventually(lambda: vm1.connections()["connected"] == 50)
    gateway.event(operationName="FlowTableFull")
    assert gateway.status()["flows"] == 50
    assert vm1.talk() == 50
    assert vm1.connections()["failed"] == 0


def test_tcp_from_before_the_gateway_is_dropped_silently(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(3, SERVER)
    eventually(lambda: vm1.connections()["connected"] == 3)
    gateway.kill()
    shutil.rmtree(gateway.state)  # else it goes on with them, if they had been written down
    gateway.start()
    answers = fresh.capture("vm1", "eth0", "icmp or tcp[tcpflags] & tcp-rst != 0")
    assert vm1.talk(patience=0.3) == 0
    gateway.event(reason="TcpWithoutFlow")
    assert answers.lines() == []
    assert vm1.connections()["failed"] == 0


def test_idle_and_closed_connections_give_their_ports_back(fresh: Topology) -> None:
    gateway = Gateway(fresh, timeScale=120)  # 4 minutes are 2 seconds
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(5, SERVER)
    eventually(lambda: vm1.connections()["connected"] == 5)
    assert vm1.peer("Tcp", SERVER2) == f"{DEFAULT}:1024"  # closed by FIN
    eventually(lambda: gateway.ports("vm1", "Tcp")["free"] == 1024)
    assert gateway.flows() == []
    assert vm1.talk(patience=0.3) == 0  # an idle connection ends without a word
    assert vm1.connections() == {"connected": 5, "pending": 0, "failed": 0}


def test_events_are_followed_as_they_come(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    command = [
        gateway.python,
        "-m",
        "gateway",
        "events",
        "--follow",
        "--json",
        "--api",
        str(gateway.api),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None

            def followed() -> bool:
                gateway.reload()  # an event each
                return bool(select_readable(follower))

            eventually(followed)
            event = json.loads(follower.stdout.readline())
            assert event["operationName"] == "Reloaded"
        finally:
            follower.kill()


def select_readable(process: subprocess.Popen[str]) -> list[object]:
    import select

    assert process.stdout is not None
    return [*select.select([process.stdout], [], [], 0.1)[0]]
