"""Charts as inline SVG: no script, no external asset, text that stays text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 46


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        points: (x, y) in the order of x; gaps are left out by the caller.
        style: class name of its colour and mark: 'a' or 'b'.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    reference: tuple[float, str] | None = None,
    from_zero: bool = False,
) -> Markup:
    """Return a line chart over whole numbers on the x axis.

    Args:
        title: what the chart says, for readers who do not see it.
        series: at least one, each with at least one point.
        x_label, y_label: axis names with their units.
        reference: a level to draw across and its name.
        from_zero: whether the y axis begins at 0.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    if reference is not None:
        ys.append(reference[0])
    y_ticks = nice_ticks(0.0 if from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = [open_svg(title, WIDTH, HEIGHT)]
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(text_at(LEFT - 8, y + 4, number(tick, y_ticks), "end"))
    for tick in whole_ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts.append(text_at(x, HEIGHT - BOTTOM + 17, f"{tick:g}", "middle"))
    parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle", "axis"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(13 {middle:.0f}) '
        f'rotate(-90)">{escape(y_label)}</text>'
    )
    if reference is not None:
        _, y = place(x_low, reference[0])
        parts.append(
            f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(text_at(WIDTH - RIGHT, y - 5, reference[1], "end", "reference-name"))
    for line in series:
        places = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        parts.extend(mark_at(x, y, line.style) for x, y in places)
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (all text is escaped above)


def spectrogram_chart(
    title: str, picture: str, duration_s: float, top: float, *, y_label: str = "frequency, kHz"
) -> Markup:
    """Return a spectrogram between a time axis and a frequency axis.

    Args:
        title: what it shows, for readers who do not see it.
        picture: data URI of the image, low frequencies below.
        duration_s: of the sound.
        top: the highest frequency in the picture, in what the y axis counts.
        y_label: name of that axis with its unit.
    """
    left, bottom, above, width, height = 40, 36, 6, WIDTH, 190
    across, up = width - left - 8, height - bottom - above
    parts = [open_svg(title, width, height)]
    parts.append(
        f'<image href="{escape(picture)}" x="{left}" y="{above}" width="{across}" height="{up}"'
        ' preserveAspectRatio="none"/>'
    )
    for tick in (value for value in nice_ticks(0.0, top) if value <= top):
        parts.append(text_at(left - 6, above + up * (1.0 - tick / top) + 4, f"{tick:g}", "end"))
    for second in (t for t in nice_ticks(0.0, duration_s) if t <= duration_s):
        x = left + across * second / duration_s
        parts.append(text_at(x, height - bottom + 15, f"{second:g}", "middle"))
    parts.append(text_at(left + across / 2, height - 4, "time, s", "middle", "axis"))
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(10 {above + up / 2:.0f}) '
        f'rotate(-90)">{escape(y_label)}</text>'
    )
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (all text is escaped above)


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return about `count` round numbers, evenly spaced, that span [low, high]."""
    if high - low < 1e-12:
        pad = max(abs(high) * 0.1, 1e-6)
        low, high = low - pad, high + pad
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float, ticks: Sequence[float]) -> str:
    """Return a tick's label with as many decimals as the ticks' spacing needs."""
    step = ticks[1] - ticks[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, decimals) != round(step, decimals + 1):
        decimals += 1
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def whole_ticks(low: float, high: float) -> list[float]:
    """Return about eight whole numbers in [low, high]."""
    step = max(1, math.ceil((high - low) / 8))
    return [float(x) for x in range(math.ceil(low), math.floor(high) + 1, step)]


def open_svg(title: str, width: int, height: int) -> str:
    """Return the opening tag, with a title for readers who do not see the drawing."""
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
    )


def text_at(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    """Return a text, escaped; `kind` is its class."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def mark_at(x: float, y: float, style: str) -> str:
    """Return a mark: a square for style 'b', a dot for any other."""
    if style == "b":
        return f'<rect class="mark b" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    return f'<circle class="mark {style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
