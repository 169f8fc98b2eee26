"""What a simulation knows that no real server would: who the speakers are and what they recorded.

A world is written once (state/world.json) and read by every process of the run, so that a client
can be materialised from its place when a message for it arrives, and forgotten afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chorister.simulations.corpus import Corpus
from chorister.simulations.folder import RunFolder
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Skipped, Speaker, Utterance


@dataclass(frozen=True, slots=True)
class World:
    """The speakers of one run.

    Attributes:
        scenario: what was asked for.
        folder: of the run.
        layout: of the corpus.
        root: of the corpus on this machine; in no report.
        clients: take part, in the corpus's order; node i is client i.
        held_out: never take part, only measure.
        corpus_sha256: over names and contents of all files that are used.
        skipped: (file name, what was wrong with it) of files left out.
    """

    scenario: Scenario
    folder: RunFolder
    layout: str
    root: Path
    clients: tuple[Speaker, ...]
    held_out: tuple[Speaker, ...]
    corpus_sha256: str
    skipped: tuple[tuple[str, str], ...]

    def save(self) -> None:
        """Write the world for the run's other processes."""
        self.folder.write_json(
            self.folder.world,
            {
                "scenario": self.scenario.model_dump(mode="json"),
                "layout": self.layout,
                "root": str(self.root.resolve()),
                "clients": [_plain(speaker, self.root) for speaker in self.clients],
                "held_out": [_plain(speaker, self.root) for speaker in self.held_out],
                "corpus_sha256": self.corpus_sha256,
                "skipped": [list(entry) for entry in self.skipped],
            },
        )

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        """Clients and held-out speakers."""
        return self.clients + self.held_out


def make_world(
    scenario: Scenario,
    folder: RunFolder,
    corpus: Corpus,
    clients: Sequence[Speaker],
    held_out: Sequence[Speaker],
    skipped: Skipped,
    unfit: Mapping[str, str],
) -> World:
    """Return the world of a new run; `save` writes it once its speakers are settled.

    Args:
        scenario: what was asked for.
        folder: of the run.
        corpus: where the speakers come from.
        clients: take part.
        held_out: only measure.
        skipped: files left out.
        unfit: speakers left out, with the reason.
    """
    return World(
        scenario,
        folder,
        corpus.layout,
        corpus.root,
        tuple(clients),
        tuple(held_out),
        _corpus_digest(corpus.root, (*clients, *held_out)),
        (
            *((Path(path).name, reason) for path, reason in skipped.listing()),
            *((f"speaker {name}", reason) for name, reason in unfit.items()),
        ),
    )


@lru_cache(maxsize=4)
def load_world(root: Path) -> World:
    """Return the world of a run folder; cached, since it never changes."""
    folder = RunFolder(root)
    plain = json.loads(folder.world.read_text(encoding="utf-8"))
    scenario = Scenario.parse(plain["scenario"], str(folder.world))
    corpus_root = Path(plain["root"])
    clients, held_out = (
        tuple(_speaker(entry, corpus_root, scenario.shift) for entry in plain[role])
        for role in ("clients", "held_out")
    )
    skipped = tuple((str(name), str(reason)) for name, reason in plain["skipped"])
    return World(
        scenario, folder, plain["layout"], corpus_root, clients, held_out,
        plain["corpus_sha256"], skipped,
    )  # fmt: skip


def _plain(speaker: Speaker, root: Path) -> dict[str, Any]:
    def relative(path: Path | None) -> str | None:
        return None if path is None else str(path.relative_to(root))

    utterances = [[relative(u.path), relative(u.transcript_path)] for u in speaker.utterances]
    return {"name": speaker.name, "utterances": utterances}


def _speaker(plain: dict[str, Any], root: Path, shift: str) -> Speaker:
    utterances = tuple(
        Utterance(root / path, None if transcript is None else root / transcript)
        for path, transcript in plain["utterances"]
    )
    return Speaker(plain["name"], utterances, shift)


def _corpus_digest(root: Path, speakers: Sequence[Speaker]) -> str:
    digest = hashlib.sha256(b"chorister corpus")
    for speaker in speakers:
        for utterance in speaker.utterances:
            digest.update(str(utterance.path.relative_to(root)).encode() + b"\x00")
            with utterance.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
