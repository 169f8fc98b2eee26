"""Charts as inline SVG: no script, no external asset, text that stays text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from chorister.shared.charts import (
    BOTTOM,
    RIGHT,
    TOP,
    WIDTH,
    mark_at,
    nice_ticks,
    number,
    open_svg,
    text_at,
)

ROW_HEIGHT = 24
NAME_WIDTH = 120
WIDE_NAME = 196


def before_after_chart(
    title: str, rows: Sequence[tuple[str, float, float]], *, x_label: str
) -> Markup:
    """Return one row a name with a mark before, a mark after and the way between.

    Args:
        title: what the chart says, for readers who do not see it.
        rows: (name, before, after), at least one.
        x_label: axis name with its unit.
    """
    values = [value for _, before, after in rows for value in (before, after)]
    ticks = nice_ticks(min(values), max(values), count=4)
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM

    def place(value: float) -> float:
        across = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return NAME_WIDTH + across * (WIDTH - NAME_WIDTH - RIGHT)

    parts = [open_svg(title, WIDTH, height)]
    for tick in ticks:
        x = place(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        parts.append(text_at(x, height - BOTTOM + 17, number(tick, ticks), "middle"))
    for i, (name, before, after) in enumerate(rows):
        y = TOP + ROW_HEIGHT * (i + 0.5)
        parts.append(text_at(NAME_WIDTH - 12, y + 4, _shortened(name), "end"))
        way = "better" if after < before else "worse"
        parts.append(
            f'<line class="way {way}" x1="{place(before):.1f}" x2="{place(after):.1f}"'
            f' y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(mark_at(place(before), y, "before"))
        parts.append(mark_at(place(after), y, f"after {way}"))
    middle = (NAME_WIDTH + WIDTH - RIGHT) / 2
    parts.append(text_at(middle, height - 8, x_label, "middle", "axis"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (all text is escaped above)


@dataclass(frozen=True, slots=True)
class Span:
    """One row of an interval chart.

    Attributes:
        name: shown at its left.
        mean: where its mark lies.
        low, high: ends of its whisker; equal to the mean for none.
        style: class name of its mark: 'a', 'b', or 'plain' for what is only compared with.
    """

    name: str
    mean: float
    low: float
    high: float
    style: str = "plain"


def interval_chart(title: str, rows: Sequence[Span], *, x_label: str) -> Markup:
    """Return one row a name with a mark at its mean and a whisker from end to end.

    Args:
        title: what the chart says, for readers who do not see it.
        rows: at least one.
        x_label: axis name with its unit.
    """
    ticks = nice_ticks(min(row.low for row in rows), max(row.high for row in rows), count=4)
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM

    def place(value: float) -> float:
        across = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return WIDE_NAME + across * (WIDTH - WIDE_NAME - RIGHT)

    parts = [open_svg(title, WIDTH, height)]
    for tick in ticks:
        x = place(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        parts.append(text_at(x, height - BOTTOM + 17, number(tick, ticks), "middle"))
    for i, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * (i + 0.5)
        parts.append(text_at(WIDE_NAME - 12, y + 4, row.name, "end"))
        ends = f'x1="{place(row.low):.1f}" x2="{place(row.high):.1f}"'
        parts.append(f'<line class="whisker {row.style}" {ends} y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(mark_at(place(row.mean), y, row.style))
    parts.append(text_at((WIDE_NAME + WIDTH - RIGHT) / 2, height - 8, x_label, "middle", "axis"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (all text is escaped above)


def _shortened(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
