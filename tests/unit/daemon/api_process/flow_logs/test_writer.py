"""Flow logs on disk: Azure's shapes to the letter, rotation, a disk that is full, a restart."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.core.observe.flow_log import FlowLogEntry
from gateway.daemon.api_process.event_log import prepare_directory
from gateway.daemon.api_process.flow_logs.azure_formats import nsg_records, vnet_records
from gateway.daemon.api_process.flow_logs.writer import FlowLogWriter
from gateway.daemon.channel.api_messages import Kind, decode_header, decode_payload
from gateway.daemon.channel.flow_log_message import message
from gateway.daemon.engine_process.request_channel import RequestChannel

WALL = 1542110437.25
"""2018-11-13 12:00:37.25 UTC."""
VM, REMOTE = bytes([10, 5, 16, 4]), bytes([192, 0, 2, 97])
OTHER = bytes([10, 5, 16, 5])


def entry(state: str, **changes: Any) -> FlowLogEntry:
    """Of an outbound TCP flow by a default rule, changed as said."""
    counters = (52, 29952, 47, 27072) if state in "CE" else (0, 0, 0, 0)
    made = FlowLogEntry(
        0.0,
        state,
        6,
        False,
        VM,
        59831,
        REMOTE,
        443,
        "web",
        "AllowInternetOutBound",
        True,
        *counters,
    )
    return made._replace(**changes)


INBOUND = {
    "inbound": True,
    "source": REMOTE,
    "source_port": 59752,
    "destination": VM,
    "destination_port": 18264,
}
DENIED = {**INBOUND, "rule": "no-one", "default": False}


def test_the_nsg_log_is_as_azure_writes_it() -> None:
    timed = [
        (WALL, entry("B")),
        (WALL + 1, entry("D", **DENIED)),
        (WALL + 300, entry("C")),
        (WALL + 301, entry("E")),
        (WALL + 302, entry("E", protocol=17, source=OTHER)),
        (WALL + 303, entry("D", **INBOUND, rule="DenyAllInBound", protocol=17, group="nic")),
        (WALL + 304, entry("B", protocol=1)),  # not in this format
        (WALL + 305, entry("B", group=None, rule=None)),  # judged by no group
    ]
    expected = json.loads("""
    [
      {
        "time": "2018-11-13T12:05:43.2500000Z",
        "systemId": "SYSTEM-WEB",
        "category": "NetworkSecurityGroupFlowEvent",
        "resourceId": "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/SNATGW/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/WEB",
        "operationName": "NetworkSecurityGroupFlowEvents",
        "properties": {
          "Version": 2,
          "flows": [
            {
              "rule": "DefaultRule_AllowInternetOutBound",
              "flows": [
                {
                  "mac": "02000A051004",
                  "flowTuples": [
                    "1542110437,10.5.16.4,192.0.2.97,59831,443,T,O,A,B,,,,",
                    "1542110737,10.5.16.4,192.0.2.97,59831,443,T,O,A,C,52,29952,47,27072",
                    "1542110738,10.5.16.4,192.0.2.97,59831,443,T,O,A,E,52,29952,47,27072"
                  ]
                },
                {
                  "mac": "02000A051005",
                  "flowTuples": [
                    "1542110739,10.5.16.5,192.0.2.97,59831,443,U,O,A,E,52,29952,47,27072"
                  ]
                }
              ]
            },
            {
              "rule": "UserRule_no-one",
              "flows": [
                {
                  "mac": "02000A051004",
                  "flowTuples": ["1542110438,192.0.2.97,10.5.16.4,59752,18264,T,I,D,B,,,,"]
                }
              ]
            }
          ]
        }
      },
      {
        "time": "2018-11-13T12:05:43.2500000Z",
        "systemId": "SYSTEM-NIC",
        "category": "NetworkSecurityGroupFlowEvent",
        "resourceId": "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/SNATGW/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/NIC",
        "operationName": "NetworkSecurityGroupFlowEvents",
        "properties": {
          "Version": 2,
          "flows": [
            {
              "rule": "DefaultRule_DenyAllInBound",
              "flows": [
                {
                  "mac": "02000A051004",
                  "flowTuples": ["1542110740,192.0.2.97,10.5.16.4,59752,18264,U,I,D,B,,,,"]
                }
              ]
            }
          ]
        }
      }
    ]
    """)
    found = nsg_records(timed, WALL + 306)
    expected[0]["systemId"], expected[1]["systemId"] = (r["systemId"] for r in found)
    assert found == expected
    assert len({r["systemId"] for r in found}) == 2


def test_the_vnet_log_is_as_azure_writes_it() -> None:
    timed = [
        (WALL, entry("B")),
        (WALL + 1, entry("D", **DENIED)),
        (WALL + 300, entry("C")),
        (WALL + 301, entry("E", group=None, rule=None, default=False)),
        (WALL + 302, entry("B", protocol=1, source_port=0, destination_port=0, source=OTHER)),
    ]
    expected = json.loads("""
    [
      {
        "time": "2018-11-13T12:05:43.2500000Z",
        "flowLogVersion": 4,
        "flowLogGUID": "GUID",
        "macAddress": "02000A051004",
        "category": "FlowLogFlowEvent",
        "flowLogResourceID": "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_SNATGW/FLOWLOGS/SNATGW",
        "targetResourceID": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/snatgw/providers/Microsoft.Network/virtualNetworks/snatgw",
        "operationName": "FlowLogFlowEvent",
        "flowRecords": {
          "flows": [
            {
              "aclID": "ACL",
              "flowGroups": [
                {
                  "rule": "DefaultRule_AllowInternetOutBound",
                  "flowTuples": [
                    "1542110437250,10.5.16.4,192.0.2.97,59831,443,6,O,B,NX,0,0,0,0",
                    "1542110737250,10.5.16.4,192.0.2.97,59831,443,6,O,C,NX,52,29952,47,27072"
                  ]
                },
                {
                  "rule": "no-one",
                  "flowTuples": ["1542110438250,192.0.2.97,10.5.16.4,59752,18264,6,I,D,NX,0,0,0,0"]
                }
              ]
            },
            {
              "aclID": "unspecified",
              "flowGroups": [
                {
                  "rule": "unspecified",
                  "flowTuples": ["1542110738250,10.5.16.4,192.0.2.97,59831,443,6,O,E,NX,52,29952,47,27072"]
                }
              ]
            }
          ]
        }
      },
      {
        "time": "2018-11-13T12:05:43.2500000Z",
        "flowLogVersion": 4,
        "flowLogGUID": "GUID",
        "macAddress": "02000A051005",
        "category": "FlowLogFlowEvent",
        "flowLogResourceID": "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_SNATGW/FLOWLOGS/SNATGW",
        "targetResourceID": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/snatgw/providers/Microsoft.Network/virtualNetworks/snatgw",
        "operationName": "FlowLogFlowEvent",
        "flowRecords": {
          "flows": [
            {
              "aclID": "ACL",
              "flowGroups": [
                {
                  "rule": "DefaultRule_AllowInternetOutBound",
                  "flowTuples": ["1542110739250,10.5.16.5,192.0.2.97,0,0,1,O,B,NX,0,0,0,0"]
                }
              ]
            }
          ]
        }
      }
    ]
    """)
    found = vnet_records(timed, WALL + 306)
    guid = found[0]["flowLogGUID"]
    acl = found[0]["flowRecords"]["flows"][0]["aclID"]
    text = (
        json.dumps(expected).replace('GUID": "GUID', f'GUID": "{guid}').replace('"ACL"', f'"{acl}"')
    )
    assert found == json.loads(text)
    assert acl == nsg_records(timed, WALL)[0]["systemId"]  # one group, one GUID in both formats
    assert guid != acl


# -- files


def told(mode: str, *entries: FlowLogEntry, now: float = 0.0, wall: float = WALL) -> Any:
    return message(mode, now, wall, 1.0, list(entries))


def files(path: Path, name: str = "nsg") -> list[Path]:
    return sorted((path / "flow-logs" / name).iterdir())


def tuples(path: Path) -> list[str]:
    """Of an NSG flow log, in the way of the tools that read Azure's."""
    return [
        line
        for record in json.loads(path.read_bytes())["records"]
        for rule in record["properties"]["flows"]
        for interface in rule["flows"]
        for line in interface["flowTuples"]
    ]


