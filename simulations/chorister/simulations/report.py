"""report.html: one offline file that says what a run came to, what it cost, and how it sounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chorister.shared.charts import Series, line_chart
from chorister.shared.errors import BadLedger
from chorister.shared.files import write_atomically
from chorister.shared.page import STYLE
from chorister.shared.privacy.ledger import parse, verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.simulations import verdict
from chorister.simulations.charts import before_after_chart
from chorister.simulations.listening import load_clips
from chorister.simulations.narrative import tell
from chorister.simulations.run_record import read_run

PAGE = Path(__file__).parent / "report_page"
CLIPS = {
    "source": "Source",
    "target": "Target",
    "vocoder_copy": "Vocoder copy",
    "zero_shot": "Zero-shot",
    "personalised": "Personalised",
}
BASELINES = {
    "private": "Federated, private",
    "plain_fedavg": "Federated, without privacy (plain FedAvg)",
    "local_only": "Each device alone",
}
PARTS = {"held_out": "kept aside", "client": "in the choir", "unused": "not used"}
NOT_MEASURED = {"loss_before": None, "loss_after": None}
LONG_TABLE = 24  # rows


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure of the page: title, legend of (class, name), a note, and the drawing."""

    title: str
    legend: tuple[tuple[str, str], ...]
    note: str
    svg: Markup


def write_report(run_dir: Path) -> Path:
    """Render a run folder's report.html and return its path.

    Args:
        run_dir: a folder with run.json; ledger.jsonl and the samples that run.json names.

    Raises:
        UsageError: run.json is missing or does not fit its schema.
        BadAudio: a sample that run.json names cannot be read.
        OSError: the page cannot be written; an old one is untouched.
    """
    run = read_run(run_dir / "run.json")
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure_or_dash
    environment.filters["loss"] = _three_decimals
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    ledger = _read_ledger(run_dir / "ledger.jsonl")
    page = environment.get_template("page.html").render(
        run=run,
        style=Markup(STYLE),  # noqa: S704 (our own stylesheet)
        title=f"seed {run['seed']}",
        when=_moment(run["started_s"]),
        headcount=_headcount(run),
        verdict=verdict.judge(run),
        tiles=_tiles(run),
        steps=tell(run, ledger["kinds"]),
        charts=_charts(run),
        clips=_clips(run_dir, run["samples"]),
        personalised=[_with_way(row) for row in run["personalised"]],
        budgets=[_budget(budget) for budget in run["budgets"]],
        price=_price(run),
        speakers=_speakers(run),
        data_caption=_data_caption(run["data"]),
        skipped=_skipped(run["data"]["skipped"]),
        ledger=ledger,
        digests=_digests(run),
        settings=list(_flat(run["settings"])),
    )
    path = run_dir / "report.html"
    write_atomically(path, page.encode(), mode=0o644)
    return path


def _tiles(run: dict[str, Any]) -> list[dict[str, str]]:
    finished = [r for r in run["rounds"] if r["status"] == "finished"]
    tiles = [_loss_tile(run)]
    if run["federated"]:
        note = "no sum was unmasked"
        if finished:
            low, high = (f(r["survivors"] for r in finished) for f in (min, max))
            note = f"{low if low == high else f'{low} to {high}'} clients in each sum"
        tiles.append(
            {
                "name": "Rounds finished",
                "value": f"{len(finished)} of {len(run['rounds'])}",
                "note": note,
            }
        )
    ratio = finished[-1]["noise_to_signal"] if finished else None
    if ratio is not None:
        tiles.append(
            {
                "name": "Noise to signal",
                "value": verdict.figure(ratio),
                "note": "last round, updates at the clip; above 1 noise wins",
            }
        )
    for budget in run["budgets"]:
        epsilon = budget["epsilon"]
        label = verdict.budget_label(budget)
        value = "unbounded" if epsilon is None else f"ε = {verdict.figure(epsilon)}"
        note = f"at δ = {verdict.figure(budget['delta'])}" + (f": {label}" if label else "")
        tiles.append({"name": f"Privacy of a {budget['unit']}", "value": value, "note": note})
    return tiles


