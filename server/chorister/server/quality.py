"""What was measured of shared adapters on held-out speech: noted by whoever measured it.

A server has no speech and no model, so it measures nothing itself; it shows what it is told.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from chorister.server.registry import Registry
from chorister.server.server_folder import ServerFolder
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.files import write_atomically

QUALITY_FILE = "quality.jsonl"
MAX_NAME = 60


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one version.

    Attributes:
        adapter: its digest.
        name: of the figure, with its unit, e.g. 'held-out loss' or 'MCD, dB'.
        value: finite.
        at_s: when it was noted, Unix time.
    """

    adapter: str
    name: str
    value: float
    at_s: int


def note_quality(folder: ServerFolder, adapter: str, name: str, value: float, at_s: int) -> str:
    """Keep a measured figure of a version, and return the version's digest.

    Args:
        folder: of the server.
        adapter: digest, or as many of its first digits as name one version.
        name: of the figure.
        value: finite.
        at_s: Unix time.

    Raises:
        UsageError: no such version, or no figure.
    """
    found = [v.sha256 for v in Registry(folder.adapters).versions() if v.sha256.startswith(adapter)]
    if len(adapter) < 8 or len(found) != 1:
        raise UsageError(
            "A figure belongs to one version, named by 8 or more digits of its digest.",
            f"'{adapter[:64]}', which names {len(found)}", "See `chorister server status`.",
        )  # fmt: skip
    if not math.isfinite(value) or not 1 <= len(name) <= MAX_NAME:
        raise UsageError(
            f"A figure has a name of 1 to {MAX_NAME} characters and a finite value.",
            f"'{name[:MAX_NAME]}', {value}", "Correct it.",
        )  # fmt: skip
    lines = [json.dumps(asdict(m)) for m in read_quality(folder)]
    lines.append(json.dumps(asdict(Measurement(found[0], name, value, at_s))))
    write_atomically(_path(folder), ("\n".join(lines) + "\n").encode())
    return found[0]


def read_quality(folder: ServerFolder) -> tuple[Measurement, ...]:
    """Return all figures, oldest first.

    Raises:
        BadLedger: a line is none.
    """
    path = _path(folder)
    if not path.exists():
        return ()
    try:
        lines = path.read_text("utf-8").splitlines()
        return tuple(Measurement(**json.loads(line)) for line in lines)
    except (ValueError, TypeError):
        raise BadLedger(
            f"{path.name} holds one figure a line.", "something else", "Restore it from a backup."
        ) from None


def _path(folder: ServerFolder) -> Path:
    return folder.state / QUALITY_FILE
