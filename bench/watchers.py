"""Everybody who may look at a gateway at once: a dashboard, ``snatgw top``, a Prometheus.

``python -m bench.watchers ADDRESS:PORT`` asks what the dashboard's page asks (status and history,
then a stream of samples; a diagnosis and the probes at its start) and scrapes ``/metrics``, until
its standard input ends; it prints how many samples and scrapes came. ``watching`` starts that and
the real ``top``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.forwarders import HTTP, ROOT, Forwarder
from bench.namespaces import BenchError, inside

SCRAPE_EVERY = 1.0
"""Seconds; the lab's Prometheus scrapes every five, which a short measurement could miss."""
PATIENCE = 60.0


@contextmanager
def watching(gateway: Forwarder) -> Iterator[dict[str, int]]:
    """All of them; yields what they saw, known at the end.

    They would run on other machines: here they have the lowest priority, so that what is measured
    is what the gateway does for them rather than what they do.
    """
    here = [*inside(gateway.wires.gateway), "nice", "-n", "19"]
    page = [*here, sys.executable, "-m", "bench.watchers", HTTP]
    top = f"stty cols 120 rows 40; exec {sys.executable} -m gateway top --api {gateway.api}"
    terminal = [*here, "script", "-qfec", top, "/dev/null"]
    seen: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        started = []
        for command, output in ((page, subprocess.PIPE), (terminal, subprocess.DEVNULL)):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TERM": "xterm-256color"},
                stdin=subprocess.PIPE,
                stdout=output,
            )
            started.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield seen
        if started[1].poll() is not None:
            raise BenchError(f"snatgw top ended by itself, with status {started[1].returncode}")
        said, _ = started[0].communicate(timeout=PATIENCE)  # closes its input: it ends
        if started[0].returncode:
            raise BenchError("a watcher was refused")
        seen.update(json.loads(said))


def _get(address: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        raise BenchError(f"{path}: {response.status}")
    return response


class _Watchers:
    """What each asks, each in a thread of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.samples = self.scrapes = 0
        self.failed = False

    def start(self) -> None:
        for work in (self._page, self._panes, self._scraper):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, http.client.HTTPException, BenchError) as error:
            print(f"watcher: {error}", file=sys.stderr)
            self.failed = True

    def _page(self) -> None:
        for path in ("/v1/status", "/v1/history?seconds=900"):
            _get(self.address, path).read()
        for line in _get(self.address, "/v1/live?format=sse"):
            self.samples += line.startswith(b"data:")

    def _panes(self) -> None:
        for path in ("/v1/diagnose", "/v1/health"):
            _get(self.address, path).read()

    def _scraper(self) -> None:
        while True:
            _get(self.address, "/metrics").read()
            self.scrapes += 1
            time.sleep(SCRAPE_EVERY)


def main() -> None:
    watchers = _Watchers(sys.argv[1])
    watchers.start()
    select.select([sys.stdin], [], [])
    print(json.dumps({"samples": watchers.samples, "scrapes": watchers.scrapes}))
    sys.exit(watchers.failed)


if __name__ == "__main__":
    main()
