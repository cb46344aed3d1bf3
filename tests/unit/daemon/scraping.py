"""A scrape without a daemon: a real engine's answer, as ``/metrics`` shows it."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.engine import Engine
from gateway.daemon.api_process.engine_client import Answer
from gateway.daemon.api_process.metrics import Scrape
from gateway.daemon.channel.api_messages import Kind, encode
from gateway.daemon.engine_process.requests_metrics import MetricsRequests

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def status_of(engine: Engine) -> dict[str, Any]:
    """What the daemon says besides; nothing was lost."""
    return {
        "version": "1.2.3",
        "pid": 1,
        "startedAt": "2026-01-31T12:00:00.000Z",
        "uptimeSeconds": 61.5,
        "timeScale": 60,
        **engine.status(0.0),
        "packets": 12,
        "queue": {
            "tcpNumber": 0, "otherNumber": 1, "handled": 12, "dropped": 0, "waiting": 0, "handlerErrors": 0,
            "kernelDropped": 3, "socketDropped": 0, "overflows": 1,
        },
        "events": {"lost": 0, "kept": 1, "unwritten": 0},
        "flowLogs": {"mode": "both", "waiting": 0, "lost": 0, "denialsNotLogged": 0, "unwritten": 0},
        "apiRestarts": 0,
    }  # fmt: skip


def answer_of(answers: MetricsRequests) -> tuple[Answer, int]:
    """The engine's answer to a scrape, and in how many slices it came."""
    answer, slices = Answer(), 0
    for step in answers.metrics({}):  # type: ignore[arg-type]
        slices += 1
        if step is None:
            continue
        kind, payload = step
        if kind is Kind.PART:
            answer.parts.append(encode(1, kind, payload))
        else:
            answer.result = payload
    return answer, slices


def scraped(engine: Engine, answers: MetricsRequests) -> str:
    """The text of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(status_of(engine), answer_of(answers)[0]))
    return generate_latest(registry).decode()


def samples(text: str) -> Samples:
    """Each sample of a scrape; two of the same name and labels fail."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; there must be one."""
    wanted = labels.items()
    chosen = [v for (n, have), v in found.items() if n == name and wanted <= dict(have).items()]
    assert chosen, f"no {name} with {labels}"
    return sum(chosen)