def ports(path: Path) -> list[int]:
    return [int(line.split(",")[3]) for line in tuples(path)]


def numbered(number: int) -> FlowLogEntry:
    return entry("B", source_port=number)


def test_entries_wait_a_minute_and_every_write_leaves_a_document(tmp_path: Path) -> None:
    log = FlowLogWriter(tmp_path)
    for number in range(4):
        log.add(told("both", numbered(number)), WALL + number)
        log.look(WALL + number)
        assert not (tmp_path / "flow-logs").exists()
    log.look(WALL + 60)
    assert [path.name for path in files(tmp_path)] == ["PT1H-2018-11-13T12-0001.json"]
    assert ports(files(tmp_path)[0]) == [0, 1, 2, 3]
    log.add(told("both", numbered(4)), WALL + 61)
    log.look(WALL + 122)
    assert ports(files(tmp_path)[0]) == [0, 1, 2, 3, 4]
    assert len(json.loads(files(tmp_path, "vnet")[0].read_bytes())["records"]) == 2
    log.flush(WALL + 130)
    assert len(json.loads(files(tmp_path, "vnet")[0].read_bytes())["records"]) == 2


def test_azures_time_becomes_the_clocks(tmp_path: Path) -> None:
    log = FlowLogWriter(tmp_path)
    earlier = entry("B", time=1000.0)
    log.add(message("nsg", 1600.0, WALL, 60.0, [earlier]), WALL)
    log.look(WALL + 1)  # at this scale a minute is a second
    assert tuples(files(tmp_path)[0])[0].startswith(f"{int(WALL - 10)},")
    assert not (tmp_path / "flow-logs" / "vnet").exists()


