"""A run's record, run.json: checked against its schema whenever it is written or read."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema

from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically

SCHEMA = "run.schema.json"
FORMAT_VERSION = 1


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of run.json, the one that docs/ shows."""
    text = files("chorister.simulations").joinpath(SCHEMA).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def write_run(path: Path, run: dict[str, Any]) -> None:
    """Write a run's record whole or not at all.

    Args:
        path: where, usually OUT/run.json.
        run: plain data; numbers that are not finite become null.

    Raises:
        ValueError: it does not fit the schema, which is a defect of the simulation.
        OSError: it could not be written; the old file is untouched.
    """
    plain = _finite(run)
    problem = _problem(plain)
    if problem is not None:
        raise ValueError(f"run.json does not fit its schema: {problem}")
    write_atomically(path, (json.dumps(plain, indent=2) + "\n").encode(), mode=0o644)


def read_run(path: Path) -> dict[str, Any]:
    """Return a run's record.

    Raises:
        UsageError: there is none, it is no JSON, of another format, or does not fit the schema.
    """
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            "A run folder has a run.json.",
            f"none in '{path.parent}'",
            "Give the folder that `chorister simulate --out` wrote.",
        ) from None
    except ValueError:
        raise _unfit(path, "a file that is not JSON") from None
    found = plain.get("format_version") if isinstance(plain, dict) else None
    if found != FORMAT_VERSION:
        raise UsageError(
            f"This version reads run.json of format {FORMAT_VERSION}.",
            f"format {found!r} in '{path}'",
            "Read it with the version of Chorister that wrote it.",
        )
    problem = _problem(plain)
    if problem is not None:
        raise _unfit(path, problem)
    return plain


def _problem(plain: Any) -> str | None:
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema()).iter_errors(plain)
    )
    return None if error is None else f"{error.json_path}: {error.message}"[:300]


def _unfit(path: Path, found: str) -> UsageError:
    return UsageError(
        "run.json follows its schema, docs/run.schema.json.",
        f"in '{path}' {found}",
        "Run the simulation again, or restore the file.",
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
