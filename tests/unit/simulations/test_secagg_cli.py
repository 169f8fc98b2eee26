"""`chorister secagg plan` and its refusals; `bench` at a size that takes a second."""

from __future__ import annotations

import json

import pytest

from chorister.shared.errors import UsageError
from chorister.simulations.secagg_cli import main


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    assert main([*arguments, "--json"]) == 0
    values: dict[str, float] = json.loads(capsys.readouterr().out)
    return values


def test_a_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan = _json(capsys, "plan", "--cohort", "20", "--gamma", "0.1", "--rounds", "3")
    assert plan["corrupt"] == 2
    assert plan["complete"] is True
    assert plan["share_threshold"] == plan["vote_quorum"] == 12
    assert 0 < plan["abort_probability"] < 0.05
    once = _json(capsys, "plan", "--cohort", "20", "--gamma", "0.1")
    assert plan["epsilon"] > once["epsilon"] > 0
    assert "epsilon" not in _json(capsys, "plan", "--cohort", "20", "--noise", "0")


def test_a_plan_for_people_says_that_small_cohorts_abort(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--cohort", "6", "--dropout", "0.34"]) == 0
    out = capsys.readouterr().out
    assert "abort probability" in out
    assert "rounds will be repeated" in out
    assert "one speaker" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--cohort", "1"],
        ["plan", "--cohort", "-5"],
        ["plan", "--cohort", "4097"],
        ["plan", "--cohort", "1000000000"],
        ["plan", "--cohort", "8", "--gamma", "0.3", "--dropout", "0.5"],
        ["plan", "--cohort", "8", "--delta", "0"],
        ["plan", "--cohort", "100", "--delta", "0.01"],
        ["plan", "--cohort", "8", "--bit-share", "1"],
        ["plan", "--cohort", "8", "--bit-share", "0.1", "--noise", "0"],
        ["plan", "--cohort", "8", "--rounds", "0"],
        ["plan", "--cohort", "8", "--clip", "nan"],
        ["plan", "--cohort", "8", "--noise", "nan"],
        ["plan", "--cohort", "8", "--noise", "-1"],
        ["plan", "--cohort", "8", "--dim", "0"],
        ["plan", "--cohort", "8", "--bits", "40"],
        ["bench", "--neighbours", "2"],
        ["bench", "--repeats", "0"],
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        main(arguments)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_a_plan_with_an_adaptive_clip_says_how_well_it_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--cohort", "100", "--bit-share", "0.1", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    # Noise of z / (2 sqrt(share) n) in a share of n, for min_honest of them.
    expected = 1 / (2 * 0.1**0.5 * 100) * (100 / plain["min_honest"]) ** 0.5
    assert plain["share_within_error"] == pytest.approx(expected, rel=0.01)
    assert main(["plan", "--cohort", "100", "--bit-share", "0.1"]) == 0
    assert "clip bit" in capsys.readouterr().out


def test_a_small_benchmark_runs_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--dim", "1000", "--neighbours", "4", "--repeats", "1", "--cohort-dim", "10"]
    result = _json(capsys, "bench", *size, "--cohorts", "6")
    for side in ("client", "server", "mask"):
        assert result[f"{side}_speedup_vs_flower"] > 0
    assert result["upload_expansion"] > 1
    assert result["cohorts"][0]["survivors"] == 5  # the first of twenty drops out
    assert main(["bench", *size, "--cohorts", "6"]) == 0
    assert "SecAgg+" in capsys.readouterr().out
