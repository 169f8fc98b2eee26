"""What a training says while it runs: a line of JSON now and then, and TensorBoard's scalars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from chorister.shared.errors import BadSettings

TENSORBOARD_FOLDER = "tensorboard"


class TrainingLog:
    """Figures by step.

    Args:
        lines: open for appending; a JSON object a line.
        board: TensorBoard's writer; None without.
    """

    def __init__(self, lines: IO[str], board: Any | None) -> None:
        self._lines = lines
        self._board = board

    def write(self, figures: Mapping[str, float], stage: int, step: int, total: int) -> None:
        """Note the figures of one step.

        Args:
            figures: by name.
            stage: counted from 1.
            step: within the stage.
            total: steps of the whole training so far, TensorBoard's abscissa.
        """
        line = {"stage": stage, "step": step} | {k: _rounded(v) for k, v in figures.items()}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"stage {stage}/{name}", value, total)
            self._board.flush()


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


@contextmanager
def open_log(out: Path, *, tensorboard: bool, total: int) -> Iterator[TrainingLog]:
    """Open OUT/log.jsonl and, where asked for, OUT/tensorboard.

    Args:
        out: folder of the training, existing.
        tensorboard: whether to write scalars.
        total: steps done so far: what an interrupted run wrote beyond them is dropped.

    Raises:
        BadSettings: the package tensorboard is not installed.
    """
    board = _board(out / TENSORBOARD_FOLDER, total) if tensorboard else None
    try:
        with (out / "log.jsonl").open("a") as lines:
            yield TrainingLog(lines, board)
    finally:
        if board is not None:
            board.close()


def _board(folder: Path, total: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadSettings(
            "--tensorboard needs the package tensorboard.",
            str(error),
            "pip install 'chorister[training]', or leave the option out; log.jsonl has the same.",
        ) from error
    return SummaryWriter(str(folder), purge_step=total + 1)
