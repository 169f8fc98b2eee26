"""The audit report as one offline HTML file, and as PDF pages of the same."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from chorister.server.report_record import AuditReport, DeviceBudget
from chorister.shared.charts import Series, line_chart, spectrogram_chart
from chorister.shared.errors import UsageError
from chorister.shared.page import STYLE
from chorister.shared.privacy.figures import MEANINGFUL_EPSILON, label_of
from chorister.shared.signing import VerifyKey

RESPONSIBLE = {
    "Purpose": "purpose",
    "Controller": "controller",
    "Contact": "contact",
    "Legal basis": "legal_basis",
    "Jurisdiction": "jurisdiction",
    "Retention": "retention",
}

DRAWING = (
    "text{font-size:12px;font-family:sans-serif;fill:#5c6b73}.axis{fill:#1d2b33}"
    ".grid{stroke:#dfe4e6;stroke-width:1}.line{fill:none;stroke-width:2}"
    ".line.a{stroke:#1f6f78}.line.b{stroke:#b26a2c}.mark.a{fill:#1f6f78}.mark.b{fill:#b26a2c}"
    ".reference{stroke:#a3413a;stroke-width:1;stroke-dasharray:4 3}.reference-name{fill:#a3413a}"
)
"""What the stylesheet says of drawings, without variables."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure of the page: title, legend of (class, name), a note, and the drawing."""

    title: str
    legend: tuple[tuple[str, str], ...]
    note: str
    svg: Markup


def render(report: AuditReport, signer: VerifyKey) -> str:
    """Return the page.

    Args:
        report: what it says.
        signer: the key that will sign it, which the page names.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "moment": _moment, "figure": figure, "epsilon": _epsilon, "labelled": _labelled,
        "first_upper": lambda text: text[:1].upper() + text[1:],
    }  # fmt: skip
    template = files("chorister.server").joinpath("audit_page.html").read_text(encoding="utf-8")
    sizes = sorted({r.survivors for r in report.rounds if r.status == "finished"})
    return environment.from_string(template).render(
        r=report, style=Markup(STYLE), tone=_tone(report), headline=_headline(report),  # noqa: S704 (our own stylesheet)
        finished=sum(r.status == "finished" for r in report.rounds),
        sizes=f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else (sizes[0] if sizes else "no"),
        charts=_charts(report), tables=_tables(report), pictures=_pictures(report),
        responsible=[(n, getattr(report.responsible, f)) for n, f in RESPONSIBLE.items()],
        signer=signer.name, signer_key=signer.raw.hex(),
    )  # fmt: skip


def print_pdf(page: str) -> bytes:
    """Return the page as PDF.

    Raises:
        UsageError: WeasyPrint, or the Pango library that it draws text with, is not installed.
    """
    try:
        from weasyprint import HTML
    except (ImportError, OSError) as error:
        raise UsageError(
            "PDF pages are drawn by WeasyPrint with the system's Pango library.",
            str(error).partition("\n")[0][:160],
            "pip install 'chorister[server]', and apt-get install libpango-1.0-0 "
            "libpangoft2-1.0-0 (macOS: brew install pango); or print the HTML from a browser.",
        ) from None
    # A drawing inside a page does not see the page's stylesheet there.
    ready = re.sub(
        r'(<svg class="chart".*?</title>)', rf"\1<style>{DRAWING}</style>", page, flags=re.DOTALL
    )
    drawn: bytes = HTML(string=ready).write_pdf()
    return drawn


def figure(value: float | None) -> str:
    """Return a number with three significant digits, a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _epsilon(value: float | None) -> str:
    return "unbounded" if value is None else f"ε = {figure(value)}"


def _labelled(value: float | None) -> Markup:
    """A figure, with its label where it means nothing."""
    label = label_of(math.inf if value is None else value)
    tag = Markup("") if label is None else Markup(' <span class="tag">{}</span>')
    return Markup("{}{}").format(
        "unbounded" if value is None else figure(value), tag.format(label) if label else tag
    )


def _moment(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%-d %B %Y, %H:%M} UTC"


def _tone(report: AuditReport) -> str:
    if not report.sound or not report.figures:
        return "bad"
    weak = any(f.epsilon is None or f.epsilon > MEANINGFUL_EPSILON for f in report.figures)
    return "mixed" if weak or report.simulated else "good"


def _headline(report: AuditReport) -> str:
    if not report.sound:
        return "The records contradict each other: do not sign this."
    speaker = next((f for f in report.figures if f.unit == "speaker"), None)
    if speaker is None:
        return "No noise protected the speakers."
    if speaker.label:
        return f"The records are sound; the speaker-level figure means {speaker.label}."
    return f"The records are sound; a speaker's privacy cost epsilon {figure(speaker.epsilon)}."


def _charts(report: AuditReport) -> list[Chart]:
    charts = []
    spent = [
        (float(i), r.epsilon_speaker)
        for i, r in enumerate(report.rounds, 1)
        if r.epsilon_speaker is not None
    ]
    limit = next((f.epsilon_max for f in report.figures if f.unit == "speaker"), None)
    if spent:
        near = limit is not None and limit <= 4 * spent[-1][1]
        drawing = line_chart(
            "Speaker-level epsilon after each round", [Series("epsilon", spent, "a")],
            x_label="round", y_label="epsilon", from_zero=True,
            reference=(limit, "limit") if near and limit is not None else None,
        )  # fmt: skip
        note = "largest over devices" + (
            f"; the limit, {figure(limit)}, is further up" if limit is not None and not near else ""
        )
        charts.append(Chart("Speaker-level epsilon after each round", (), note, drawing))
    promised = [
        (float(i), r.noise_promised)
        for i, r in enumerate(report.rounds, 1)
        if r.noise_promised is not None and r.noise_in_sum is not None
    ]
    held = [
        (float(i), r.noise_in_sum)
        for i, r in enumerate(report.rounds, 1)
        if r.noise_in_sum is not None
    ]
    if held:
        drawing = line_chart(
            "Noise promised and noise in the sum",
            [Series("promised", promised, "b"), Series("in the sum", held, "a")],
            x_label="round", y_label="noise multiplier", from_zero=True,
        )  # fmt: skip
        legend = (("a", "in the sum, with the survivors as they were"), ("b", "promised"))
        charts.append(Chart("Noise over sensitivity", legend, "", drawing))
    return charts


def _pictures(report: AuditReport) -> list[tuple[str, Markup]]:
    if report.attacks is None:
        return []
    return [
        (
            p.title,
            spectrogram_chart(
                p.title, f"data:image/png;base64,{p.png}", p.duration_s, p.bands, y_label="mel band"
            ),
        )
        for p in report.attacks.pictures
    ]  # fmt: skip


def _tables(report: AuditReport) -> list[tuple[str, str, list[DeviceBudget]]]:
    groups = groupby(report.devices, key=lambda d: (d.unit, d.source))
    return [(unit, source, list(rows)) for (unit, source), rows in groups]
