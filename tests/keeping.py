"""``pytest --keep``: a failed network test's topology stands until its reader is done with it.

Before the fixtures of a failed test end, it prints what is there (namespaces, processes, files) and
the lines that enter it, and reads from the terminal: a namespace's name opens a shell in it, Enter
goes on. Everything is removed afterwards, as ever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.netns.datapath.topology import Namespaces


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep",
        action="store_true",
        help="on a failure keep the topology open, with shells in its namespaces",
    )


def check_option(config: pytest.Config) -> None:
    """Whoever is asked must be there: a terminal, and one process of tests."""
    if not config.getoption("--keep"):
        return
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
        raise pytest.UsageError("--keep is for one process: leave -n out")
    _use_terminal(config)
    if not os.isatty(0):
        raise pytest.UsageError("--keep asks in a terminal, and standard input is none")


def keep(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object]) -> None:
    """Show what stands, and wait; nothing stands where a topology could not be built."""
    if not node.config.getoption("--keep") or not Namespaces.standing:
        return
    _use_terminal(node.config)
    error = call.excinfo
    print(f"\n\n{node.nodeid} failed: {error.exconly() if error else 'why is not known'}")
    for net in Namespaces.standing:
        print("\n" + "\n".join(_lines(net)))
    _ask()


def _lines(net: Namespaces) -> list[str]:
    lines = []
    directory = getattr(net, "directory", None)
    if directory is not None:
        files = sorted(path.name for path in directory.iterdir())
        lines.append(f"files: {directory}: {' '.join(files) or 'none'}")
    for name in net.names:
        running = net.running(name)
        lines.append(f"{' '.join(net.command(name, 'bash'))}    # {name}; processes: {running}")
    return lines


def _ask() -> None:
    while True:
        print("\nA namespace's name opens a shell in it; Enter goes on and removes all: ", end="")
        sys.stdout.flush()
        wanted = sys.stdin.readline().strip()
        if not wanted:
            return
        shells = [net.command(wanted) for net in Namespaces.standing if wanted in net.names]
        if not shells:
            known = [name for net in Namespaces.standing for name in net.names]
            print(f"{wanted!r} is none of {' '.join(known)}")
        for inside in shells:
            shell = os.environ.get("SHELL") or shutil.which("bash") or "sh"
            subprocess.run([*inside, shell], check=False)


def _use_terminal(config: pytest.Config) -> None:
    """Output is not captured here, only input is. pytest captures again for the next test or
    fixture; to do so earlier would swallow what it prints itself."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend(in_=True)
