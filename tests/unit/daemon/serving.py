"""A daemon without a host: the real API and control channel over an engine made of records."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import uvicorn

from gateway.core.engine import Engine
from gateway.core.established import PacketHandler
from gateway.daemon.api_process.capture.streams import CaptureStreams
from gateway.daemon.api_process.engine_client import EngineClient
from gateway.daemon.api_process.event_log import EventLog
from gateway.daemon.api_process.live.poller import LivePoller
from gateway.daemon.api_process.routes import Events, application
from gateway.daemon.channel.api_messages import REQUESTS, Kind
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.probe_supervisor import ProbeSupervisor
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.requests import RequestHandler, Requests, at_once, later, nothing
from gateway.daemon.engine_process.requests_capture import CaptureRequests
from gateway.daemon.engine_process.requests_listings import ListingRequests
from gateway.daemon.engine_process.requests_metrics import MetricsRequests
from gateway.daemon.engine_process.requests_reload import enforces
from gateway.daemon.engine_process.requests_security import SecurityRequests
from gateway.model.reading.load import load_text
from gateway.schema.records import FlowRecord, PortRecord
from tests.unit.daemon.scraping import status_of


def flow(number: int, **changes: Any) -> FlowRecord:
    """An established TCP flow of vm1 toward 198.51.100.7:443, changed as said."""
    record = FlowRecord(
        id=number,
        protocol=6,
        state="Established",
        direction="Outbound",
        method="DefaultOutboundAccess",
        vm="vm1",
        private_ip="10.0.1.4",
        private_port=40000 + number,
        public_ip="203.0.113.10",
        public_port=1024 + number,
        remote_ip="198.51.100.7",
        remote_port=443,
        packets_out=3,
        bytes_out=180,
        packets_in=2,
        bytes_in=120,
        age=12.34567,
        idle=1.0,
        expires_in=239.0,
        awaiting_removal=False,
        offloaded=False,
    )
    return record._replace(**changes)


def pool(vm: str, **changes: Any) -> PortRecord:
    """A TCP port pool of 1,024 with three in use toward one address."""
    record = PortRecord(
        vm=vm,
        public_ip="203.0.113.10",
        protocol="Tcp",
        method="DefaultOutboundAccess",
        allocated=1024,
        used=3,
        free=1021,
        high_water=7,
        failed=0,
        destinations=(("198.51.100.7", None, 3),),
        cooling=1,
        ranges=((1032, 2055),),
        reserved=((1024, 1031),),
    )
    return record._replace(**changes)


class FakeEngine:
    """Listings from lists."""

    def __init__(self) -> None:
        self.flows: list[FlowRecord] = []
        self.ports: list[PortRecord | None] = []
        self.listings = 0

    def flow_records(self, now: Callable[[], float], count: int) -> Iterator[list[FlowRecord]]:
        self.listings += 1
        for start in range(0, len(self.flows), count):
            yield self.flows[start : start + count]

    def port_records(self, now: float) -> Iterator[PortRecord | None]:
        yield from self.ports


Answer = Callable[[Kind, Any], None]

NOTHING_DONE = {"warnings": [], "refusedFlows": 0, "endedFlows": 0}
GUARDED = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: subnet-nsg}
    - {name: data, addressPrefix: 10.0.2.0/24}
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-vm2, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
applicationSecurityGroups: [{name: writers}]
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4, applicationSecurityGroups: [writers]}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2, networkSecurityGroup: nic-nsg}
  - {name: vm3, privateIPAddress: 10.0.2.4}
networkSecurityGroups:
  - name: subnet-nsg
    securityRules:
      - {name: no-smtp, priority: 100, direction: Outbound, access: Deny, protocol: Tcp,
         sourceAddressPrefix: '*', sourcePortRange: '*',
         destinationAddressPrefix: Internet, destinationPortRange: '25'}
      - {name: some, priority: 110, direction: Inbound, access: Allow, protocol: '*',
         sourceAddressPrefixes: [198.51.100.0/24, 192.0.2.0/24], sourcePortRange: '*',
         destinationApplicationSecurityGroups: [writers], destinationPortRanges: ['22', 8000-8010]}
  - name: nic-nsg
"""
"""vm2 has groups at both levels, vm1 one on its subnet, vm3 none."""


def judging_engine(text: str = GUARDED) -> Engine:
    """A real engine, for what only it can answer."""
    loaded = load_text(text, "gateway.yaml")
    assert loaded.configuration is not None, loaded.problems
    return Engine(loaded.configuration, seed=1)


