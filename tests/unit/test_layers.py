"""Each layer imports only what is below it; the contracts stand in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = [
    ("core/engine.py", "gateway.daemon", "Each layer imports only what is below it"),
    ("core/engine.py", "time", "The core is sans-IO"),
    ("web/site.py", "gateway.model", "The dashboard knows the API's JSON only"),
    ("tui/app.py", "gateway.model.profile", "The terminal view knows the API's JSON only"),
    ("core/flows/flow.py", "gateway.core.engine", "The core's packages"),
    ("daemon/api_process/main.py", "gateway.daemon.prober.prober", "share the channel only"),
    ("daemon/api_process/main.py", "gateway.core.engine", "neither packets nor the host"),
    ("cli/flows.py", "gateway.core.engine", "The command line knows the schema, not the core"),
    ("schema/records.py", "gateway.core.events", "The schema knows neither core nor daemon"),
]
"""A module, what it may not import, and the contract that says so: one of each."""


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--no-cache"], cwd=directory, capture_output=True, text=True, check=False
    )


def test_no_import_runs_upwards() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("module", "imported", "contract"), FORBIDDEN)
def test_its_contract_notices_one_that_does(
    module: str, imported: str, contract: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / "gateway", tmp_path / "gateway", ignore=lambda _, names: {"__pycache__", "page"}
    )
    with (tmp_path / "gateway" / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert any(contract in line for line in broken), result.stdout
