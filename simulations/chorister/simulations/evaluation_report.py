"""An evaluation's figures as plain values: means, intervals, worst cases, gates, notes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from chorister.shared.voice.metrics import Interval
from chorister.simulations import systems
from chorister.simulations.conditions import CLEAN, CONDITIONS
from chorister.simulations.evaluation import Evaluation
from chorister.simulations.measurements import Row, intervals, paired_gain, worst_tenth
from chorister.simulations.trials import LONGEST_S, SHORTEST_S, Pair
from chorister.simulations.world_copy import can_use_world

DIRECTIONS = ("F to M", "M to F", "F to F", "M to M")
SAME_SEX = "same sex"
_ALSO = {"F to F": SAME_SEX, "M to M": SAME_SEX}


def summarise(evaluation: Evaluation, notes: Iterable[str] = ()) -> dict[str, Any]:
    """Means and 95 % intervals of every system and measure, and what they were measured on.

    Args:
        evaluation: after its run.
        notes: what a reader should know besides.

    Returns:
        plain values for JSON; an interval has mean, low, high and speakers.
    """
    rows = evaluation.rows
    clean = [row for row in rows if row.condition == CLEAN]
    main = evaluation.judges[0].name
    measures = main_measures(main)
    converted = [row for row in rows if row.gates is not None]
    return {
        "voices": [voice.name for voice in evaluation.panel.tested],
        "sexes": {voice.name: voice.sex for voice in evaluation.panel.tested},
        "candidates": [voice.name for voice in evaluation.voices],
        "main_judge": main,
        "judges": [judge.name for judge in evaluation.judges],
        "pairs": [_pair(evaluation, pair) for pair in evaluation.pairs],
        "recordings_s": [SHORTEST_S, LONGEST_S],
        "systems": _by_system(clean),
        "gain": _plain_all(
            paired_gain(
                [row for row in clean if row.system == systems.PERSONAL and row.source],
                [row for row in clean if row.system == systems.ZERO_SHOT],
            )
        ),
        "directions": {
            direction: found
            for direction in (*DIRECTIONS, SAME_SEX)
            if (found := _by_system(_in_direction(clean, direction)))
        },
        "conditions": {
            condition: found
            for condition in CONDITIONS
            if (found := _by_system(row for row in rows if row.condition == condition))
        },
        "targets": {
            voice.name: found
            for voice in evaluation.panel.tested
            if (found := _of_target(clean, voice.name))
        },
        "worst_decile": {
            system: _plain_all(worst_tenth(own, measures))
            for system in systems.CONVERTED
            if (own := [row for row in clean if row.system == system and row.source])
        },
        "gates": _gates(converted),
        "notes": [*notes, *_notes(evaluation)],
    }


def main_measures(judge: str) -> tuple[str, ...]:
    """The measures of a conversion that every breakdown shows, for a main judge's name."""
    return (
        f"similarity ({judge})",
        "llr_z",
        f"residual ({judge})",
        f"identified ({judge})",
        "per",
        "wer",
        "f0_correlation",
        "voicing_error",
    )


def _plain(interval: Interval) -> dict[str, float | int | None]:
    """NaN has no form in JSON: null says that there was nothing to measure."""
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    clean: dict[str, float | int | None] = {
        name: value if math.isfinite(value) else None for name, value in ends.items()
    }
    return clean | {"speakers": interval.speakers}


def _plain_all(found: dict[str, Interval]) -> dict[str, dict[str, float | int | None]]:
    return {measure: _plain(interval) for measure, interval in found.items()}


def _by_system(rows: Iterable[Row]) -> dict[str, Any]:
    rows = list(rows)
    return {
        system: _plain_all(intervals(own))
        for system in systems.SYSTEMS
        if (own := [row for row in rows if row.system == system])
    }


def _in_direction(rows: Iterable[Row], direction: str) -> list[Row]:
    return [
        row
        for row in rows
        if row.direction and direction in (row.direction, _ALSO.get(row.direction))
    ]


def _of_target(rows: Iterable[Row], target: str) -> dict[str, Any]:
    """Intervals over the sources, for a single target has no others."""
    own = [row for row in rows if row.target == target]
    return {
        system: _plain_all(intervals(mine, lambda row: row.source))
        for system in (systems.REAL, systems.SOURCE, *systems.CONVERTED)
        if (mine := [row for row in own if row.system == system])
    }


def _gates(rows: Iterable[Row]) -> dict[str, Any]:
    """Files that pass and fail each gate, by system; None is a gate with nothing to look at."""
    counts: dict[str, Any] = {}
    for row in rows:
        if row.gates is None:
            continue
        system = counts.setdefault(row.system, {"files": 0, "passed_all": 0, "failed": {}})
        verdicts = row.gates.to_plain()
        system["files"] += 1
        system["passed_all"] += all(verdict is not False for verdict in verdicts.values())
        for gate, verdict in verdicts.items():
            system["failed"].setdefault(gate, 0)
            system["failed"][gate] += verdict is False
    return counts


def _pair(evaluation: Evaluation, pair: Pair) -> dict[str, str]:
    return {
        "source": evaluation.voices[pair.source].name,
        "target": evaluation.voices[pair.target].name,
        "recording": evaluation.voices[pair.source].tests[pair.test].name,
    }


def _notes(evaluation: Evaluation) -> list[str]:
    notes = []
    if evaluation.judges[0].name != "ge2e":
        notes.append(
            "GE2E is not installed (pip install --no-deps resemblyzer==0.1.4): our own encoder,"
            " which the model is conditioned on, is the main judge and flatters it."
        )
    if not evaluation.panel.background:
        notes.append(
            "No further voices at hand: the GMM-UBM's background is fitted on the references of the"
            " voices that it tells apart."
        )
    if not can_use_world():
        notes.append("pyworld is not installed (pip install 'chorister[harvest]'): no WORLD rows.")
    if not any(row.direction for row in evaluation.rows):
        notes.append("No speakers.csv with sexes beside the data: no figures by direction.")
    heard = {measure for row in evaluation.rows for measure in row.values}
    if "per" not in heard:
        notes.append("Phones and words were not recognised (chorister[training] has pocketsphinx).")
    elif "wer" in heard and "wer_transcript" not in heard:
        notes.append("No transcripts beside the data: no word error rate against them.")
    return notes
