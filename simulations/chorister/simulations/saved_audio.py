"""The files of an evaluation, with a manifest by which another judge can score them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from chorister.shared.files import write_atomically
from chorister.shared.types import Recording
from chorister.shared.voice.audio import save_recording
from chorister.simulations import systems
from chorister.simulations.conditions import CLEAN
from chorister.simulations.evaluation import Spoken
from chorister.simulations.trials import Panel

COLUMNS = ("target", "source", "source_utterance", "converted", "references")
MANIFEST = "manifest.csv"


class AudioFolder:
    """Writes every utterance to SYSTEM/, disturbed ones to CONDITION/SYSTEM/, below a folder.

    Args:
        root: an empty folder.
        panel: whose recordings the conversions were enrolled from.
    """

    def __init__(self, root: Path, panel: Panel) -> None:
        self._root = root
        self._enrolment = {voice.name: voice.enrolment for voice in panel.tested}
        self._adaptation = {voice.name: voice.adaptation for voice in panel.tested}
        self._converted: dict[str, list[dict[str, str]]] = {}

    def keep(self, spoken: Spoken) -> None:
        """Write one utterance."""
        row = spoken.row
        folder = Path(_slug(row.system))
        if row.condition != CLEAN:
            folder = Path(row.condition) / folder
        utterance = Path(row.recording).stem
        who = f"{row.source}-to-{row.target}" if row.source else row.target
        path = folder / f"{who}-{utterance}.wav"
        (self._root / folder).mkdir(parents=True, exist_ok=True)
        save_recording(self._root / path, spoken.samples)
        if row.system in systems.CONVERTED and row.condition == CLEAN:
            seen = self._adaptation if row.system == systems.PERSONAL else self._enrolment
            entry = {
                "target": row.target,
                "source": row.source,
                "source_utterance": utterance,
                "converted": path.as_posix(),
                "references": _names(seen[row.target]),
            }
            self._converted.setdefault(row.system, []).append(entry)

    def finish(self) -> None:
        """Write manifest.csv: the personalised conversions where there are any, else zero-shot.

        Of both, there is a manifest-SYSTEM.csv as well.
        """
        for system in systems.CONVERTED:
            if system in self._converted:
                self._write(MANIFEST, self._converted[system])
                self._write(f"manifest-{_slug(system)}.csv", self._converted[system])

    def _write(self, name: str, entries: Sequence[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)
        write_atomically(self._root / name, text.getvalue().encode(), mode=0o644)


def _names(recordings: Sequence[Recording]) -> str:
    return ";".join(Path(recording.name).stem for recording in recordings)


def _slug(system: str) -> str:
    return system.replace(", ", "-").replace(" ", "-").lower()