def test_each_hour_has_its_file(tmp_path: Path) -> None:
    log = FlowLogWriter(tmp_path)
    for hour in range(3):
        log.add(told("nsg", numbered(hour)), WALL)
        log.flush(WALL + 3600 * hour)
    assert [path.name[5:18] for path in files(tmp_path)] == [
        "2018-11-13T12",
        "2018-11-13T13",
        "2018-11-13T14",
    ]
    assert [ports(path) for path in files(tmp_path)] == [[0], [1], [2]]


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    log = FlowLogWriter(tmp_path, maximum_bytes=1500, kept_files=3)
    for number in range(40):
        log.add(told("nsg", numbered(number)), WALL)
        log.flush(WALL)
    found = files(tmp_path)
    assert len(found) == 3
    assert all(path.stat().st_size <= 1500 for path in found)
    kept = [number for path in found for number in ports(path)]
    assert kept == list(range(kept[0], 40))


def test_many_entries_are_written_before_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.daemon.api_process.flow_logs.writer.MAXIMUM_PENDING", 10)
    log = FlowLogWriter(tmp_path)
    for start in (0, 6):
        log.add(told("nsg", *map(numbered, range(start, start + 6))), WALL)
    assert ports(files(tmp_path)[0]) == list(range(12))


def test_a_restart_goes_on_in_the_file_of_the_hour(tmp_path: Path) -> None:
    for number in range(3):
        log = FlowLogWriter(tmp_path)
        log.add(told("nsg", numbered(number)), WALL)
        log.flush(WALL)
    assert [ports(path) for path in files(tmp_path)] == [[0, 1, 2]]


