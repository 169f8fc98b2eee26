"""One small federation on real Flower, as a command in its own process, shared by tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCENARIO = """
description = "small enough for a test"
clients = 4
held_out_share = 0.34
personalise = 0
shift = "microphone"

[federation]
rounds = 2

[federation.training]
local_steps = 2
expected_batch_size = 4

[dropout]
masked = 0.1
"""


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of `chorister` under this interpreter."""
    code = "import sys; from chorister.shared.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command of Chorister to its end."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return done


def record(out: Path) -> dict[str, Any]:
    """Return run.json of a run."""
    found: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario file."""
    path = tmp_path_factory.mktemp("scenario") / "tiny.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def undisturbed(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the scenario, run once from beginning to end."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run("simulate", scenario, "--out", out)
    return out


@pytest.fixture
def simulate(scenario: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run the scenario with more options, and return its output folder."""

    def go(*options: str | Path) -> Path:
        out = tmp_path / "out"
        run("simulate", scenario, "--out", out, *options)
        return out

    return go


def beside(name: str) -> ModuleType:
    """Return the module NAME.py beside this file, loaded anew."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def town() -> ModuleType:
    """The module deployment.py."""
    return beside("deployment")


@pytest.fixture(scope="module")
def lines() -> ModuleType:
    """The module line.py."""
    return beside("line")


@pytest.fixture(scope="session")
def passage() -> tuple[str, ...]:
    """What a synthesiser reads for an enrolment: half a minute of speech in four sentences."""
    return (
        "The north wind and the sun were disputing which was the stronger, when a traveller came "
        "along wrapped in a warm cloak.",
        "They agreed that the one who first succeeded in making the traveller take his cloak off "
        "should be considered stronger than the other.",
        "Then the north wind blew as hard as he could, but the more he blew the more closely did "
        "the traveller fold his cloak around him.",
        "At last the north wind gave up the attempt. Then the sun shone out warmly, and "
        "immediately the traveller took off his cloak.",
    )
