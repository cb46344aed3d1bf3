"""The lines at the top: the gateway in figures, and how the view itself fares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from gateway.cli.tables import size

FILTERS = ("vm", "public", "remote", "protocol", "state")
MOST_REASONS = 3
SLOW = 1.5
"""Seconds between samples from which the screen says how far apart they are."""


def figures(sample: Mapping[str, Any]) -> Text:
    """Flows, packets, bytes."""
    gateway = sample["gateway"]
    flows, most = gateway.get("flows") or 0, gateway.get("maximumFlows")
    text = Text()
    text.append(f"{flows:,} flow{'' if flows == 1 else 's'}", "bold")
    if most and flows >= 0.9 * most:
        text.append(f" of {most:,}", "bold red")
    text.append(f"  +{_rate(gateway.get('newFlowsPerSecond'))}/s")
    text.append(f"   {_rate(gateway.get('packetsPerSecond'))} pkt/s")
    text.append(f"   out {_rate(gateway.get('bytesOutPerSecond'))}B/s")
    text.append(f"  in {_rate(gateway.get('bytesInPerSecond'))}B/s")
    drops = gateway.get("dropsPerSecond")
    text.append(f"   drops {_rate(drops)}/s", "bold red" if drops else "")
    return text


def losses(sample: Mapping[str, Any]) -> Text:
    """When it was, dropped packets by reason, and what the kernel's queue lost."""
    gateway = sample["gateway"]
    drops = sorted(gateway.get("drops", {}).items(), key=lambda item: -item[1])
    parts = [f"{reason} {size(count)}" for reason, count in drops[:MOST_REASONS]]
    if len(drops) > MOST_REASONS:
        parts.append(f"and {len(drops) - MOST_REASONS} more")
    said = "dropped: " + ", ".join(parts) if parts else "nothing dropped"
    text = Text(f"{sample['time'][11:19]}Z  {said}", "dim")
    queue = gateway.get("queue", {})
    lost = sum(queue.get(name, 0) for name in ("kernelDropped", "socketDropped"))
    if lost:
        text.append(f"   lost by the queue: {size(lost)}", "bold red not dim")
    return text


def shown(sample: Mapping[str, Any], query: Mapping[str, str]) -> Text:
    """Which flows the table has."""
    flows = sample["flows"]
    rows, matching = len(flows["rows"]), flows["matching"]
    text = Text()
    words = query.get("match")
    filters = [f"{name} {query[name]}" for name in FILTERS if name in query]
    if words:
        filters.insert(0, f'"{words}"')
    if filters:
        text.append(f"{matching:,} of {flows['total']:,} match ")
        text.append(", ".join(filters), "bold")
        text.append("; ")
    if rows < matching:
        text.append(f"the first {rows:,} ")
    field = query["sort"]
    text.append(f"by {field.removeprefix('-')} {'▼' if field.startswith('-') else '▲'}")
    seconds = sample.get("sampleSeconds")
    if seconds is not None and seconds >= SLOW:
        text.append(f"; every {seconds:.0f} s")
    return text


def _rate(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f}" if 0 < value < 10 else size(round(value))


def paused(text: Text) -> Text:
    """The same, with a sign that the screen stands still."""
    return Text.assemble(("PAUSED", "bold reverse"), " ", text)
