"""What the page promises to the eye (contrast AA), and that its scripts are all there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chorister.client.web import routes
from chorister.shared.page import STYLE

STATIC = Path(routes.__file__).with_name("static")
COLOURS = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", STYLE))
OWN = (STATIC / "studio.css").read_text(encoding="utf-8")


def luminance(colour: str) -> float:
    """Of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("behind", ["paper", "shade"])
@pytest.mark.parametrize("name", ["ink", "quiet", "a", "good", "bad"])
def test_text_is_read_on_every_background(name: str, behind: str) -> None:
    assert contrast(COLOURS[name], COLOURS[behind]) >= 4.5


@pytest.mark.parametrize("name", ["a", "bad"])
def test_buttons_are_read(name: str) -> None:
    assert contrast("#ffffff", COLOURS[name]) >= 4.5


def test_the_edges_of_controls_are_seen() -> None:
    edges = set(re.findall(r"border: 1px solid (#[0-9a-f]{6})", OWN))
    assert edges
    for edge in edges:
        assert contrast(edge, COLOURS["paper"]) >= 3.0


def test_every_script_that_is_imported_is_served() -> None:
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([a-z]+\.js)"', path.read_text(encoding="utf-8")):
            assert (STATIC / name).is_file()
            assert name in routes._STATIC


def test_labels_are_where_they_are_allowed() -> None:
    """WAI-ARIA 1.2 allows no name on elements without a role that says what they are."""
    nameless = ("p", "span", "div", "strong", "em", "code")
    labelled = 0
    for path in STATIC.glob("*.js"):
        for tag, options in re.findall(
            r'h\("(\w+)", \{([^{}]*"aria-label"[^}]*)\}', path.read_text(encoding="utf-8")
        ):
            labelled += 1
            assert tag not in nameless or "role:" in options, f"{path.name}: {tag}"
    assert labelled > 5
