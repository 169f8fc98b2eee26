import itertools
import xml.etree.ElementTree as ET

import pytest

from chorister.shared.charts import Series, line_chart, nice_ticks, number, spectrogram_chart
from chorister.simulations.charts import (
    Span,
    before_after_chart,
    interval_chart,
)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (1.18, 1.02), (0.1, 0.10001), (3, 3), (0, 0), (-5, 120), (1e-9, 2e-9), (0, 1e6)],
)
def test_ticks_span_the_values_and_are_evenly_spaced(low, high):
    low, high = min(low, high), max(low, high)
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.02, 1.18), (0, 0.25), (0, 12), (-2, 2)])
def test_tick_labels_tell_the_ticks_apart_and_say_their_value(low, high):
    ticks = nice_ticks(low, high)
    labels = [number(tick, ticks) for tick in ticks]
    assert len(set(labels)) == len(labels)
    assert [float(label.replace("−", "-")) for label in labels] == pytest.approx(ticks)


def test_names_are_escaped_and_the_picture_is_xml():
    nasty = "<script>&\"'"
    svg = line_chart(nasty, [Series(nasty, [(0, 1), (1, 2)], "a")], x_label=nasty, y_label=nasty)
    assert "<script" not in svg
    root = ET.fromstring(svg)  # noqa: S314 (our own output)
    assert root.find("{*}title").text == nasty
    ET.fromstring(before_after_chart(nasty, [(nasty, 1.0, 2.0)], x_label=nasty))  # noqa: S314


def test_a_single_point_and_equal_values_can_be_drawn():
    ET.fromstring(line_chart("t", [Series("s", [(1, 3.0)], "a")], x_label="x", y_label="y"))  # noqa: S314
    ET.fromstring(before_after_chart("t", [("n", 1.0, 1.0)], x_label="x"))  # noqa: S314


def test_marks_lie_where_the_axis_says():
    svg = line_chart("t", [Series("s", [(0, 0.0), (4, 1.0)], "a")], x_label="x", y_label="y")
    root = ET.fromstring(svg)  # noqa: S314
    texts = {t.text: t for t in root.iter("{http://www.w3.org/2000/svg}text")}
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert float(circles[-1].get("cx")) == pytest.approx(float(texts["4"].get("x")), abs=0.2)
    assert float(circles[-1].get("cy")) == pytest.approx(float(texts["1.00"].get("y")) - 4, abs=0.2)


def test_better_and_worse_are_told_apart():
    svg = before_after_chart("t", [("up", 1.0, 2.0), ("down", 2.0, 1.0)], x_label="x")
    assert svg.count("way worse") == 1
    assert svg.count("way better") == 1


def test_intervals_lie_where_the_axis_says():
    rows = [Span("real", 1.0, 0.9, 1.0, "a"), Span("none", 0.0, 0.0, 0.0)]
    root = ET.fromstring(interval_chart("t", rows, x_label="cosine"))  # noqa: S314
    texts = {t.text: t for t in root.iter("{http://www.w3.org/2000/svg}text")}
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert float(circles[0].get("cx")) == pytest.approx(float(texts["1.0"].get("x")), abs=0.2)
    assert float(circles[1].get("cx")) == pytest.approx(float(texts["0.0"].get("x")), abs=0.2)
    whisker = root.find("{*}line[@class='whisker a']")
    assert float(whisker.get("x1")) < float(whisker.get("x2"))


def test_a_spectrogram_has_both_axes_with_units():
    svg = spectrogram_chart("<t>", "data:image/png;base64,AA==", 2.5, 8.0)
    root = ET.fromstring(svg)  # noqa: S314
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"time, s", "frequency, kHz", "0", "8", "2"} <= set(texts)
    assert root.find("{*}title").text == "<t>"