def _loss_tile(run: dict[str, Any]) -> dict[str, str]:
    side = "speakers" if run["evaluation"]["speakers"] else "clients"
    rows = run["evaluation"][side]
    who = "voices outside the choir" if side == "speakers" else "clients"
    if not rows:
        return {"name": "Loss", "value": "–", "note": "not measured"}
    before, after = (
        sum(row[key] for row in rows) / len(rows) for key in ("loss_before", "loss_after")
    )
    way = "lower is better" if before != after else "unchanged"
    return {
        "name": f"Loss, {len(rows)} {who}",
        "value": f"{verdict.figure(before)} → {verdict.figure(after)}",
        "note": way,
    }


def _charts(run: dict[str, Any]) -> list[Chart]:
    charts = []
    losses = [(0, run["initial_held_out_loss"])]
    losses += [(r["round"], r["held_out_loss"]) for r in run["rounds"]]
    series = []
    for key, name, style in (("speakers", "voices outside", "a"), ("clients", "clients", "b")):
        points = [(float(i), loss[key]) for i, loss in losses if loss[key] is not None]
        if len(points) > 1:
            series.append(Series(name, points, style))
    if series:
        drawing = line_chart(
            "Held-out loss after each round", series, x_label="round", y_label="mean loss"
        )
        legend = tuple((line.style, line.name) for line in series)
        charts.append(Chart("Loss on recordings that no training saw", legend, "", drawing))
    noise = [
        (float(r["round"]), r["noise_to_signal"])
        for r in run["rounds"]
        if r["noise_to_signal"] is not None
    ]
    if noise:
        drawing = line_chart(
            "Noise to signal in each round's sum",
            [Series("noise to signal", noise, "a")],
            x_label="round",
            y_label="noise to signal",
            reference=(1.0, "noise = signal"),
            from_zero=True,
        )
        note = "noise multiplier × √d / clients, with updates at the clip"
        charts.append(Chart("Noise in the sum, against the signal", (), note, drawing))
    for key, title in (("speakers", "Each voice outside the choir"), ("clients", "Each client")):
        rows = [
            (row["speaker"], row["loss_before"], row["loss_after"])
            for row in run["evaluation"][key]
        ]
        if 1 <= len(rows) <= 16:
            drawing = before_after_chart(
                f"{title}: loss before and after", rows, x_label="mean loss"
            )
            legend = (
                ("before", "before"),
                ("after", "after, better"),
                ("after worse", "after, worse"),
            )
            charts.append(Chart(title, legend, "", drawing))
    return charts


