"""What was measured on each utterance of an evaluation, and means of it over speakers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from chorister.shared.voice.metrics import Interval, bootstrap_over_speakers, worst_decile
from chorister.simulations.conditions import CLEAN
from chorister.simulations.gates import Gates

# Measures of which less is worse; of all others, more is.
GOOD_WHEN_HIGH = (
    "similarity",
    "identified",
    "llr",
    "spectral_correlation",
    "f0_correlation",
    "snr",
)


@dataclass(slots=True)
class Row:
    """One utterance by one system.

    Attributes:
        system: who spoke it.
        target: whose voice it shall have.
        source: who spoke the original; empty for the target's own speech.
        recording: the original.
        direction: such as "F to M"; empty where a sex is not known or nothing was converted.
        condition: of the source, "clean" or one of `conditions.CONDITIONS`.
        values: figures by measure.
        gates: of a converted file that the product would write.
    """

    system: str
    target: str
    source: str
    recording: str
    direction: str = ""
    condition: str = CLEAN
    values: dict[str, float] = field(default_factory=dict)
    gates: Gates | None = None


def low_is_worse(measure: str) -> bool:
    """Whether a small figure of this measure is a bad one."""
    return measure.startswith(GOOD_WHEN_HIGH)


def grouped(
    rows: Iterable[Row], measure: str, speaker: Callable[[Row], str]
) -> dict[str, list[float]]:
    """Values of a measure by speaker, rows without it left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if measure in row.values:
            found.setdefault(speaker(row), []).append(row.values[measure])
    return found


def intervals(
    rows: Iterable[Row], speaker: Callable[[Row], str] = lambda row: row.target
) -> dict[str, Interval]:
    """Mean and 95 % interval over speakers of every measure that the rows hold.

    Args:
        rows: of one system.
        speaker: whom a row belongs to; the target by default.
    """
    rows = list(rows)
    measures = dict.fromkeys(measure for row in rows for measure in row.values)
    return {
        measure: bootstrap_over_speakers(grouped(rows, measure, speaker)) for measure in measures
    }


def worst_tenth(rows: Iterable[Row], measures: Iterable[str]) -> dict[str, Interval]:
    """Mean of the worst tenth of all utterances, with an interval over targets."""
    rows = list(rows)
    found = {}
    for measure in measures:
        values = grouped(rows, measure, lambda row: row.target)
        if values:
            found[measure] = worst_decile(values, low_is_worse=low_is_worse(measure))
    return found


def paired_gain(after: Iterable[Row], before: Iterable[Row]) -> dict[str, Interval]:
    """Differences of the same conversions by two systems, with intervals over targets.

    Args:
        after: rows of the one.
        before: rows of the other; conversions that only one of them has are left out.
    """
    known = {(row.target, row.source, row.recording, row.condition): row.values for row in before}
    gains: dict[str, dict[str, list[float]]] = {}
    for row in after:
        other = known.get((row.target, row.source, row.recording, row.condition), {})
        for measure in row.values.keys() & other.keys():
            values = gains.setdefault(measure, {}).setdefault(row.target, [])
            values.append(row.values[measure] - other[measure])
    return {measure: bootstrap_over_speakers(gains[measure]) for measure in sorted(gains)}
