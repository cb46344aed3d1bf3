"""``snatgw explain``: what would happen to a packet, and why, as a short story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import Column, plain_lines
from gateway.schema.explain_query import ExplainQuery
from gateway.schema.queries import QueryError

OPTIONS = {"fromPort": "--from-port", "vm": "--vm", "to": "--to", "from": "--from"}
COLOURS = {"Allow": "green", "Deny": "red", "Drop": "yellow"}
_STEPS = (Column(""), Column(""), Column(""))


@click.command(
    epilog=examples(
        "snatgw explain --vm vm1 --to 198.51.100.7:443/tcp",
        "snatgw explain --vm vm1 --to 198.51.100.1/icmp --json",
        "snatgw explain --vm vm1 --to 203.0.113.20:80/tcp --trace",
        "snatgw explain --inbound --from 198.51.100.7:50000 --to 203.0.113.30:22/tcp",
    )
)
@click.option("--vm", metavar="N", help="The VM that sends, by name or private address.")
@click.option(
    "--to",
    metavar="IP:PORT/P",
    required=True,
    help="Where to; P is tcp or udp, or, without a port, icmp.",
)
@click.option("--from-port", metavar="P", help="The VM's source port.  [default: one without flow]")
@click.option("--inbound", is_flag=True, help="From outside to a public IP, instead of from a VM.")
@click.option("--from", "remote", metavar="IP:PORT", help="The sender outside (icmp: IP).")
@click.option("--trace", is_flag=True, help="List the stages that the packet would pass.")
@json_option("one JSON object")
@api_option
def explain(
    vm: str | None,
    to: str,
    from_port: str | None,
    inbound: bool,
    remote: str | None,
    trace: bool,
    as_json: bool,
    api: str,
) -> None:
    """What would happen to a packet that opens a flow, and why.

    Shows the rule that decides at each level of network security groups, the outbound method, and
    the public IPs that the flow could get with the SNAT ports free toward its destination. The code
    that evaluates packets answers; nothing is sent, allocated or counted. The exit status is 0
    whatever the verdict.
    """
    values = {
        "vm": vm,
        "to": to,
        "fromPort": from_port,
        "inbound": "1" if inbound else None,
        "from": remote,
        "trace": "1" if trace else None,
    }
    query = {name: value for name, value in values.items() if value is not None}
    try:
        ExplainQuery.parse(query)
    except QueryError as error:
        raise click.UsageError("\n".join(map(_with_option, error.problems))) from None
    document = Daemon(api).one("GET", f"/v1/explain?{urlencode(query)}")
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    sender = remote if inbound else vm if from_port is None else f"{vm}:{from_port}"
    click.echo(f"{sender} → {to}")
    steps = list(_steps(document))
    if steps:
        for line in list(plain_lines(_STEPS, steps))[1:]:
            click.echo(f"  {line}")
    for line in list(plain_lines(_STEPS, list(_stages(document))))[1:]:
        click.echo(f"  {line}")
    verdict = document["verdict"]
    click.echo(f"{click.style(verdict, fg=COLOURS.get(verdict), bold=True)}: {document['reason']}")


def _with_option(problem: str) -> str:
    name, colon, rest = problem.partition(":")
    return f"{OPTIONS.get(name, name)}{colon}{rest}"


def _steps(document: dict[str, Any]) -> Iterator[list[str]]:
    for judgement in document["networkSecurityGroups"]:
        default = " (default rule)" if judgement["default"] else ""
        yield [
            judgement["level"],
            judgement["name"],
            f"{judgement['rule']}{default}: {judgement['access']}",
        ]
    if document["method"] is not None:
        yield ["method", document["method"], ""]
    for candidate in document["candidates"]:
        yield ["public IP", candidate["publicIp"], _ports(candidate["portsFree"])]
    backend = document.get("backend")
    if backend is not None:
        to = f"{backend['vm'] or 'none'} {backend['ip'] or '*'}:{backend['port']}"
        up = f"{backend['healthy']} of {backend['total']} up"
        yield ["backend", to, f"{backend['loadBalancer']}/{backend['rule']}, {up}"]
    if document["existingFlow"] is not None:
        yield ["flow", str(document["existingFlow"]), "is live"]


def _stages(document: dict[str, Any]) -> Iterator[list[str]]:
    for step in document.get("trace", ()):
        yield [step["stage"], step["result"], step["detail"]]


def _ports(free: int | None) -> str:
    if free is None:
        return "needs no SNAT port"
    return f"{free} SNAT port{'' if free == 1 else 's'} free toward the destination"
