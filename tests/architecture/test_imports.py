"""What may import what; import-linter checks the layers, these check what it cannot say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("shared", "client", "server", "simulations")
# The apps, their records, and what a deployment starts: docs/adr/0018.
AT_THE_EDGE = ("app.py", "records.py", "superlink.py", "supernode.py")
MODULES = sorted(p for folder in FOLDERS for p in (ROOT / folder / "chorister").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_tree_has_modules_to_check() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_flower_is_imported_at_the_edge_only(path: Path) -> None:
    if "simulations" in path.parts or path.name in AT_THE_EDGE:
        return
    assert not {n for n in _imports(path) if n == "flwr" or n.startswith("flwr.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_simulations_know_simulated_randomness(path: Path) -> None:
    if "simulations" in path.parts:
        return
    assert "SimulatedRandomness" not in path.read_text(encoding="utf-8")


def test_there_is_one_namespace_and_no_package_marker() -> None:
    markers = [Path(f) / "chorister" / "__init__.py" for f in FOLDERS]
    assert not [str(m) for m in markers if (ROOT / m).exists()]


def test_the_servers_round_runs_without_torch() -> None:
    code = (
        "import sys; import chorister.server.round; "
        "bad = [m for m in ('torch', 'opacus', 'chorister.client') if m in sys.modules]; "
        "sys.exit(str(bad) if bad else 0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_check_can_be_switched_off(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not lines, f"assert vanishes under python -O: {path.name}, lines {lines}"
