"""An evaluation as one offline page: charts with intervals, spectrograms, every table."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chorister.shared.charts import spectrogram_chart
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.page import STYLE
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.audio import save_recording
from chorister.simulations import systems
from chorister.simulations.charts import Span, interval_chart
from chorister.simulations.conditions import CLEAN, CONDITIONS
from chorister.simulations.evaluation import Spoken
from chorister.simulations.evaluation_tables import sections
from chorister.simulations.listening import load_clips
from chorister.simulations.report import PAGE, Chart

EXCERPT_S = 6.0
MOST_EXCERPTS = 3
_SHOWN = {
    systems.SOURCE: "Source",
    systems.REAL: "Target, another sentence",
    systems.STREAMING: "Converted live, zero-shot",
    systems.ZERO_SHOT: "Converted, zero-shot",
    systems.PERSONAL: "Converted, personalised",
}
_STYLES = {systems.ZERO_SHOT: "a", systems.PERSONAL: "b"}
_DECIMALS = 3


class Excerpts:
    """The first conversion to each target, with what it is compared with."""

    def __init__(self) -> None:
        self.sounds: dict[str, dict[str, FloatArray]] = {}
        self.pairs: dict[str, tuple[str, str]] = {}

    def keep(self, spoken: Spoken) -> None:
        """Remember an utterance if it is shown."""
        row = spoken.row
        if row.system not in _SHOWN or row.condition != CLEAN:
            return
        if row.source:
            source, _ = self.pairs.setdefault(row.target, (row.source, row.direction))
            if row.source != source:
                return
        cut = spoken.samples[: round(EXCERPT_S * SAMPLE_RATE_HZ)]
        self.sounds.setdefault(row.target, {}).setdefault(row.system, cut)


def write_page(path: Path, report: dict[str, Any], excerpts: Excerpts) -> None:
    """Render an evaluation.

    Args:
        path: the HTML file; replaced if it exists.
        report: from `evaluation_report.summarise`.
        excerpts: what is shown as spectrograms.

    Raises:
        UsageError: it cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("evaluation.html").render(
        report=report,
        version=version("chorister"),
        style=Markup(STYLE),  # noqa: S704 (our own stylesheet)
        tiles=_tiles(report),
        charts=_charts(report),
        excerpts=[_excerpt(target, excerpts) for target in _chosen(excerpts)],
        tables=[_table(title, rows) for title, rows in sections(report) if len(rows) > 2],
    )
    try:
        write_atomically(path, page.encode(), mode=0o644)
    except OSError as error:
        raise UsageError(
            "The page's folder must be writable.",
            f"{path}: {error.strerror or error}",
            "Choose another place.",
        ) from error


def _best(report: dict[str, Any]) -> str:
    return next(s for s in reversed(systems.CONVERTED) if s in report["systems"])


def _tiles(report: dict[str, Any]) -> list[dict[str, str]]:
    system, judge = _best(report), report["main_judge"]
    row = report["systems"][system]
    named = (
        (f"similarity ({judge})", "Similarity", f"cosine, {judge}, {system}"),
        ("llr_z", "GMM-UBM LLR", "standard deviations above other people"),
        (f"identified ({judge})", "Identified", f"of {len(report['candidates'])} voices"),
        ("per", "Phone error rate", "relative to the source"),
    )
    tiles = [
        {"name": name, "value": f"{row[measure]['mean']:.{_DECIMALS}f}", "note": note}
        for measure, name, note in named
        if measure in row and row[measure]["mean"] is not None
    ]
    gates = report["gates"].get(system)
    if gates is not None:
        value = f"{gates['passed_all']} of {gates['files']}"
        tiles.append({"name": "Files through all gates", "value": value, "note": system})
    return tiles


def _spans(rows: dict[str, Any], measure: str) -> list[Span]:
    spans = []
    for name, row in rows.items():
        found = row.get(measure)
        if found is None or found["mean"] is None:
            continue
        mean = found["mean"]
        low = mean if found["low"] is None else found["low"]
        high = mean if found["high"] is None else found["high"]
        style = next((s for system, s in _STYLES.items() if name.endswith(system)), "plain")
        spans.append(Span(name, mean, low, high, style))
    return spans


def _charts(report: dict[str, Any]) -> list[Chart]:
    judge = report["main_judge"]
    similarity = f"similarity ({judge})"
    best = _best(report)
    by_target = {name: row[best] for name, row in report["targets"].items() if best in row}
    disturbed = {CLEAN: report["systems"][best]} | {
        CONDITIONS[name]: row[best] for name, row in report["conditions"].items() if best in row
    }
    directions = {name: row[best] for name, row in report["directions"].items() if best in row}
    everything = report["systems"]
    wanted = (
        (f"Similarity to the target ({judge})", everything, similarity, "cosine", ""),
        ("GMM-UBM log-likelihood ratio", everything, "llr_z", "standard deviations (Z-norm)", ""),
        ("Phone error rate", everything, "per", "errors a phone of the source", ""),
        ("Word error rate, of own output", everything, "wer", "errors a word of the source", ""),
        (f"Each target, {best}", by_target, similarity, f"cosine ({judge})", "over sources"),
        (f"By direction, {best}", directions, similarity, f"cosine ({judge})", ""),
        (f"Disturbed sources, {best}", disturbed, similarity, f"cosine ({judge})", ""),
        (f"Disturbed sources, {best}", disturbed, "per", "errors a phone of the source", ""),
    )
    charts = []
    for title, rows, measure, label, note in wanted:
        spans = _spans(rows, measure)
        if len(spans) > 1:
            charts.append(Chart(title, (), note, interval_chart(title, spans, x_label=label)))
    return charts


def _chosen(excerpts: Excerpts) -> list[str]:
    """Targets to show: every direction once before any twice."""
    seen: set[str] = set()
    first: list[str] = []
    later: list[str] = []
    for target, (_, direction) in excerpts.pairs.items():
        (later if direction in seen else first).append(target)
        seen.add(direction)
    return [*first, *later][:MOST_EXCERPTS]


def _excerpt(target: str, excerpts: Excerpts) -> dict[str, Any]:
    source, direction = excerpts.pairs[target]
    sounds = excerpts.sounds[target]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, (system, samples) in enumerate(sounds.items()):
            files[system] = Path(folder) / f"{number}.wav"
            save_recording(files[system], samples)
        clips = load_clips(files)
    shots = []
    for system, name in _SHOWN.items():
        if system not in clips:
            continue
        clip = clips[system]
        title = f"Spectrogram: {name}"
        svg = spectrogram_chart(title, clip.picture, clip.duration_s, clip.top_khz)
        note = target if system == systems.REAL else source if system == systems.SOURCE else ""
        shots.append({"name": name, "note": note, "svg": svg, "audio": clip.audio})
    return {"source": source, "target": target, "direction": direction, "shots": shots}


def _table(title: str, rows: list[str]) -> dict[str, Any]:
    """Cells of Markdown lines: the page and the terminal show the same."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {"title": title, "head": cells[0], "body": cells[2:]}
