"""``snatgw capture`` of real traffic, opened with tshark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.daemon.api_process.capture.pcapng import Blocks
from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.test_daemon_life import children
from tests.netns.test_security_groups import GROUPS
from tests.netns.topology import FAR, NARROW, SERVER, SERVER2, VMS, Topology, eventually
from tests.unit.daemon.api_process.capture.test_pcapng import stream

DENIES = "subnet-nsg/no-echo-to-second"
FIELDS = (
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.packet_id",
    "frame.comment",
    "frame.cap_len",
    "frame.len",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags.syn",
    "tcp.payload",
)
CHECKED = [
    flag for name in ("ip", "tcp", "udp") for flag in ("-o", f"{name}.check_checksum:TRUE")
]  # ICMP's is always checked


@pytest.fixture(scope="module")
def guarded(mode: None) -> Iterator[Gateway]:
    """The usual gateway, with a group on the subnet that denies the way to a second server."""
    with Topology() as net:
        gateway = Gateway(net)
        gateway.configuration["networkSecurityGroups"] = GROUPS[:1]
        gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "subnet-nsg"
        gateway.start()
        yield gateway
        assert gateway.losses() == {}
        assert gateway.stop() == 0


class Capturing:
    """``snatgw capture`` while it runs: ``end`` it, and look at what it has."""

    def __init__(self, gateway: Gateway, *arguments: str, to: Any = subprocess.DEVNULL) -> None:
        self._gateway = gateway
        self.file = gateway.net.directory / f"capture{time.monotonic_ns()}.pcapng"
        target = [] if "-w" in arguments else ["-w", str(self.file)]
        before = gateway.status()["captures"]
        command = [sys.executable, "-m", "gateway", "capture"]
        self.process = subprocess.Popen(
            [*command, *target, *arguments, "--api", str(gateway.api)],
            stdout=to,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        eventually(lambda: gateway.status()["captures"] > before or self.process.poll())

    def end(self, status: int = 0) -> str:
        """As Ctrl-C does; the last line that it says."""
        self.process.send_signal(signal.SIGINT)
        return self.said(status)

    def said(self, status: int = 0) -> str:
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == status, errors
        return errors.splitlines()[-1]

    def packets(self) -> list[dict[str, str]]:
        return read(self.file)

    def written(self, packets: int) -> None:
        """Wait until the file has so many packets, while it grows."""

        def count() -> int:
            blocks = Blocks()
            blocks.feed(self.file.read_bytes() if self.file.exists() else b"")
            return blocks.packets

        eventually(count, lambda seen: seen >= packets)


def read(file: Path) -> list[dict[str, str]]:
    """What tshark finds in a file: a packet's fields by name, those that it has."""
    fields = [word for field in FIELDS for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-r", str(file), "-T", "json", *CHECKED, *fields],
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        {name: values[0] for name, values in packet["_source"]["layers"].items()}
        for packet in json.loads(done.stdout)
    ]


def comment(packet: dict[str, str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in packet["frame.comment"].split())


def way(packet: dict[str, str]) -> str:
    direction = {1: "in", 2: "out"}[int(packet["frame.packet_flags_direction"], 16)]
    return f"{packet['frame.interface_name']} {direction}"


def test_tshark_reads_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    file.write_bytes(stream())
    fields = "interface_name interface_description time_epoch len cap_len packet_flags_direction packet_id comment"
    command = ["tshark", "-r", str(file), "-T", "fields", "-E", "separator=;"]
    for field in fields.split():
        command += ["-e", f"frame.{field}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "inside;lan0, lan1;1769860800.123456789;28;28;0x00000000;0;",
        "outside;wan0;1769860800.123456790;30;29;0x00000001;0;a",
        "inside;lan0, lan1;1769860800.123456791;32;30;0x00000002;1;flow=1 vm=vm1",
        "outside;wan0;1769860800.123456792;34;31;0x00000000;1;Größe",
        "inside;lan0, lan1;1769860800.123456793;36;32;0x00000001;2;four",
    ]
    about = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, check=True)
    for line in ("x86_64", "Linux 6", "snatgw 1", "a comment", "Number of stat entries = 1"):
        assert line in about.stdout


