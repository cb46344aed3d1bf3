"""``/metrics``: what the engine answers to a scrape, as Prometheus's or OpenMetrics' text.
Runs in the API process.

Nothing is counted here. A scrape asks the engine for its totals and its status, ``Scrape`` gives
them names by Prometheus's conventions, and prometheus_client writes them in the format that the
client accepts, from a registry of the scrape's own. docs/metrics.md has the list, and which of
Azure Monitor's metrics each one is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gateway.daemon.api_process.engine_client import Answer, EngineClient
from gateway.schema.drop_reasons import DropReason

PREFIX = "snatgw_"
POOL_LABELS = ("vm", "public_ip", "protocol", "method", "awaiting_removal")
TRAFFIC_LABELS = ("public_ip", "method", "protocol", "direction")
RULE_LABELS = ("load_balancer", "rule", "public_ip", "frontend_port", "protocol")
DIRECTIONS = ("outbound", "inbound")

Sample = tuple[tuple[str, ...], float]
Endpoint = Callable[[Request], Awaitable[Response]]


def metrics_endpoint(
    engine: EngineClient, status: Callable[[], Awaitable[dict[str, Any]]]
) -> Endpoint:
    """The handler of ``/metrics``; ``status`` gives what ``/v1/status`` shows."""

    async def metrics(request: Request) -> Response:
        answer = await engine.metrics()
        document = await status()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Scrape(document, answer))
        ProcessCollector("snatgw_engine", lambda: document["pid"], registry=registry)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return metrics


class Scrape(Collector):
    """One scrape's numbers as metric families."""

    def __init__(self, status: Mapping[str, Any], answer: Answer) -> None:
        self._status = status
        self._single: dict[str, Any] = answer.result
        self._rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for section, rows in answer.records():
            self._rows[section] += rows

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._gateway()
        yield from self._flows()
        yield from self._ports()
        yield from self._traffic()
        yield from self._backends()
        yield from self._packets()
        yield from self._lost()

    def _gateway(self) -> Iterator[Metric]:
        status = self._status
        info = {"version": status["version"], "profile": status["profile"]}
        yield InfoMetricFamily("snatgw_build", "The gateway's version and profile.", info)
        started = datetime.fromisoformat(status["startedAt"]).timestamp()
        yield _gauge("start_time_seconds", "Unix time at which the gateway started.", started)
        yield _gauge("uptime_seconds", "Real seconds since it started.", status["uptimeSeconds"])
        scale = "Azure's seconds that pass in a real one (gateway.timeScale)."
        yield _gauge("time_scale_ratio", scale, status["timeScale"])
        yield _gauge("virtual_machines", "VMs that it knows.", status["virtualMachines"])
        restarts = "Times that the API process ended and was started again."
        yield _counter("api_restarts_total", restarts, status["apiRestarts"])

    def _flows(self) -> Iterator[Metric]:
        yield _labelled(
            GaugeMetricFamily,
            "flows",
            "Flows in the table; CoolDown: ended, and their SNAT port still held.",
            ("method", "protocol", "state"),
            (((method, p, state), n) for method, p, state, n in self._rows["flows"]),
        )
        single = self._single
        limit = "The most flows that there may be (gateway.maximumFlows)."
        yield _gauge("flows_limit", limit, self._status["maximumFlows"])
        yield _counter("flows_opened_total", "Flows that ever opened.", single["opened"])
        ended = single["opened"] - single["live"]
        yield _counter("flows_ended_total", "Flows that left the table.", ended)
        lag = "Azure's seconds by which the oldest timer to check is overdue."
        yield _gauge("expiry_lag_seconds", lag, single["expiryLag"])

    def _ports(self) -> Iterator[Metric]:
        pools = self._rows["ports"]

        def gauge(name: str, text: str, position: int) -> Metric:
            rows = ((_pool_labels(row), row[position]) for row in pools)
            return _labelled(GaugeMetricFamily, name, text, POOL_LABELS, rows)

        yield gauge("snat_pools", "Port pools that a series stands for: 1, but for vm=other.", 5)
        yield gauge("snat_allocated_ports", "SNAT ports allocated (AllocatedSnatPorts).", 6)
        yield gauge("snat_used_ports", "SNAT ports that a flow holds (UsedSnatPorts).", 7)
        yield gauge("snat_flows_in_cooldown", "Ended flows that still hold a SNAT port.", 8)
        yield gauge("snat_high_water_ports", "The most SNAT ports that were ever in use.", 9)
        usage = "Used by allocated SNAT ports; for vm=other the largest of any pool."
        yield gauge("snat_usage_ratio", usage, 10)
        yield _labelled(
            CounterMetricFamily,
            "snat_connections_total",
            "Flows that got a SNAT port, and packets dropped because none was free "
            "(SnatConnectionCount).",
            ("vm", "public_ip", "protocol", "connection_state"),
            (
                ((vm, public, protocol, state), count)
                for vm, public, protocol, *counts in self._rows["connections"]
                for state, count in zip(("successful", "failed"), counts, strict=True)
            ),
        )

    def _traffic(self) -> Iterator[Metric]:
        rows = self._rows["traffic"]

        def counter(name: str, text: str, positions: tuple[int, int]) -> Metric:
            samples = (
                ((*row[:3], direction), row[position])
                for row in rows
                for direction, position in zip(DIRECTIONS, positions, strict=True)
            )
            return _labelled(CounterMetricFamily, name, text, TRAFFIC_LABELS, samples)

        yield counter("traffic_packets_total", "Packets of flows (PacketCount).", (3, 5))
        octets = "Bytes of flows' IP packets (ByteCount)."
        yield counter("traffic_bytes_total", octets, (4, 6))
        rows = [row for row in rows if row[2] == "Tcp"]
        syns = "TCP segments with SYN and without ACK that went on (SYNCount)."
        yield counter("traffic_syn_packets_total", syns, (7, 8))

    def _backends(self) -> Iterator[Metric]:
        rules = self._rows["balanced"]

        def gauge(name: str, text: str, position: int) -> Metric:
            samples = ((row[:5], row[position]) for row in rules)
            return _labelled(GaugeMetricFamily, name, text, RULE_LABELS, samples)

        yield gauge("rule_backends", "VMs behind a load balancing rule.", 5)
        healthy = "Of these, those that new flows can go to; 0: none is answered."
        yield gauge("rule_healthy_backends", healthy, 6)
        yield _labelled(
            GaugeMetricFamily,
            "backend_up",
            "Whether the rule's health probe finds the VM up (DipAvailability).",
            (*RULE_LABELS, "vm", "backend_port"),
            ((row[:7], row[7]) for row in self._rows["backends"]),
        )

    def _packets(self) -> Iterator[Metric]:
        yield _counter(
            "packets_total", "Packets that the engine evaluated.", self._status["packets"]
        )
        drops = self._status["drops"]
        yield _labelled(
            CounterMetricFamily,
            "dropped_packets_total",
            "Packets that were dropped, by reason: by the engine, and by the kernel for it.",
            ("reason",),
            (((reason.value,), drops.get(reason.value, 0)) for reason in DropReason),
        )
        yield _labelled(
            CounterMetricFamily,
            "nsg_rule_hits_total",
            "Flows that a rule of a network security group decided.",
            ("network_security_group", "direction", "rule", "access"),
            ((row[:4], row[4]) for row in self._rows["rules"]),
        )

    def _lost(self) -> Iterator[Metric]:
        """What must be zero."""
        queue, logs = self._status["queue"], self._status["flowLogs"]
        events = self._status["events"]
        causes = (("kernel", "kernelDropped"), ("socket", "socketDropped"))
        yield _labelled(
            CounterMetricFamily,
            "queue_lost_packets_total",
            "Packets lost before the engine saw them: the queue, or its socket, was full.",
            ("cause",),
            (((cause,), queue[name]) for cause, name in causes if name in queue),
        )
        if queue:
            overflows = "Times that the queue's socket reported lost packets."
            yield _counter("queue_overflows_total", overflows, queue["overflows"])
            waiting = "Packets that wait in the kernel's queue."
            yield _gauge("queue_waiting_packets", waiting, queue["waiting"])
            errors = "Packets dropped because of an internal error."
            yield _counter("handler_errors_total", errors, queue["handlerErrors"])
        yield _counter(
            "events_lost_total",
            "Events that found no room on their way to the API process.",
            events["lost"],
        )
        unwritten = "Events that could not be written to the log file."
        yield _counter("events_unwritten_total", unwritten, events["unwritten"])
        restarts = "Times that the process that sends health probes was started again."
        probes = self._status.get("healthProbes", {})
        yield _counter("prober_restarts_total", restarts, probes.get("restarts", 0))
        if logs["mode"] != "off":
            lost = "Flow log entries that found no room on their way to the API process."
            yield _counter("flow_log_lost_entries_total", lost, logs["lost"])
            unwritten = "Flow log entries that could not be written."
            yield _counter("flow_log_unwritten_entries_total", unwritten, logs["unwritten"])


def _pool_labels(row: tuple[Any, ...]) -> tuple[str, ...]:
    vm, public, protocol, method, retired = row[:5]
    return vm, public, protocol, method, "true" if retired else "false"


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    samples: Iterable[Sample],
) -> Metric:
    family = kind(PREFIX + name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
