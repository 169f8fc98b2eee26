"""What the server remembers of each round: one line of JSON, written when the round is over.

That line is the round's commit point. A server that is started again goes on after the last line;
what an unfinished round had left behind is not in any sum, and its budget stays charged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from chorister.server.update import OptimiserState
from chorister.shared.errors import BadLedger
from chorister.shared.files import write_atomically

ROUNDS_FILE = "rounds.jsonl"


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round as the server saw it; nothing of a single client but that it was there.

    Attributes:
        round: from 1.
        status: whether there is a new adapter.
        reason: why not; None if finished.
        cohort: devices that were asked.
        answered: exchange to how many answered it properly.
        drop_outs: exchange to how many were lost in it.
        refusals: reason to how many devices gave it or were refused for it.
        survivors: devices whose deltas are in the sum.
        adapter_sha256: the newest version after this round.
        min_honest: honest survivors that the noise was sized for.
        noise_multiplier: of the noise in the sum with the survivors as they were; None without.
        epsilon_speaker: largest of all devices so far; None without privacy.
        bytes_up: sent by the cohort in all.
        bytes_down: sent to the cohort in all.
        seconds: how long it took.
        clip_norm: that its terms stated; None if it did not come to terms.
        share_within: noisy share of the survivors whose deltas were within it; None where the clip
            does not adapt.
    """

    round: int
    status: Literal["finished", "aborted"]
    reason: str | None
    cohort: int
    answered: Mapping[str, int]
    drop_outs: Mapping[str, int]
    refusals: Mapping[str, int]
    survivors: int
    adapter_sha256: str
    min_honest: int | None
    noise_multiplier: float | None
    epsilon_speaker: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    clip_norm: float | None = None
    share_within: float | None = None


_PSEUDONYM = re.compile(r"\b[0-9a-f]{16}\b")


def anonymous(record: RoundRecord) -> RoundRecord:
    """Return a round without pseudonyms, for pages and logs: its reason may name a device."""
    if record.reason is None:
        return record
    return replace(record, reason=_PSEUDONYM.sub("(one of them)", record.reason))


def append_round(path: Path, record: RoundRecord) -> None:
    """Add a round's line durably: the file is replaced whole, so that no crash tears a line."""
    lines = [json.dumps(asdict(kept), sort_keys=True) for kept in read_rounds(path)]
    lines.append(json.dumps(asdict(record), sort_keys=True))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def read_rounds(path: Path) -> list[RoundRecord]:
    """Return the committed rounds, oldest first.

    Raises:
        BadLedger: a line is no round, or a round is missing.
    """
    if not path.exists():
        return []
    try:
        found = [RoundRecord(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        sound = [record.round for record in found] == list(range(1, len(found) + 1))
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise BadLedger(
            f"{path.name} holds one line a round, from 1 on.",
            "something else",
            "Restore it from a backup.",
        )
    return found


def save_optimiser(folder: Path, adapter_sha256: str, state: OptimiserState) -> None:
    """Keep the server's state with the version that it made, before that is stored."""
    partial = folder / ".optimiser.npz"
    with partial.open("wb") as file:
        clip = np.array([] if state.clip_norm is None else [state.clip_norm])
        np.savez(file, first=state.first, second=state.second, clip_norm=clip)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(_optimiser_path(folder, adapter_sha256))


def load_optimiser(folder: Path, adapter_sha256: str, d: int) -> OptimiserState:
    """Return the server's state that goes with a version; the first if it has none.

    By version, not by round: rounds that are aborted, or that a crash ends, leave no gap.
    """
    path = _optimiser_path(folder, adapter_sha256)
    if not path.exists():
        return OptimiserState.initial(d)
    with np.load(path, allow_pickle=False) as arrays:
        clip = next((float(value) for value in arrays["clip_norm"]), None)
        return OptimiserState(arrays["first"], arrays["second"], clip)


def _optimiser_path(folder: Path, adapter_sha256: str) -> Path:
    return folder / f"optimiser-{adapter_sha256}.npz"
