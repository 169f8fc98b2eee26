"""An evaluation's figures as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chorister.simulations import systems
from chorister.simulations.conditions import CONDITIONS
from chorister.simulations.evaluation_report import main_measures

HEADINGS = {
    "llr_z": "GMM-UBM LLR, Z-norm",
    "per": "PER",
    "wer": "WER, of own output",
    "wer_transcript": "WER, of transcript",
    "lsd_db": "LSD dB",
    "log_mel_db": "log-mel dB",
    "mcd_db": "MCD dB",
    "rmse": "RMSE",
    "snr_db": "SNR dB",
    "spectral_correlation": "spectral corr.",
    "f0_correlation": "F0 corr.",
    "f0_rmse_cents": "F0 RMSE cents",
    "voicing_error": "voicing error",
    "rtf": "RTF",
}
_WORDS = ("per", "wer", "wer_transcript")
_PITCH = ("f0_correlation", "f0_rmse_cents", "voicing_error", "rtf")
_COPIES = ("lsd_db", "log_mel_db", "mcd_db", "spectral_correlation", "rmse", "snr_db")
_ADAPTING = {"adapter_kept": "adapter kept", "adapting_s": "seconds", "target_s": "speech s"}


def heading(measure: str) -> str:
    """What a column of this measure is called."""
    name, _, judge = measure.partition(" (")
    judge = judge.rstrip(")")
    names = {"similarity": "similarity", "residual": "to the source", "identified": "identified"}
    if name in names:
        if name == "similarity" and judge == "gmm-ubm":
            return "GMM-UBM LLR, nepers"
        return f"{names[name]}, {judge}"
    return HEADINGS.get(measure, measure)


def cell(interval: Mapping[str, Any] | None) -> str:
    """A mean with its interval; the mean alone where it is over one speaker."""
    if interval is None or interval["mean"] is None:
        return ""
    if interval["speakers"] < 2 or interval["low"] is None:
        return f"{interval['mean']:.3f}"
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def table(first: str, rows: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    """Markdown lines of rows that hold at least one of the columns' measures.

    Args:
        first: heading of the names.
        rows: intervals by measure, by name.
        columns: heading by measure, in order.
    """
    present = {
        measure: name
        for measure, name in columns.items()
        if any(measure in row for row in rows.values())
    }
    lines = [
        f"| {first} | " + " | ".join(present.values()) + " |",
        "|---" * (1 + len(present)) + "|",
    ]
    for name, row in rows.items():
        if any(measure in row for measure in present):
            cells = [cell(row.get(measure)) for measure in present]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def headed(measures: Sequence[str]) -> dict[str, str]:
    """Measures with their headings."""
    return {measure: heading(measure) for measure in measures}


def sections(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the report as (title, Markdown table) in the order of reading."""
    found = report["systems"]
    parts = []
    for judge in report["judges"]:
        measures = [f"similarity ({judge})"]
        measures += ["llr_z"] if judge == "gmm-ubm" else []
        measures += [f"residual ({judge})", f"identified ({judge})"]
        title = f"Whose voice: {judge}, {len(report['candidates'])} candidates"
        parts.append((title, table("system", found, headed(measures))))
    parts.append(("Words, relative to the source", table("system", found, headed(_WORDS))))
    parts.append(("Pitch and speed", table("system", found, headed(_PITCH))))
    copies = {name: row for name, row in found.items() if name in systems.COPIES}
    parts.append(("Copies of the target's own speech", table("system", copies, headed(_COPIES))))
    main = headed(main_measures(report["main_judge"]))
    if report["gain"]:
        adapting = {systems.PERSONAL: found[systems.PERSONAL]}
        parts.append(("Personalising", table("", adapting, _ADAPTING)))
        gain = {"personalised less zero-shot": report["gain"]}
        parts.append(("Paired gain", table("", gain, main)))
    for key, title, first in (
        ("directions", "By direction", "direction, system"),
        ("conditions", "By condition of the source", "condition, system"),
        ("targets", "By target (intervals over sources)", "target, system"),
    ):
        rows = _flat(report[key], CONDITIONS if key == "conditions" else {})
        if rows:
            parts.append((title, table(first, rows, main)))
    worst = report["worst_decile"]
    parts.append(("Worst tenth of the conversions", table("system", worst, main)))
    parts.append(("Gates, files", _gates(report["gates"])))
    return parts


def format_table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"{len(report['pairs'])} conversions among {len(report['voices'])} voices,"
        f" {len(report['candidates'])} voices told apart; mean and 95 % bootstrap interval over"
        " target speakers",
    ]
    for title, rows in sections(report):
        if len(rows) > 2:
            lines += ["", f"**{title}**", "", *rows]
    lines += ["", *(f"Note: {note}" for note in report["notes"])]
    return "\n".join(lines).rstrip()


def _flat(groups: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        f"{names.get(group, group)}, {system}": row
        for group, by_system in groups.items()
        for system, row in by_system.items()
        if system in (systems.SOURCE, *systems.CONVERTED)
        and not (system == systems.SOURCE and names)
    }


def _gates(counts: dict[str, Any]) -> list[str]:
    gates = list(dict.fromkeys(gate for one in counts.values() for gate in one["failed"]))
    lines = [
        "| system | files | pass all | " + " | ".join(f"fail {gate}" for gate in gates) + " |",
        "|---" * (3 + len(gates)) + "|",
    ]
    for system, one in counts.items():
        cells = [str(one["files"]), str(one["passed_all"])]
        cells += [str(one["failed"][gate]) for gate in gates]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return lines