def test_a_torn_file_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "flow-logs" / "nsg"
    directory.mkdir(parents=True)
    torn = directory / "PT1H-2018-11-13T12-0001.json"
    torn.write_text('{"records":[{"time"')
    (directory / "notes.txt").write_text("mine")
    log = FlowLogWriter(tmp_path, kept_files=1)
    log.add(told("nsg", numbered(7)), WALL)
    log.flush(WALL)
    names = {path.name for path in files(tmp_path)}
    assert names == {"PT1H-2018-11-13T12-0002.json", "notes.txt"}


def test_a_full_disk_costs_entries_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    log = FlowLogWriter(tmp_path, complain=lines.append)
    log.add(told("nsg", numbered(0)), WALL)
    log.flush(WALL)
    really = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        return really(descriptor, data[: len(data) // 2] if len(data) > 2 else data, offset)

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(descriptor, data, offset)

    for write in (half, full):
        monkeypatch.setattr(os, "pwrite", write)
        log.add(told("nsg", numbered(1), numbered(2)), WALL)
        log.flush(WALL)
        assert ports(files(tmp_path)[0]) == [0]  # still a document
        log.flush(WALL + 3600)
    log.add(told("nsg", numbered(2)), WALL)
    log.flush(WALL + 3600)  # nor does a new file begin half-written
    assert len(files(tmp_path)) == 1
    assert log.unwritten == 5
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path}/flow-logs/nsg: flow logs are not being written: ")
    monkeypatch.setattr(os, "pwrite", really)
    log.add(told("nsg", numbered(3)), WALL)
    log.flush(WALL)
    assert ports(files(tmp_path)[0]) == [0, 3]


@pytest.mark.parametrize("name", ["flow-logs", "flow-logs/nsg"])
def test_a_directory_that_cannot_be_used_is_said_once(tmp_path: Path, name: str) -> None:
    """Something else stands there, or a link that leads elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(elsewhere)
    lines: list[str] = []
    log = FlowLogWriter(tmp_path, complain=lines.append)
    for number in range(3):
        log.add(told("nsg", numbered(number)), WALL)
        log.flush(WALL)
    assert (log.unwritten, len(lines), list(elsewhere.iterdir())) == (3, 1, [])


def test_a_change_of_the_format_writes_what_waits_in_the_old_one(tmp_path: Path) -> None:
    log = FlowLogWriter(tmp_path)
    log.add(told("nsg", numbered(0)), WALL)
    log.add(told("vnet", numbered(1)), WALL)
    log.flush(WALL)
    assert ports(files(tmp_path)[0]) == [0]
    assert len(files(tmp_path, "vnet")) == 1


def test_the_state_directory_leads_to_the_files(tmp_path: Path) -> None:
    path = prepare_directory(tmp_path, os.getuid(), os.getgid())
    log = FlowLogWriter(path.parent)
    log.add(told("nsg", numbered(5)), WALL)
    log.flush(WALL)
    assert ports(files(tmp_path)[0]) == [5]
    prepare_directory(tmp_path, os.getuid(), os.getgid())


# -- the channel


def test_the_channel_carries_entries_and_keeps_them_for_the_next_process() -> None:
    waiting = [told("nsg", numbered(number)) for number in range(3)]
    channel = RequestChannel()
    channel.flow_log = lambda: waiting.pop(0) if waiting else None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    channel.connect(ours)
    try:
        while True:
            ours.send(b"x" * 8192)
    except BlockingIOError:
        pass
    assert channel.work()
    assert len(waiting) == 2  # one taken, none sent, no more taken
    assert channel.work()
    assert len(waiting) == 2
    theirs.close()
    again, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(again)
    assert channel.has_work
    while channel.has_work:
        assert channel.work()
    received = []
    for _ in range(3):
        data = other.recv(1 << 20)
        assert decode_header(data) == (0, Kind.FLOW_LOG)
        received.append(FlowLogEntry._make(decode_payload(data)[4][0]).source_port)
    assert received == [0, 1, 2]
    channel.disconnect()
    other.close()
