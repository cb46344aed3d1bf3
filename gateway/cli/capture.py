"""``snatgw capture``: what crosses the gateway, into a file or live to standard output.

The daemon makes the pcapng; here it is cut into whole blocks, so that what was written can be read
whatever ends the capture, and counted. Ctrl-C asks the daemon to end it and takes the rest; a
second one leaves at once. A reader that goes away (``| head``, Wireshark closed) is a good end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from gateway.cli.api_client import Daemon, Stream
from gateway.cli.options import INTERRUPTED, Failure, api_option, examples, json_option
from gateway.cli.tables import size
from gateway.daemon.api_process.capture.pcapng import Blocks, NotPcapngError
from gateway.schema.capture_query import DEFAULT_SIZE, SIDES, CaptureQuery
from gateway.schema.queries import QueryError

STANDARD_OUTPUT = "-"
PROGRESS_SECONDS = 0.25
LAST_SECONDS = 5.0
"""How long the end of a capture may take once it was asked for."""
_PIPE = "pipe it, as in -w - | wireshark -k -i -"
_REASONS = {
    "size": "the bound of --size is reached",
    "count": "the bound of --count is reached",
    "duration": "the time of --duration is over",
    "request": "ended",
    "reader": "the reader has gone",
    "gateway": "the daemon has ended",
}


@click.command(
    epilog=examples(
        "snatgw capture -w trace.pcapng --vm vm1 --duration 30s",
        "snatgw capture -w - | wireshark -k -i -",
        "snatgw capture -w - --remote 198.51.100.7:443 | tshark -r - -T fields -e frame.comment",
        "snatgw capture -w vms.pcapng --side inside --snaplen 128 --count 1000",
        "snatgw capture -w stages.pcapng --vm vm1 --trace",
    )
)
@click.option(
    "-w",
    "--write",
    "path",
    metavar="FILE",
    required=True,
    help="The file to make; - is standard output.",
)
@click.option("--vm", metavar="N", help="Only this VM's packets, by name or private address.")
@click.option(
    "--side",
    metavar="S",
    shell_complete=lambda _, __, begun: [side for side in SIDES if side.startswith(begun)],
    help="inside, outside or both.  [default: both]",
)
@click.option("--remote", metavar="IP[:PORT]", help="Only packets from or to this remote.")
@click.option("--protocol", metavar="P", help="Only this protocol's packets: Tcp, Udp or Icmp.")
@click.option("--snaplen", metavar="BYTES", help="Of each packet at most this much.")
@click.option(
    "--trace",
    is_flag=True,
    flag_value="1",
    default=None,
    help="Note in each packet's comment the stages that it passed.",
)
@click.option("--count", metavar="N", help="End after N packets in the file.")
@click.option(
    "--size",
    "bound",
    metavar="BYTES",
    help="End before the file exceeds this (k, M, G; or unlimited).  "
    f"[default: {DEFAULT_SIZE // 10**6}M]",
)
@click.option("--duration", metavar="T", help="End after this long, as in 30s, 5m, 1h30m.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option("one JSON object about the capture when it has ended")
@api_option
def capture(
    path: str, bound: str | None, force: bool, as_json: bool, api: str, **options: str | None
) -> None:
    """Packets as they come to the gateway and as they leave it, as pcapng.

    The file has two interfaces, inside and outside. A translated packet is there twice, with the
    same packet ID; comments name flow, VM, verdict and method. A dropped packet is there once, with
    the reason, or the security rule that denied it.

    With Ctrl-C the file is complete. `snatgw` must be allowed to use the daemon's socket; the file
    is its user's alone (mode 0600).
    """
    query = {name: value for name, value in options.items() if value is not None}
    if bound is not None:
        query["size"] = bound
    try:
        CaptureQuery.parse(query)
    except QueryError as error:
        raise click.UsageError("\n".join(error.problems)) from None
    if as_json and path == STANDARD_OUTPUT:
        raise click.UsageError("--json prints to standard output, which -w - has taken")
    output = _Output(path, force)
    daemon = Daemon(api)
    with daemon.stream("/v1/capture", query) as stream, output:
        run = _Run(stream, output, query)
        with _on_signal(lambda: run.ask_to_end(daemon)):
            try:
                run.copy()
            finally:
                output.keep_whole()
    document = run.document()
    if as_json:
        click.echo(json.dumps(document))
    else:
        run.say_end()
    if run.ended == "gateway":
        raise Failure([f"the daemon on {api} ended while it captured; {output.name} has what came"])


class _Output:
    """Where the capture goes. A new file is its owner's alone; none is replaced unasked."""

    def __init__(self, path: str, force: bool) -> None:
        """Check what exists. Raises Failure; changes nothing."""
        self.name = "standard output" if path == STANDARD_OUTPUT else path
        self.size = 0
        self.descriptor = -1
        self.pipe = False
        self._path = path
        self._special = path == STANDARD_OUTPUT  # what is there is written to, not made
        self._replace = False
        if path == STANDARD_OUTPUT:
            if os.isatty(1):
                raise Failure([f"-w -: standard output is a terminal; {_PIPE}"])
            return
        try:
            link = stat.S_ISLNK(os.lstat(path).st_mode)
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
            link, mode = True, stat.S_IFREG
        except OSError as error:
            raise Failure([f"{path}: {error.strerror}"]) from None
        if stat.S_ISDIR(mode):
            raise Failure([f"{path}: is a directory; name a file"])
        self._special = not stat.S_ISREG(mode)
        if link and not self._special:  # it may be /dev/stdout, or lead to another's file
            raise Failure([f"{path}: is a link; name the file that it leads to"])
        self._replace = not self._special
        if self._replace and not force:
            raise Failure([f"{path}: exists; --force replaces it"])

    def __enter__(self) -> _Output:
        try:
            self._open()
        except OSError as error:
            raise Failure([f"{self.name}: {error.strerror}"]) from None
        if os.isatty(self.descriptor):
            os.close(self.descriptor)
            raise Failure([f"{self.name}: is a terminal; {_PIPE}"])
        self.pipe = not stat.S_ISREG(os.fstat(self.descriptor).st_mode)
        return self

    def _open(self) -> None:
        if self._path == STANDARD_OUTPUT:
            self.descriptor = os.dup(1)
            return
        flags = os.O_WRONLY | os.O_CLOEXEC
        if self._special:
            self.descriptor = os.open(self._path, flags)
            return
        if self._replace:
            os.unlink(self._path)
        self.descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def write(self, blocks: bytes) -> None:
        """Write whole blocks. Raises OSError; BrokenPipeError: the reader is gone."""
        view = memoryview(blocks)
        while view:
            view = view[os.write(self.descriptor, view) :]
        self.size += len(blocks)

    def keep_whole(self) -> None:
        """Cut off a block that was not written whole."""
        if not self._special:
            os.ftruncate(self.descriptor, self.size)


