"""``snatgw events``: what happened, as a list or as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import counted, endpoint, flows_sentence
from gateway.schema.queries import QueryError, parse_limit, parse_since


@click.command(
    epilog=examples(
        "snatgw events --since 5m",
        "snatgw events --follow",
        "snatgw events --json --since 2026-01-31T12:00:00Z | jq .properties",
    )
)
@click.option(
    "--follow", is_flag=True, help="Continue with each event as it happens, until Ctrl-C."
)
@click.option("--since", metavar="T", help="From this time on (ISO 8601), or this long ago (5m).")
@click.option("--limit", metavar="N", help="The latest N of those that have happened.")
@json_option("one JSON object an event")
@api_option
def events(follow: bool, since: str | None, limit: str | None, as_json: bool, api: str) -> None:
    """What happened: exhausted SNAT ports, drops (sampled), overflow, reloads.

    With --follow alone: only what happens from now on. The last 10,000 events can be listed; the
    state directory's events.jsonl has more.
    """
    query: dict[str, str] = {}
    try:
        if since is not None:
            query["since"] = parse_since(since, datetime.now(UTC)).isoformat()
        if limit is not None:
            query["limit"] = str(parse_limit(limit))
    except QueryError as error:
        raise click.UsageError("\n".join(error.problems)) from None
    if follow:
        query["follow"] = "1"
    for event in Daemon(api).lines("/v1/events", query, follow=follow):
        click.echo(json.dumps(event, ensure_ascii=False) if as_json else sentence(event))
        if follow:
            sys.stdout.flush()


def sentence(event: dict[str, Any]) -> str:
    """An event as a line for people."""
    return f"{event['time']}  {event['level']:<13}  {in_words(event)}"


def in_words(event: dict[str, Any]) -> str:  # noqa: PLR0911
    """What happened, without when."""
    properties = event["properties"]
    if properties.get("eventDescription") == "Ports exhausted":
        public = properties["eventProperties"]["public ip address"]
        return (
            f"{properties['eventDescription']}: {properties['vm']} has no {properties['protocol']} "
            f"port left on {public} toward {endpoint(properties['remote'])}"
            f"{_times(properties['count'])}"
        )
    if properties.get("HealthEventType") == "HighSnatPortUsage":
        return (
            f"{properties['vm']} uses {properties['used']} of its {properties['allocated']} "
            f"{properties['protocol']} ports on {properties['Frontend Ip']}"
        )
    operation = event["operationName"]
    if event["category"] == "LoadBalancerProbeHealthStatus":
        return (
            f"{properties['vm']} is {properties['status'].lower()} by probe {properties['probe']}: "
            f"{properties['dipDownCount']} of {properties['totalDipCount']} VMs behind "
            f"{properties['publicIpAddress']}:{properties['port']} ({properties['rule']}) are down"
        )
    if event["category"] == "LoadBalancerHealthEvent":
        return f"{properties['HealthEventType']}: {properties['Description']}"
    if operation == "PacketsDropped":
        vm = "" if properties["vm"] is None else f"{properties['vm']} "
        rule = properties.get("rule")  # absent in what an earlier version wrote
        by = "" if rule is None else f" by {rule}"
        return (
            f"{properties['reason']}{by}: {vm}{_packet(properties)}{_times(properties['count'])}: "
            f"{properties['description']}"
        )
    if operation == "AllotmentReclaimed":
        return (
            f"{counted(properties['ports'], 'SNAT port')} of {properties['vm']} on "
            f"{properties['publicIp']} taken back; "
            f"{counted(properties['flowsBroken'], 'flow')} broken"
        )
    if operation == "FlowsEnded":
        return f"{counted(properties['flows'], 'flow')} ended: {properties['reason']}"
    if operation in ("HostChanged", "HostRestored", "HostFirewall"):
        return f"{operation}: {'; '.join(_of_host(properties)) or 'over'}"
    lines = properties.get("changes", properties.get("problems"))
    if lines is not None:
        refused = properties.get("refusedFlows", 0)
        flows = f"; {flows_sentence(refused, properties['endedFlows'])}" if refused else ""
        return f"{operation}: {'; '.join(lines) or 'nothing changed'}{flows}"
    details = ", ".join(f"{name} {value}" for name, value in properties.items())
    return f"{operation}: {details}"


def _packet(properties: dict[str, Any]) -> str:
    """Protocol and addresses, as far as the kernel did not drop it unseen."""
    if properties["source"] is None:
        return "dropped in the kernel"
    return f"{properties['protocol']} {properties['source']} → {properties['destination']}"


def _of_host(properties: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the host, and what is not any more."""
    yield from properties.get("problems", ())
    for line in properties.get("restored", ()):
        yield f"set again: {line.removesuffix(' was set again').rstrip(',')}"
    for interface in properties.get("interfaces", ()):
        yield f"created again, and set up again: {interface}"
    for line in properties.get("over", ()):
        yield f"over: {line}"


def _times(count: int) -> str:
    return "" if count == 1 else f" ({count} times)"
