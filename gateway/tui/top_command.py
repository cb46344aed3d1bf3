"""``snatgw top``: what it takes on the command line, and when it does not start."""

from __future__ import annotations

import json
import os
import signal
import sys

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import INTERRUPTED, Failure, api_option, examples, json_option

ROWS = "200"


@click.command(
    epilog=examples(
        "snatgw top",
        "snatgw top --vm vm1 --sort -packetsPerSecond",
        "snatgw top --match '198.51.100.7 tcp'",
        "snatgw top --json --limit 10 | jq .gateway.packetsPerSecond",
    )
)
@click.option("--match", metavar="TEXT", help="Only flows that have all these words.")
@click.option("--vm", metavar="N", help="Only this VM's, by name or private address.")
@click.option("--public", metavar="IP", help="Only through this public IP.")
@click.option("--remote", metavar="IP[:PORT]", help="Only toward this remote.")
@click.option("--protocol", metavar="P", help="Tcp, Udp or Icmp.")
@click.option("--state", metavar="S", help="Opening, Established, Closing, Closed or CoolDown.")
@click.option(
    "--sort",
    metavar="F",
    default="-bytesPerSecond",
    show_default=True,
    help="Order by a field of the API; -F: the largest first.",
)
@click.option(
    "--limit", metavar="N", default=ROWS, show_default=True, help="Flows in the table, to 1000."
)
@click.option("--interval", metavar="S", help="Seconds from one sample to the next.  [default: 1]")
@json_option("one JSON object a sample, without end")
@api_option
def top(as_json: bool, api: str, **options: str | None) -> None:
    """Flows with live rates, SNAT ports as bars and events, on a whole screen.

    Keys are at the bottom of the screen: / filters while you type, < and > choose the order, p
    pauses, Enter shows a flow whole, ? explains. It works over SSH and at 80×24; with NO_COLOR set
    it has none.
    """
    query = {name: value for name, value in options.items() if value is not None}
    daemon = Daemon(api)
    if as_json:
        _print_samples(daemon, query)
        return
    next(daemon.lines("/v1/live", query))  # what is wrong with the query or the socket, now
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not terminal or os.environ.get("TERM") == "dumb":
        hint = "--json prints samples, `snatgw flows` the table once"
        raise Failure([f"this is no terminal that could show a screen: {hint}"])
    from gateway.tui.app import Top

    # Started by nohup or cron, it would go on without a screen, redrawing an invisible screen.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    Top(api, query).run()


def _print_samples(daemon: Daemon, query: dict[str, str]) -> None:
    try:
        for sample in daemon.lines("/v1/live", query, follow=True):
            click.echo(json.dumps(sample, ensure_ascii=False))
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