def _clips(run_dir: Path, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = []
    for sample in samples:
        files = {k: run_dir / p for k, p in sample["files"].items() if p is not None}
        sounds = load_clips(files)
        clips = [
            {"name": CLIPS[key], "note": _clip_note(key, sample), "sound": sounds[key]}
            for key in CLIPS
            if key in sounds
        ]
        shown.append({**sample, "clips": clips})
    return shown


def _clip_note(key: str, sample: dict[str, Any]) -> str:
    notes = {
        "source": f"{sample['source']}, as spoken",
        "target": f"{sample['target']}, own recording",
        "vocoder_copy": f"{sample['source']} through the vocoder alone",
        "zero_shot": f"as {sample['target']}, shared adapter",
        "personalised": f"as {sample['target']}, personal adapter too",
    }
    cosine = sample.get("similarity", {}).get(key)
    return notes[key] + ("" if cosine is None else f"; similarity {verdict.figure(cosine)}")


def _budget(budget: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": None,
        "caveats": [],
        **budget,
        "epsilon_text": _figure_or_dash(budget["epsilon"], none="unbounded"),
        "shown_label": verdict.budget_label(budget),
    }


def _price(run: dict[str, Any]) -> list[dict[str, Any]]:
    own = "private" if run["private"] else "plain_fedavg"
    finished = sum(r["status"] == "finished" for r in run["rounds"])
    rows = [(own if run["federated"] else "local_only", run["evaluation"], finished)]
    rows += [(b["name"], b["evaluation"], b["rounds"]) for b in run["baselines"]]
    return [
        {
            "name": BASELINES[name] + (" (this run)" if i == 0 else ""),
            "rounds": rounds,
            "sides": [_side(evaluation[side]) for side in ("speakers", "clients")],
        }
        for i, (name, evaluation, rounds) in enumerate(rows)
    ]


def _side(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"before": None, "after": None, "change": "–", "way": ""}
    before = sum(row["loss_before"] for row in rows) / len(rows)
    after = sum(row["loss_after"] for row in rows) / len(rows)
    change = f"{after - before:+.3f}".replace("-", "\N{MINUS SIGN}")
    return {"before": before, "after": after, "change": change, "way": _way(before, after)}


def _speakers(run: dict[str, Any]) -> list[dict[str, Any]]:
    measured = {
        row["speaker"]: row for side in ("clients", "speakers") for row in run["evaluation"][side]
    }
    groups = []
    for role, part in PARTS.items():
        rows = [
            {"note": None, **speaker, **_with_way(measured.get(speaker["speaker"], NOT_MEASURED))}
            for speaker in run["data"]["speakers"]
            if speaker["role"] == role
        ]
        if rows:
            groups.append({"part": part, "rows": rows, "folded": len(rows) > LONG_TABLE})
    return groups


def _with_way(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "way": _way(row["loss_before"], row["loss_after"])}


def _way(before: float | None, after: float | None) -> str:
    if before is None or after is None or before == after:
        return ""
    return "better-text" if after < before else "worse-text"


def _data_caption(data: dict[str, Any]) -> str:
    root = f" '{data['root_name']}'" if data["root_name"] else ""
    shift = (
        "as recorded" if data["shift"] == "none" else f"heard through a simulated {data['shift']}"
    )
    separation = data.get("separation")
    measured = "" if separation is None else f"; measured separation {verdict.figure(separation)}"
    return f"{data['kind'].capitalize()} corpus{root}, {shift}{measured}."


def _skipped(files: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    reasons: dict[str, list[str]] = {}
    for file in files:
        reasons.setdefault(file["reason"], []).append(file["name"])
    return sorted(reasons.items(), key=lambda item: -len(item[1]))


def _read_ledger(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"sentence": "This run folder has no ledger.", "kinds": Counter()}
    kinds: Counter[str] = Counter()
    try:
        found = verify(read_lines(path))
        for i, line in enumerate(read_lines(path)):
            kinds[parse(line.removesuffix(b"\n"), i).kind] += 1
    except BadLedger as error:
        return {"sentence": f"The ledger does not verify. {error}", "kinds": Counter()}
    counted = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()) if kind != "genesis")
    signed = (
        f"It is signed up to entry {found.signed_to} by {', '.join(sorted(found.keys))}."
        if found.signed_to >= 0
        else "It holds no signed checkpoint: only a copy of its head can show that it is whole."
    )
    sentence = (
        f"ledger.jsonl holds {found.length} entries ({counted}); their chain is unbroken. {signed}"
    )
    return {"sentence": f"{sentence} Its head is {found.head}.", "kinds": kinds}


def _digests(run: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Shared adapter, final", run["shared_adapter_sha256"]),
        ("Shared adapter, initial", run["shared_adapter"]["initial_sha256"]),
        ("Its layout", f"{run['shared_adapter']['spec']} (d = {run['shared_adapter']['d']})"),
        ("Base model", run["base_sha256"]),
        ("Speaker encoder", run["speaker_encoder_sha256"] or "none"),
        ("Corpus", run["data"]["corpus_sha256"]),
    ]
    voice = run.get("voice")
    if voice is not None:
        rows.append((f"Exported voice {voice['path']} ({voice['speaker']})", voice["sha256"]))
    return rows


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [
            row
            for key, item in value.items()
            for row in _flat(item, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list):
        return [(name, ", ".join(str(item) for item in value) or "none")]
    words = {None: "none", True: "yes", False: "no"}
    plain = value is None or isinstance(value, bool)
    return [(name, words[value] if plain else str(value))]


def _headcount(run: dict[str, Any]) -> str:
    roles = Counter(s["role"] for s in run["data"]["speakers"])
    return f"{roles['client']} clients, {roles['held_out']} voices kept aside"


def _moment(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%-d %B %Y, %H:%M} UTC"


def _three_decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _figure_or_dash(value: float | None, none: str = "–") -> str:
    return none if value is None else verdict.figure(value)
