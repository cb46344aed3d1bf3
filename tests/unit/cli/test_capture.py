"""``snatgw capture`` against a real API: files, pipes, ends, refusals."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.ingress import IngressPath
from gateway.daemon.api_process.capture.pcapng import Blocks
from tests.unit.cli.test_commands import snatgw
from tests.unit.daemon.api_process.capture.test_capture_routes import DATAGRAM, eventually
from tests.unit.daemon.serving import Served, served

ROOT = Path(__file__).parents[3]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        yield daemon


def begin(
    daemon: Served, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The command, once its capture runs."""
    before = daemon.captures.running
    command = [sys.executable, "-m", "gateway", "capture", *arguments, "--api", str(daemon.path)]
    process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=ROOT)
    eventually(lambda: daemon.captures.running > before or process.poll() is not None)
    return process


def packets(data: bytes) -> int:
    """How many are in a file, which is whole."""
    blocks = Blocks()
    blocks.feed(data)
    assert blocks.rest == 0
    return blocks.packets


def said(process: subprocess.Popen[bytes], status: int = 0) -> list[str]:
    """What the command said on standard error, and it ended so."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    return errors.decode().splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_file_is_whole_when_it_is_ended(daemon: Served, tmp_path: Path, number: int) -> None:
    file = tmp_path / "a.pcapng"
    process = begin(daemon, "-w", str(file))
    for _ in range(3):
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    eventually(lambda: file.exists() and packets(file.read_bytes()) == 6)  # while it goes on
    process.send_signal(number)
    first, last = said(process)
    assert first == f"capturing to {file} until 100M (--size), Ctrl-C"
    assert last == f"6 packets, {file.stat().st_size / 1000:.1f}kB, none lost in {file}: ended"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    eventually(lambda: not daemon.captures.running)


def test_bounds_are_told_and_the_end_as_json(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    process = begin(
        daemon, "-w", str(file), "--count", "3", "--duration", "1h", "--size", "1M", "--json"
    )
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    output, errors = process.communicate(timeout=60)
    assert errors.decode() == (
        f"capturing to {file} until 1M (--size), 3 packets, 1h have passed, Ctrl-C\n"
    )
    assert json.loads(output) == {
        "file": str(file),
        "packets": 3,
        "bytes": file.stat().st_size,
        "lost": 0,
        "ended": "count",
        "droppedUnseen": {},
    }
    assert packets(file.read_bytes()) == 3


def test_standard_output_is_live_and_ends_with_its_reader(daemon: Served) -> None:
    process = begin(daemon, "-w", "-")
    assert process.stdout is not None
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    data = b""
    while packets_so_far(data) < 2:  # without waiting for more packets
        data += os.read(process.stdout.fileno(), 1 << 16)
    process.stdout.close()
    assert process.wait(60) == 0  # no packet was needed to notice
    assert process.stderr is not None
    assert process.stderr.read().decode().splitlines()[-1].endswith("the reader has gone")
    eventually(lambda: not daemon.captures.running)


def packets_so_far(data: bytes) -> int:
    blocks = Blocks()
    blocks.feed(data)
    return blocks.packets


def test_a_reader_that_goes_between_packets(daemon: Served) -> None:
    process = begin(daemon, "-w", "-")
    assert process.stdout is not None
    process.stdout.close()
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read().decode()


def test_a_redirected_standard_output(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    with file.open("wb") as output:
        process = begin(daemon, "-w", "-", "--count", "2", stdout=output.fileno())
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        assert said(process)[-1].endswith("in standard output: the bound of --count is reached")
    assert packets(file.read_bytes()) == 2


def test_a_named_pipe(daemon: Served, tmp_path: Path) -> None:
    fifo, copy = tmp_path / "fifo", tmp_path / "copy"
    os.mkfifo(fifo)
    with copy.open("wb") as output, subprocess.Popen(["cat", str(fifo)], stdout=output):
        process = begin(daemon, "-w", str(fifo), "--count", "2")
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        said(process)
    assert packets(copy.read_bytes()) == 2


def test_the_terminal_shows_progress_and_gets_no_binary(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    ours, theirs = pty.openpty()
    try:
        process = begin(daemon, "-w", str(file), "--count", "2", stderr=theirs)
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        process.communicate(timeout=60)
        shown = os.read(ours, 1 << 16).decode()
        assert "2 packets, " in shown
        assert "\r\x1b[K" in shown
        refused = begin(daemon, "-w", "-", stdout=theirs)
        (line,) = said(refused, status=1)
        assert line.startswith("snatgw: -w -: standard output is a terminal; pipe it")
        refused = begin(daemon, "-w", os.ttyname(theirs))
        (line,) = said(refused, status=1)
        assert line.startswith(f"snatgw: {os.ttyname(theirs)}: is a terminal; pipe it")
    finally:
        os.close(ours)
        os.close(theirs)
    eventually(lambda: not daemon.captures.running)


def test_a_file_that_exists_is_replaced_only_when_asked(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    file.write_bytes(b"mine")
    file.chmod(0o644)
    refused = snatgw("capture", "-w", str(file), api=daemon.path)
    assert refused.exit_code == 1
    assert refused.stderr == f"snatgw: {file}: exists; --force replaces it\n"
    assert file.read_bytes() == b"mine"
    process = begin(daemon, "-w", str(file), "--force", "--count", "2")
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    said(process)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert packets(file.read_bytes()) == 2
    # what the daemon refuses costs no file
    refused = snatgw("capture", "-w", str(file), "--force", "--vm", "vmx", api=daemon.path)
    assert (refused.exit_code, packets(file.read_bytes())) == (1, 2)
    assert "there is no virtual machine 'vmx', did you mean vm" in refused.stderr


@pytest.mark.parametrize("there", [True, False])
def test_links_to_files_are_neither_followed_nor_removed(
    daemon: Served, tmp_path: Path, there: bool
) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(other)
    if there:
        other.write_bytes(b"mine")
    refused = snatgw("capture", "-w", str(link), "--force", api=daemon.path)
    assert refused.exit_code == 1
    assert refused.stderr == f"snatgw: {link}: is a link; name the file that it leads to\n"
    assert (link.is_symlink(), other.exists()) == (True, there)


def test_dev_stdout_is_a_pipe_where_standard_output_is(daemon: Served) -> None:
    process = begin(daemon, "-w", "/dev/stdout", "--count", "2")
    daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, packets(output)) == (0, 2)


def test_refusals(daemon: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    usage = snatgw("capture", "-w", str(file), "--size", "1", "--count", "x", api=daemon.path)
    assert usage.exit_code == 2
    assert "size: '1' is no number of bytes" in usage.stderr
    assert "count: 'x' is no whole number" in usage.stderr
    assert snatgw("capture", api=daemon.path).exit_code == 2
    side = snatgw("capture", "-w", str(file), "--side", "up", "--count", "x", api=daemon.path)
    assert side.exit_code == 2
    assert "side: 'up' is not one of inside, outside, both" in side.stderr
    assert "count: 'x' is no whole number" in side.stderr
    both = snatgw("capture", "-w", "-", "--json", api=daemon.path)
    assert (both.exit_code, "-w -" in both.stderr) == (2, True)
    directory = snatgw("capture", "-w", str(tmp_path), api=daemon.path)
    assert (directory.exit_code, "is a directory" in directory.stderr) == (1, True)
    nowhere = snatgw("capture", "-w", str(tmp_path / "no/a"), api=daemon.path)
    assert nowhere.exit_code == 1
    assert nowhere.stderr == f"snatgw: {tmp_path / 'no/a'}: No such file or directory\n"
    absent = snatgw("capture", "-w", str(file), api=tmp_path / "none.sock")
    assert (absent.exit_code, "no daemon answers" in absent.stderr) == (1, True)
    assert not file.exists()
    eventually(lambda: not daemon.captures.running)


def test_a_full_disk_leaves_whole_blocks(daemon: Served) -> None:
    process = begin(daemon, "-w", "/dev/full")
    (first, last) = said(process, status=1)
    assert first.startswith("capturing to /dev/full")
    assert last == "snatgw: /dev/full: No space left on device"
    eventually(lambda: not daemon.captures.running)


def test_a_daemon_that_ends_leaves_what_came(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    with served(tmp_path) as daemon:
        process = begin(daemon, "-w", str(file))
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        eventually(lambda: file.exists() and packets_so_far(file.read_bytes()) == 2)
    lines = said(process, status=1)
    assert lines[-1].endswith(f"ended while it captured; {file} has what came")
    assert packets(file.read_bytes()) == 2
