"""Means over speakers, worst cases and paired gains of rows."""

from __future__ import annotations

import pytest

from chorister.simulations.measurements import (
    Row,
    grouped,
    intervals,
    low_is_worse,
    paired_gain,
    worst_tenth,
)


def row(system: str, target: str, source: str, **values: float) -> Row:
    return Row(system, target, source, "r", values=values)


def test_rows_without_a_measure_are_left_out() -> None:
    rows = [row("s", "a", "x", per=0.5), row("s", "a", "y"), row("s", "b", "x", per=0.1)]
    assert grouped(rows, "per", lambda r: r.target) == {"a": [0.5], "b": [0.1]}
    assert grouped(rows, "wer", lambda r: r.target) == {}


def test_intervals_weigh_targets_alike() -> None:
    rows = [row("s", "a", str(n), per=1.0) for n in range(9)] + [row("s", "b", "x", per=0.0)]
    assert intervals(rows)["per"].mean == pytest.approx(0.5)
    assert intervals(rows, lambda r: r.source)["per"].speakers == 10


@pytest.mark.parametrize(
    ("measure", "low"),
    [
        ("similarity (ge2e)", True),
        ("identified (gmm-ubm)", True),
        ("llr_z", True),
        ("f0_correlation", True),
        ("per", False),
        ("residual (ge2e)", False),
        ("voicing_error", False),
    ],
)
def test_which_end_is_the_bad_one(measure: str, low: bool) -> None:
    assert low_is_worse(measure) is low


def test_the_worst_tenth_looks_at_the_bad_end() -> None:
    rows = [row("s", "a", str(n), per=float(n), llr_z=float(n)) for n in range(10)]
    found = worst_tenth(rows, ("per", "llr_z", "wer"))
    assert (found["per"].mean, found["llr_z"].mean) == (9.0, 0.0)
    assert "wer" not in found


def test_gains_pair_the_same_conversions() -> None:
    before = [row("z", "a", "x", per=0.5), row("z", "a", "y", per=0.9), row("z", "b", "x", per=0.2)]
    after = [row("p", "a", "x", per=0.4), row("p", "b", "x", per=0.3), row("p", "b", "q", per=9.0)]
    gain = paired_gain(after, before)["per"]
    assert gain.mean == pytest.approx(0.0)
    assert (gain.low, gain.high, gain.speakers) == pytest.approx((-0.1, 0.1, 2))
    assert paired_gain([], before) == {}