def test_both_sides_of_a_connection(guarded: Gateway) -> None:
    vm = guarded.net.client("vm1")
    capture = Capturing(guarded)
    public = vm.peer("Tcp", SERVER)
    (flow,) = guarded.flows("--remote", f"{SERVER}:37", "--vm", "vm1")
    assert "none lost" in capture.end()
    packets = capture.packets()
    syn, translated, answer, delivered = packets[:4]
    for packet in packets:
        assert comment(packet) == {
            "flow": str(flow["id"]),
            "vm": "vm1",
            "verdict": "translated",
            "method": "DefaultOutboundAccess",
        }
        assert (packet["ip.checksum.status"], packet["tcp.checksum.status"]) == ("1", "1")
    assert [way(p) for p in packets[:4]] == ["inside in", "outside out", "outside in", "inside out"]
    assert [p["frame.packet_id"] for p in packets[:4]] == ["1", "1", "2", "2"]
    assert syn["tcp.flags.syn"] == answer["tcp.flags.syn"] == "1"
    private = f"{VMS['vm1']}:{flow['private']['port']}"
    assert f"{syn['ip.src']}:{syn['tcp.srcport']}" == private
    assert f"{translated['ip.src']}:{translated['tcp.srcport']}" == public
    assert f"{answer['ip.dst']}:{answer['tcp.dstport']}" == public
    assert f"{delivered['ip.dst']}:{delivered['tcp.dstport']}" == private
    # The payload is the same on both sides of each packet, and is the server's answer.
    by_number: dict[str, list[dict[str, str]]] = {}
    for packet in packets:
        by_number.setdefault(packet["frame.packet_id"], []).append(packet)
    assert all(len(sides) == 2 for sides in by_number.values())
    for first, second in by_number.values():
        assert first.get("tcp.payload") == second.get("tcp.payload")
    payloads = [
        bytes.fromhex(p["tcp.payload"].replace(":", "")) for p in packets if "tcp.payload" in p
    ]
    assert payloads == [public.encode()] * 2
    about = subprocess.run(
        ["capinfos", str(capture.file)], capture_output=True, text=True, check=True
    ).stdout
    for line in ("Name = inside", "Description = lan0", "Description = wan0", "snatgw "):
        assert line in about
    assert guarded.status()["captures"] == 0


def test_denied_and_dropped_packets_are_marked(guarded: Gateway) -> None:
    vm = guarded.net.client("vm1")
    capture = Capturing(guarded)
    assert vm.echo(SERVER2, patience=0.2) == "TimeoutError"
    guarded.net.client("internet").craft(f"IP(dst='{DEFAULT}')/UDP(sport=1, dport=2000)")
    vm.craft(f"IP(dst='{SERVER}')/ICMP()")
    capture.written(3)
    capture.end()
    denied, unsolicited, ping = capture.packets()
    assert (way(denied), comment(denied)) == (
        "inside in",
        {"vm": "vm1", "verdict": "denied", "reason": "DeniedBySecurityRule", "rule": DENIES},
    )
    assert (way(unsolicited), comment(unsolicited)) == (
        "outside in",
        {"verdict": "dropped", "reason": "InboundWithoutFlow"},
    )
    assert (way(ping), comment(ping)) == (
        "inside in",
        {"vm": "vm1", "verdict": "dropped", "reason": "IcmpEchoThroughSnat"},
    )