def requests_with(*tables: Mapping[str, RequestHandler]) -> Requests:
    """A whole table: what is not in these is answered with nothing."""
    given = {name for table in tables for name in table}
    others = {name: at_once(nothing, lambda _: None) for name in REQUESTS.keys() - given}
    return Requests(*tables, others)


class Served:
    """A serving API; ``post`` an event, set ``on_reload`` and the engine's lists as wanted."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.engine = FakeEngine()
        self.on_reload: Callable[[Answer], None] = lambda answer: answer(Kind.END, NOTHING_DONE)
        self.enforced: list[bool] = []
        self._judging = judging = judging_engine(text)
        loop: EventLoop = Mock(now=0.0)
        self.probes = ProbeSupervisor(judging, loop, self._start_prober, lambda line: None)
        self.probers: list[socket.socket] = []
        self.handlers = judging.handlers
        self.captures = CaptureRequests(
            judging,
            use_handlers=self._use_handlers,
            post=self._tell,
            spawn=lambda work: None,
        )
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.control = RequestChannel()
        self.control.requests = Requests(
            ListingRequests(self.engine, lambda: 0.0).handlers,
            SecurityRequests(judging).handlers,
            MetricsRequests(judging, lambda: 0.0).handlers,
            self.captures.handlers,
            self.probes.handlers,
            {
                "status": at_once(nothing, self._status),
                "reload": later(enforces, self._reload),
            },
        )
        self._packets: list[tuple[bytes, int]] = []
        self._posted: list[dict[str, Any]] = []
        self.log: EventLog | None = None

    def _start_prober(self, theirs: socket.socket) -> None:
        self.probers.append(theirs.dup())

    def _reload(self, enforce: bool, answer: Answer) -> None:
        self.enforced.append(enforce)
        self.on_reload(answer)

    def _status(self, _: None) -> dict[str, Any]:
        return status_of(self._judging) | {
            "flows": len(self.engine.flows),
            "pid": os.getpid(),
            "drops": {"Malformed": 2},
        }

    def _use_handlers(self, handlers: tuple[PacketHandler, ...]) -> None:
        self.handlers = handlers
        self.control.captured = self.captures.next_message if self.captures.running else None

    def _tell(self, operation: str, level: str, properties: dict[str, Any]) -> None:
        self.told.append((operation, properties))

    def handle(self, packet: bytes, arrival: int) -> None:
        """Have the judging engine handle a packet, soon."""
        self._packets.append((packet, arrival))

    def post(self, event: dict[str, Any]) -> None:
        """Have the engine's side tell of an event."""
        self._posted.append(event)

    def pump(self, ended: threading.Event) -> None:
        """The engine's loop, without packets."""
        while not ended.is_set():
            while self._posted:
                self.control.post(self._posted.pop(0))
            while self._packets:
                packet, arrival = self._packets.pop(0)
                self.handlers[arrival](packet, 0.0)
            assert self.control.read()
            assert self.control.work()
            if not self.control.has_work:
                select.select([self.control.fileno()], [], [], 0.01)


@contextmanager
def served(directory: Path, text: str = GUARDED) -> Iterator[Served]:
    """An API on ``directory``/api.sock until the end of the block."""
    path = directory / "api.sock"
    daemon = Served(path, text)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon.control.connect(ours)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(16)
    ended, ready = threading.Event(), threading.Event()
    server: list[uvicorn.Server] = []

    async def serve() -> None:
        daemon.log = EventLog(directory / "events.jsonl")
        events = Events(daemon.log)
        engine = EngineClient(theirs, on_events=events.add, on_gone=lambda: None)
        engine.start()
        sampler = LivePoller(engine, daemon.log)
        sampling = asyncio.create_task(sampler.run())
        configuration = uvicorn.Config(
            application(engine, events, captures=CaptureStreams(engine), sampler=sampler),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server.append(uvicorn.Server(configuration))
        ready.set()
        await server[0].serve(sockets=[listener])
        sampling.cancel()

    threads = [
        threading.Thread(target=daemon.pump, args=(ended,)),
        threading.Thread(target=lambda: asyncio.run(serve())),
    ]
    for thread in threads:
        thread.start()
    try:
        assert ready.wait(30)
        yield daemon
    finally:
        server[0].should_exit = True
        threads[1].join(30)
        ended.set()
        threads[0].join(30)
        daemon.control.disconnect()
        theirs.close()
        listener.close()
