"""The output folder of a run: where everything lies, and what a resumed run may build on.

run.json  metrics.csv  ledger.jsonl  voice.onnx  report.html  adapters/  samples/
state/plan.json            what was asked for; a resumed run must ask for the same
state/world.json           the speakers and their files
state/rounds.jsonl         one line a finished or aborted round: the commit point of each
state/server/              the server's own files
state/devices/NAME/        a simulated device: its vault, budget and ledger
baselines/NAME/            the same layout for a baseline
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths below one output folder.

    Attributes:
        root: the folder itself.
    """

    root: Path

    @property
    def state(self) -> Path:
        """What a resumed run needs."""
        return self.root / "state"

    @property
    def plan(self) -> Path:
        """What was asked for."""
        return self.state / "plan.json"

    @property
    def world(self) -> Path:
        """The speakers and their files."""
        return self.state / "world.json"

    @property
    def rounds(self) -> Path:
        """One line a round."""
        return self.state / "rounds.jsonl"

    @property
    def server(self) -> Path:
        """The server's own files."""
        return self.state / "server"

    @property
    def ledger(self) -> Path:
        """The server's ledger."""
        return self.root / "ledger.jsonl"

    @property
    def adapters(self) -> Path:
        """All versions of the shared adapter."""
        return self.root / "adapters"

    @property
    def samples(self) -> Path:
        """Audio to listen to."""
        return self.root / "samples"

    @property
    def voice(self) -> Path:
        """The exported voice."""
        return self.root / "voice.onnx"

    def discard(self) -> None:
        """Take back what a new run has written: it never began."""
        shutil.rmtree(self.state, ignore_errors=True)
        with suppress(OSError):
            self.root.rmdir()

    def device(self, name: str) -> Path:
        """The folder of one simulated device."""
        return self.state / "devices" / name

    def baseline(self, name: str) -> RunFolder:
        """The folder of one baseline run."""
        return RunFolder(self.root / "baselines" / name)

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON atomically.

        Raises:
            UsageError: the disk is full or the folder cannot be written.
        """
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
        try:
            write_atomically(path, text.encode(), mode=0o644)
        except OSError as error:
            raise cannot_write(path, error) from None


def open_folder(out: Path, plan: dict[str, Any], *, resume: bool) -> RunFolder:
    """Return the folder of a new run, or of one to go on with.

    Args:
        out: the output folder.
        plan: what is asked for, plain JSON.
        resume: go on after the last finished round.

    Raises:
        UsageError: a new run into a folder that is not empty; a resumed run without one, or with
            another plan; a folder that cannot be written.
    """
    folder = RunFolder(out)
    if resume:
        _check_same_plan(folder, plan)
        return folder
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "An output folder is empty or not there yet.",
            f"{out} with files in it",
            "Choose another --out, or go on with that run by --resume.",
        )
    try:
        folder.state.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    folder.write_json(folder.plan, plan)
    return folder


def open_baseline(folder: RunFolder, name: str) -> RunFolder:
    """Return the folder of a baseline, new or as an interrupted run left it."""
    child = folder.baseline(name)
    child.state.mkdir(parents=True, exist_ok=True)
    return child


def check_room(out: Path, needed_bytes: int) -> None:
    """Return if the disk has room for a run's output.

    Raises:
        UsageError: it has not.
    """
    where = out.absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if free < needed_bytes:
        raise UsageError(
            f"A run needs {needed_bytes / 2**20:.0f} MiB of disk.",
            f"{free / 2**20:.0f} MiB free at {where}",
            "Free some, or choose another --out.",
        )


def cannot_write(path: Path, error: OSError) -> UsageError:
    """Return the error for a file that cannot be written."""
    return UsageError(
        f"{path.name} can be written.",
        os.strerror(error.errno or 0),
        "Check the disk's free space and the folder's permissions; go on with --resume.",
    )


def _check_same_plan(folder: RunFolder, plan: dict[str, Any]) -> None:
    try:
        stored = dict(json.loads(folder.plan.read_text(encoding="utf-8")))
    except OSError:
        raise UsageError(
            "--resume goes on with a run that was started before.",
            f"no run in {folder.root}",
            "Leave out --resume.",
        ) from None
    except (ValueError, TypeError):
        raise UsageError(
            "state/plan.json holds what the run was started with.",
            "a damaged file",
            "Start again in a new folder.",
        ) from None
    different = sorted(k for k in stored.keys() | plan.keys() if stored.get(k) != plan.get(k))
    if different:
        raise UsageError(
            "A resumed run asks for the same as before.",
            f"other values of: {', '.join(different)}",
            "Repeat the first command with --resume added, or start in a new folder.",
        )
