"""``scripts/bench``: its options, its order, its exit status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import checks, document, machine, table
from bench.forwarders import forwarder
from bench.loads import Loads
from bench.measurements import MEASUREMENTS, NEEDED
from bench.namespaces import BenchError, wires
from bench.session import Bench

EXAMPLES = """\
examples:
  sudo scripts/bench                              everything, about ten minutes sudo scripts/bench
  --quick --json bench.json    all but the million flows, coarser, in three minutes sudo
  scripts/bench --only packets --seconds 2   only the packet rates, longer sudo scripts/bench --only
  engine                the engine by itself

Exit status: 0 all targets reached, 1 a target missed or a measurement failed, 2 wrong usage.
docs/benchmarks.md says what each row means.
"""
SECONDS, ROUNDS = 0.6, 9
QUICK_SECONDS, QUICK_ROUNDS = 0.3, 2
SLOW = ("million",)
"""Takes two minutes by itself: with --quick only if it is asked for."""
LIMIT = 5.0  # seconds a measurement may be asked to last


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the gateway next to the kernel and to a bare NFQUEUE loop.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--only",
        metavar="NAME,…",
        type=_names,
        help=f"measure these alone: {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there as JSON")
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        help=f"how long a measurement lasts in each round (default {SECONDS:g}; with --quick "
        f"{QUICK_SECONDS:g}; at most {LIMIT:g})",
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(MEASUREMENTS)}")
    return [name for name in MEASUREMENTS if name in names]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to {LIMIT:g}")
    return seconds


def main() -> int:
    chosen = arguments()
    if os.geteuid() != 0:
        raise BenchError("it makes network namespaces: run it as root (sudo scripts/bench)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: everything is taken down
    seconds = chosen.seconds or (QUICK_SECONDS if chosen.quick else SECONDS)
    rounds = QUICK_ROUNDS if chosen.quick else ROUNDS
    facts = machine()
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {line}", file=sys.stderr, flush=True)

    if chosen.json is not None:
        chosen.json.touch()  # a place that cannot be written is better known now
    names = chosen.only or [n for n in MEASUREMENTS if not (chosen.quick and n in SLOW)]
    bench = _measure(names, seconds, rounds, say)
    facts["secondsTaken"] = round(time.monotonic() - start, 1)
    say("done")
    print(table(facts, bench.rows, bench.alone))
    for line in bench.failed:
        print(f"scripts/bench: {line}", file=sys.stderr)
    if chosen.json is not None:
        settings = {"seconds": seconds, "rounds": rounds, "only": names}
        written = document(facts, bench.rows, bench.alone, settings, bench.failed)
        chosen.json.write_text(json.dumps(written, indent=2) + "\n")
    reached = all(check.passed for check in checks(bench.rows, bench.alone))
    return 0 if reached and not bench.failed else 1


def _measure(names: list[str], seconds: float, rounds: int, say: Callable[[str], None]) -> Bench:
    needed = list(dict.fromkeys(gateway for name in names for gateway in NEEDED[name]))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snatgw-bench-")))
        directory.chmod(0o755)  # the daemon's API process is not root
        loads = Loads(directory)
        if needed:
            say("setting up")
        lines = stack.enter_context(wires(needed))
        gateways = {name: stack.enter_context(forwarder(lines[name], directory)) for name in needed}
        for gateway in gateways.values():
            stack.enter_context(loads.servers(gateway.wires))
        bench = Bench(loads, gateways, seconds, rounds, say)
        for name in names:
            try:
                MEASUREMENTS[name](bench)
            except BenchError as error:  # the others took long, and stand by themselves
                bench.failed.append(f"{name}: {error}")
        return bench


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError) as error:
        sys.exit(f"scripts/bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
