"""``snatgw run``: the daemon in the foreground, from a file or from three flags."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.options import Failure, api_option, examples

if TYPE_CHECKING:
    from gateway.model.reading.load import Loaded


def _list(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """``--inside a,b --inside c`` is a, b, c."""
    items = [item.strip() for value in values for item in value.split(",")]
    if "" in items:
        raise click.BadParameter("an item of the list is empty", ctx, param)
    return items


@click.command(
    epilog=examples(
        "snatgw run -c /etc/snatgw/snatgw.yaml",
        "snatgw run -c /etc/snatgw/snatgw.yaml --inside eth2 --outside eth1",
        "snatgw run --inside lan0 --outside wan0 --public-ip 203.0.113.10",
        "snatgw run --inside lan0,lan1 --outside wan0 --public-ip 203.0.113.10 --time-scale 60",
    )
)
@click.option("-c", "--config", "file", metavar="FILE", help="The configuration.")
@click.option("--inside", multiple=True, callback=_list, metavar="IF[,IF]", help="Toward the VMs.")
@click.option("--outside", metavar="IF", help="Toward the internet.")
@click.option(
    "--public-ip",
    "public_ips",
    multiple=True,
    callback=_list,
    metavar="IP[,IP]",
    help="The addresses of default SNAT.",
)
@click.option(
    "--internet-prefix",
    "internet_prefixes",
    multiple=True,
    callback=_list,
    metavar="CIDR[,CIDR]",
    help="Private ranges that count as internet.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="N",
    help="Seconds of Azure's timers that pass in a second.",
)
@click.option(
    "--state-directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where logs and state are kept.  [default: /var/lib/snatgw]",
)
@click.option("--maximum-flows", type=click.IntRange(1, 100_000_000), metavar="N")
@click.option("--http", metavar="IP:PORT", help="Dashboard and metrics, as in 127.0.0.1:8480.")
@click.option("--icmp-echo", type=click.Choice(["drop", "translate"]), help="Ping through SNAT.")
@api_option
def run(
    file: str | None,
    inside: list[str],
    outside: str | None,
    public_ips: list[str],
    internet_prefixes: list[str],
    api: str,
    **settings: Any,
) -> None:
    """Run the gateway in the foreground.

    With --inside, --outside and --public-ip no file is needed: every source behind an inside
    interface is a standalone VM with default SNAT. With a file, --inside and --outside stand for
    the interfaces that it names, where these differ from host to host.

    Prints a line that starts with "ready" once packets flow. SIGTERM and Ctrl-C end it and remove
    its rules; SIGHUP and `snatgw reload` apply a changed file.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if file is not None:
        if public_ips or internet_prefixes or given:
            raise click.UsageError(
                "beside --config only --inside, --outside and --api: the rest is in the file"
            )
    elif not inside or not outside or not public_ips:
        raise click.UsageError("either --config FILE, or --inside, --outside and --public-ip")

    from gateway.daemon.engine_process.host import LinuxHost
    from gateway.daemon.start.startup import Start
    from gateway.daemon.start.startup import run as run_gateway
    from gateway.model.reading.load import Interfaces, load
    from gateway.web.site import Site

    interfaces = Interfaces(tuple(inside), outside)

    def read() -> Loaded:
        if file is not None:
            return load(file, interfaces)
        assert outside is not None
        return _from_flags(inside, outside, public_ips, internet_prefixes, given)

    path = None if file is None else Path(file)
    start = Start(read, path, Path(api), Site.load(), interfaces)
    sys.exit(_undisturbed(lambda: run_gateway(start, LinuxHost())))


def _undisturbed(daemon: Callable[[], int]) -> int:
    """The daemon's exit status. It takes the signals while it runs, and after a good end no process
    does: a second Ctrl-C would make an interrupted one of it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    status = 1
    try:
        status = daemon()
    finally:
        if status:
            for number, handler in before:
                signal.signal(number, handler)
    return status


def _from_flags(
    inside: list[str],
    outside: str,
    public_ips: list[str],
    internet_prefixes: list[str],
    given: dict[str, Any],
) -> Loaded:
    from gateway.daemon.start.default_configuration import NoNetworkError, from_flags

    names = {
        "time_scale": "timeScale",
        "state_directory": "stateDirectory",
        "maximum_flows": "maximumFlows",
        "http": "http",
        "icmp_echo": "icmpEcho",
    }
    settings = {
        names[name]: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in given.items()
    }
    try:
        return from_flags(
            inside, outside, public_ips, internet_prefixes=internet_prefixes, settings=settings
        )
    except NoNetworkError as error:
        raise Failure(error.problems) from None
