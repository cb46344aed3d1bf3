"""Each layer imports only what is below it; the contracts stand in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--no-cache"], cwd=directory, capture_output=True, text=True, check=False
    )


def test_no_import_runs_upwards() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_notices_one_that_does(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for module in (ROOT / "gateway").rglob("__init__.py"):
        copy = tmp_path / module.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        copy.touch()
    (tmp_path / "gateway/core/engine.py").write_text("import gateway.daemon\n")
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    assert "gateway.core is not allowed to import gateway.daemon" in result.stdout
