"""An evaluation's figures as plain values and as a table."""

from __future__ import annotations

import math
from typing import Any

from chorister.shared.voice.metrics import Interval, bootstrap_over_speakers
from chorister.simulations.evaluation import SYSTEMS, Evaluation
from chorister.simulations.trials import LONGEST_S, SHORTEST_S

_HEADINGS = {
    "per": "PER",
    "lsd_db": "LSD dB",
    "mcd_db": "MCD dB",
    "f0_correlation": "F0 corr.",
    "f0_rmse_cents": "F0 RMSE cents",
    "voicing_error": "voicing error",
    "rtf": "RTF",
    "adapter_kept": "adapter kept",
    "adapting_s": "adapting s",
}


def _plain(interval: Interval) -> dict[str, float | int | None]:
    """NaN has no form in JSON: null says that there was nothing to measure."""
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    clean: dict[str, float | int | None] = {
        name: None if math.isnan(value) else value for name, value in ends.items()
    }
    return clean | {"speakers": interval.speakers}


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Means and 95 % intervals of every system and measure, and what they were measured on.

    Args:
        evaluation: after its run.

    Returns:
        plain values for JSON; an interval has mean, low, high and speakers.
    """
    names = [voice.name for voice in evaluation.voices]
    return {
        "voices": names,
        "main_judge": evaluation.judges[0].name,
        "judges": [judge.name for judge in evaluation.judges],
        "pairs": [
            {
                "source": names[pair.source],
                "target": names[pair.target],
                "recording": evaluation.voices[pair.source].tests[pair.test].name,
            }
            for pair in evaluation.pairs
        ],
        "recordings_s": [SHORTEST_S, LONGEST_S],
        "systems": {
            system: {
                measure: _plain(bootstrap_over_speakers(values))
                for measure, values in evaluation.figures[system].items()
            }
            for system in SYSTEMS
            if system in evaluation.figures
        },
    }


def _cell(interval: dict[str, Any] | None) -> str:
    if interval is None or interval["mean"] is None:
        return ""
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _table(systems: dict[str, Any], columns: dict[str, str]) -> list[str]:
    present = {
        measure: heading
        for measure, heading in columns.items()
        if any(measure in row for row in systems.values())
    }
    lines = [
        "| system | " + " | ".join(present.values()) + " |",
        "|---" * (1 + len(present)) + "|",
    ]
    for system, row in systems.items():
        if not any(measure in row for measure in present):
            continue
        cells = [_cell(row.get(measure)) for measure in present]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return lines


def format_table(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables: one for each judge, one for everything else."""
    systems = report["systems"]
    lines = [
        f"{len(report['pairs'])} conversions among {len(report['voices'])} voices; mean and 95 %"
        " bootstrap interval over target speakers",
    ]
    for judge in report["judges"]:
        columns = {
            f"similarity ({judge})": "similarity to target",
            f"residual ({judge})": "similarity to source",
            f"identified ({judge})": f"{len(report['voices'])}-way identification",
        }
        lines += ["", f"Judge: {judge}", "", *_table(systems, columns)]
    lines += ["", "Copies and conversions", "", *_table(systems, _HEADINGS)]
    return "\n".join(lines)
