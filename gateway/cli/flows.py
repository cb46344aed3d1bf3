"""``snatgw flows``: the live flow table, once or redrawn every second."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import Failure, api_option, examples, json_option
from gateway.cli.tables import Column, counted, endpoint, plain_lines, print_table, seconds, size
from gateway.schema.queries import SORT_FIELDS, STATES, FlowQuery, QueryError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REDRAW_SECONDS = 1.0
COLUMNS = (
    Column("ID", right=True),
    Column("PROTO"),
    Column("STATE"),
    Column("VM"),
    Column("PRIVATE"),
    Column("PUBLIC"),
    Column("REMOTE"),
    Column("METHOD"),
    Column("OUT", right=True),
    Column("IN", right=True),
    Column("AGE", right=True),
    Column("IDLE", right=True),
    Column("EXPIRES", right=True),
)


@click.command(
    epilog=examples(
        "snatgw flows --vm vm1 --protocol Tcp --sort -bytes --limit 20",
        "snatgw flows --remote 198.51.100.7:443 --state Established --json",
        "snatgw flows --watch",
    )
)
@click.option("--vm", metavar="N", help="Only this VM's, by name or private address.")
@click.option("--public", metavar="IP", help="Only through this public IP.")
@click.option("--remote", metavar="IP[:PORT]", help="Only toward this remote.")
@click.option("--protocol", metavar="P", help="Tcp, Udp or Icmp.")
@click.option("--state", metavar="S", help=f"One of {', '.join(STATES)}.")
@click.option(
    "--sort",
    metavar="F",
    help=f"Order by a field; -F: the largest first. Fields: {', '.join(SORT_FIELDS)}.",
)
@click.option("--limit", metavar="N", help="At most this many.")
@click.option("--watch", is_flag=True, help="Redraw every second until Ctrl-C.")
@json_option("one JSON object a flow")
@api_option
def flows(watch: bool, as_json: bool, api: str, **options: str | None) -> None:
    """The live flow table.

    AGE, IDLE and EXPIRES are Azure's seconds: a gateway with timeScale 60 lets 60 of them pass in
    one. A flow in state CoolDown has ended, but holds its SNAT port until it expires.
    """
    query = {name: value for name, value in options.items() if value is not None}
    try:
        FlowQuery.parse(query)
    except QueryError as error:
        raise click.UsageError("\n".join(error.problems)) from None
    daemon = Daemon(api)
    if watch:
        _watch(daemon, query, as_json)
    elif as_json:
        _print_json(daemon, query)
    else:
        print_table(COLUMNS, [_row(flow) for flow in daemon.lines("/v1/flows", query)])


def _print_json(daemon: Daemon, query: dict[str, str]) -> None:
    for flow in daemon.lines("/v1/flows", query):
        click.echo(json.dumps(flow, ensure_ascii=False))


def _watch(daemon: Daemon, query: dict[str, str], as_json: bool) -> None:
    if as_json:
        while True:
            _print_json(daemon, query)
            time.sleep(REDRAW_SECONDS)
    elif sys.stdout.isatty():
        _watch_terminal(daemon, query)
    else:
        while True:
            rows = [_row(flow) for flow in daemon.lines("/v1/flows", query)]
            for line in plain_lines(COLUMNS, rows):
                click.echo(line)
            click.echo()
            time.sleep(REDRAW_SECONDS)


def _watch_terminal(daemon: Daemon, query: dict[str, str]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(daemon, query, console), refresh=True)
            time.sleep(REDRAW_SECONDS)


def _screen(daemon: Daemon, query: dict[str, str], console: Console) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from gateway.cli.tables import rich_table

    try:
        listed = list(daemon.lines("/v1/flows", query))
    except Failure as error:  # a restart is worth waiting for
        return Text("\n".join(error.problems))
    room = max(console.height - 3, 1)
    title = f"{counted(len(listed), 'flow')}, {time.strftime('%H:%M:%S')}; Ctrl-C ends"
    if len(listed) > room:
        title += f"; the first {room} are shown"
    return Group(Text(title), Text(), rich_table(COLUMNS, map(_row, listed[:room])))


def _row(flow: dict[str, Any]) -> list[str]:
    state = flow["state"] + (" (awaiting removal)" if flow["awaitingRemoval"] else "")
    return [
        str(flow["id"]),
        flow["protocol"],
        state,
        flow["vm"],
        endpoint(flow["private"]),
        endpoint(flow["public"]),
        endpoint(flow["remote"]),
        flow["method"],
        size(flow["bytesOut"]),
        size(flow["bytesIn"]),
        seconds(flow["ageSeconds"]),
        seconds(flow["idleSeconds"]),
        seconds(flow["expiresInSeconds"]),
    ]