def test_filters(guarded: Gateway) -> None:
    net = guarded.net
    everything = Capturing(guarded)
    captures = {
        "vm3": Capturing(guarded, "--vm", "vm3"),
        "outside": Capturing(guarded, "--side", "outside", "--snaplen", "28"),
        "remote": Capturing(guarded, "--remote", f"{SERVER}:7", "--protocol", "Udp"),
    }
    for vm in ("vm1", "vm3"):
        assert net.client(vm).echo(SERVER) == "whole"
        assert net.client(vm).peer("Tcp", SERVER).startswith("203.0.113.")
    everything.end()
    for capture in captures.values():
        capture.end()
    seen = {name: capture.packets() for name, capture in captures.items()}
    assert {comment(p)["vm"] for p in everything.packets()} == {"vm1", "vm3"}
    vm3 = seen["vm3"]
    assert {comment(p)["vm"] for p in vm3} == {"vm3"}
    assert {comment(p)["method"] for p in vm3} == {"InstanceLevelPublicIP"}
    assert {VMS["vm3"], INSTANCE} < {p["ip.src"] for p in vm3} | {p["ip.dst"] for p in vm3}
    assert {p["frame.interface_name"] for p in seen["outside"]} == {"outside"}
    assert {p["frame.cap_len"] for p in seen["outside"]} == {"28"}
    assert not any(p["ip.src"].startswith("10.") for p in seen["outside"])
    assert [(p["ip.proto"], way(p)) for p in seen["remote"]] == [
        ("17", where) for where in ("inside in", "outside out", "outside in", "inside out")
    ] * 2


def test_errors_from_the_way_belong_to_the_flow(guarded: Gateway) -> None:
    """A router on the way cannot pass a large packet on: the VM hears of it, and the capture says
    of which flow."""
    capture = Capturing(guarded, "--protocol", "Icmp")
    vm = guarded.net.client("vm2")
    assert vm.upload(FAR, 20_000) is True
    capture.end()
    errors = capture.packets()
    flow = next(f["id"] for f in guarded.flows("--vm", "vm2") if f["remote"]["ip"] == FAR)
    assert [way(p) for p in errors[:2]] == ["outside in", "inside out"]
    assert [p["ip.dst"] for p in errors[:2]][1] == VMS["vm2"]
    assert {p["ip.src"] for p in errors} <= {"203.0.113.254", NARROW, "198.18.0.1"}
    for packet in errors:
        assert (comment(packet)["flow"], comment(packet)["vm"]) == (str(flow), "vm2")
        assert packet["icmp.checksum.status"] == "1"


def test_flows_of_others_stay_where_they_are(guarded: Gateway) -> None:
    """A capture sees live flows from their next packet on, wherever those pass, and disturbs no
    others."""
    carried = guarded.status()["fastPath"]["active"]

    def offloaded() -> dict[str, bool]:
        live = (f for f in guarded.flows("--state", "Established") if f["remote"]["port"] == 7)
        return {f["vm"]: f["offloaded"] for f in live if f["protocol"] == "Tcp"}

    clients = [guarded.net.client(vm) for vm in ("vm1", "vm2")]
    for client in clients:
        client.open(1, SERVER)
        eventually(client.connections, lambda count: count["connected"] == 1)
        assert client.talk() == 1
    assert offloaded() == {"vm1": carried, "vm2": carried}
    capture = Capturing(guarded, "--vm", "vm1")
    assert offloaded() == {"vm1": False, "vm2": carried}
    assert [client.talk() for client in clients] == [1, 1]
    capture.end()
    talk = [(way(p), comment(p)["vm"]) for p in capture.packets() if "tcp.payload" in p]
    there, back = ("inside in", "outside out"), ("outside in", "inside out")
    assert talk == [(where, "vm1") for where in there + back]
    assert eventually(offloaded, lambda seen: seen["vm1"] == carried)["vm2"] == carried
    for client in clients:
        client.close()


def test_bounds_hold(guarded: Gateway) -> None:
    vm = guarded.net.client("vm1")
    by_count = Capturing(guarded, "--count", "101")
    by_size = Capturing(guarded, "--size", "1M")
    by_time = Capturing(guarded, "--duration", "1s")
    assert vm.upload(SERVER, 4_000_000) is True
    assert by_count.said().endswith("the bound of --count is reached")
    assert by_size.said().endswith("the bound of --size is reached")
    assert by_time.said().endswith("the time of --duration is over")
    assert len(by_count.packets()) == 101
    # Those that hold several segments, too, whose sender left their checksums to its device.
    assert {p["tcp.checksum.status"] for p in by_count.packets()} == {"1"}
    assert 900_000 < by_size.file.stat().st_size <= 1_000_000  # packets may be of 64 KiB
    assert by_size.packets()
    assert guarded.status()["captures"] == 0