class _Run:
    """A capture from its first byte to its last."""

    def __init__(self, stream: Stream, output: _Output, query: dict[str, str]) -> None:
        self.ended = "gateway"  # until the stream reports why
        self._stream = stream
        self._output = output
        self._query = query
        self._blocks = Blocks()
        self._lost = {0: 0, 1: 0}
        self._unseen: dict[str, int] = {}
        self._asked = False
        self._said = 0.0
        self._terminal = sys.stderr.isatty()

    def copy(self) -> None:
        """All of the stream into the output."""
        self._say_start()
        if self._output.pipe:
            threading.Thread(target=self._watch_reader, daemon=True).start()
        try:
            for piece in self._stream.pieces():
                blocks, told = self._blocks.feed(piece)
                self._output.write(blocks)
                for statistics in told:
                    self._lost[statistics.interface] = statistics.dropped
                    self._read(statistics.comment)
                self._say_progress()
        except BrokenPipeError:
            self.ended = "reader"
        except NotPcapngError:
            raise Failure(["what the daemon sends is no capture"]) from None
        except OSError as error:
            raise Failure([f"{self._output.name}: {error.strerror or error}"]) from None
        finally:
            if self._terminal:
                click.echo("\r\x1b[K", err=True, nl=False)
        if self._stream.cut and self.ended == "gateway" and self._reader_gone():
            self.ended = "reader"
        elif self._asked and self.ended == "gateway":
            self.ended = "request"  # the daemon did not manage to end it well

    def _read(self, comment: str) -> None:
        """What the last counters say: why it ended, and what was dropped unseen."""
        said = dict(word.split("=", 1) for word in comment.split())
        self.ended = said.get("ended", self.ended)
        if "unseen" in said:
            pairs = (pair.split(":") for pair in said["unseen"].split(","))
            self._unseen = {reason: int(count) for reason, count in pairs}

    def ask_to_end(self, daemon: Daemon) -> None:
        """Have the daemon end the capture; the second time, leave."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        timer = threading.Timer(LAST_SECONDS, self._stream.stop)
        timer.daemon = True
        timer.start()
        try:
            daemon.one("DELETE", f"/v1/capture/{self._stream.headers['Capture']}")
        except Failure:
            self._stream.stop()  # it has ended, or the daemon has

    def _reader_gone(self) -> bool:
        if not self._output.pipe:
            return False
        poll = select.poll()
        poll.register(self._output.descriptor, 0)
        return bool(poll.poll(0))

    def _watch_reader(self) -> None:
        """End the capture when its reader is gone, even if no packet comes."""
        poll = select.poll()
        poll.register(self._output.descriptor, 0)  # POLLERR comes unasked
        poll.poll()
        self._stream.stop()

    # -- messages

    @property
    def lost(self) -> int:
        """Packets that found no room on their way."""
        return sum(self._lost.values())

    def document(self) -> dict[str, object]:
        """What ``--json`` prints."""
        return {
            "file": self._output.name,
            "packets": self._blocks.packets,
            "bytes": self._output.size,
            "lost": self.lost,
            "ended": self.ended,
            "droppedUnseen": self._unseen,
        }

    def _say_start(self) -> None:
        bound = self._query.get("size", f"{DEFAULT_SIZE // 10**6}M")
        until = [f"{bound} (--size)"] if bound != "unlimited" else []
        until += [_packets(int(self._query["count"]))] if "count" in self._query else []
        until += [f"{self._query['duration']} have passed"] if "duration" in self._query else []
        until.append("Ctrl-C")
        click.echo(f"capturing to {self._output.name} until {', '.join(until)}", err=True)

    def _say_progress(self) -> None:
        now = time.monotonic()
        if self._terminal and now - self._said >= PROGRESS_SECONDS:
            self._said = now
            click.echo(f"\r\x1b[K{self._figures()}", err=True, nl=False)

    def say_end(self) -> None:
        """The last line."""
        click.echo(f"{self._figures()} in {self._output.name}: {_REASONS[self.ended]}", err=True)
        if self._unseen:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._unseen.items())
            click.echo(f"dropped meanwhile without being seen: {reasons}", err=True)

    def _figures(self) -> str:
        lost = f", {self.lost:,} lost" if self.lost else ", none lost"
        return f"{_packets(self._blocks.packets)}, {size(self._output.size)}B{lost}"


def _packets(number: int) -> str:
    return f"{number:,} packet{'' if number == 1 else 's'}"


@contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` on Ctrl-C and SIGTERM; KeyboardInterrupt from it ends the program."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