def test_live_into_tshark(guarded: Gateway) -> None:
    """Each packet is shown when it comes; the end of tshark is the end of the capture."""
    reading, writing = os.pipe()
    capture = Capturing(guarded, "-w", "-", "--vm", "vm1", to=writing)
    os.close(writing)
    command = ["tshark", "-l", "-i", "-", "-T", "fields", "-e", "frame.comment", "-e", "ip.src"]
    shown = subprocess.Popen(
        command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    os.close(reading)
    assert shown.stdout is not None
    vm = guarded.net.client("vm1")
    for _ in range(2):
        assert vm.echo(SERVER) == "whole"
        lines = [shown.stdout.readline().rstrip().split("\t") for _ in range(4)]
        assert [source for _, source in lines] == [VMS["vm1"], DEFAULT, SERVER, SERVER]
        assert all("verdict=translated" in said for said, _ in lines)
    shown.terminate()
    assert capture.said().endswith("the reader has gone")
    shown.communicate(timeout=60)
    eventually(lambda: guarded.status()["captures"] == 0)


def test_a_reader_that_stands_still_costs_packets_of_the_capture_only(guarded: Gateway) -> None:
    reading, writing = os.pipe()
    capture = Capturing(guarded, "-w", "-", to=writing)
    os.close(writing)
    vm = guarded.net.client("vm1")
    for _ in range(4):  # each packet is there twice: more than all buffers on the way
        assert vm.download(SERVER, 4_000_000) is True
    assert vm.echo(SERVER) == "whole"
    assert guarded.status()["captures"] == 1
    capture.process.send_signal(signal.SIGINT)
    blocks, dropped = Blocks(), {0: 0, 1: 0}
    while data := os.read(reading, 1 << 20):
        for told in blocks.feed(data)[1]:
            dropped[told.interface] = told.dropped
    os.close(reading)
    assert blocks.rest == 0
    assert all(dropped.values())
    assert f"{sum(dropped.values()):,} lost" in capture.said()


def test_a_reader_that_is_killed_and_an_api_process_that_is(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm = fresh.client("vm1")
    capture = Capturing(gateway)
    assert vm.echo(SERVER) == "whole"
    capture.written(4)
    capture.process.kill()
    capture.process.communicate()
    eventually(lambda: gateway.status()["captures"] == 0)
    assert len(capture.packets()) == 4  # what was written is whole
    second = Capturing(gateway)
    vm.keep_asking(SERVER)
    second.written(1)
    assert gateway.process is not None
    engine = gateway.process.pid  # a walk through the host's firewall is a child, too, for a moment
    (supervisor,) = eventually(lambda: children(engine), lambda found: len(found) == 1)
    (api,) = children(supervisor)
    os.kill(api, signal.SIGKILL)
    said = second.said(status=1)
    assert said.endswith("has what came")
    assert second.packets()
    eventually(gateway.try_status, lambda status: status.get("captures") == 0)
    (counts,) = vm.stop()
    assert counts["sent"] == counts["answered"]
    assert gateway.losses() == {}
    third = Capturing(gateway)
    assert vm.echo(SERVER) == "whole"
    assert gateway.stop() == 0
    assert "has what came" in third.said(status=1)
    assert len(third.packets()) == 4


def test_tcpdump_reads_what_was_written(guarded: Gateway) -> None:
    """libpcap takes interfaces of one link type only, and not every type from a file."""
    vm = guarded.net.client("vm1")
    capture = Capturing(guarded)
    vm.peer("Tcp", SERVER)
    capture.end()
    written = capture.packets()
    command = ["tcpdump", "-n", "-q", "-r", str(capture.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(written)
    assert f" > {SERVER}.37: tcp" in lines[0]
