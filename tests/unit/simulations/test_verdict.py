import copy
import json
from pathlib import Path

import pytest

from chorister.simulations.verdict import budget_label, describe_change, figure, judge, p_text

VECTORS = Path(__file__).parents[2] / "vectors"


@pytest.fixture
def run():
    return json.loads((VECTORS / "run_synthetic.json").read_text())


def quiet(run):
    """The same run with so large a cohort that the noise is below the signal."""
    for r in run["rounds"]:
        r["noise_to_signal"] = 0.3
    return run


def test_noise_above_the_signal_comes_first_and_says_which_cohort_would_do(run):
    verdict = judge(run)
    assert verdict.headline == "The noise exceeds the learning: the cohort is too small."
    assert verdict.tone == "bad"
    said = " ".join(verdict.because)
    assert "8 clients, noise to signal 2.8" in said
    assert "About 76 clients a round would bring it to 0.3." in said
    assert "1.25 → 1.12" in said


def test_a_significant_gain_is_a_gain(run):
    verdict = judge(quiet(run))
    assert verdict.headline == (
        "The shared adapter got better for voices that were not in the choir "
        "(loss 1.25 → 1.12, p = 0.031, 6 voices)."
    )
    assert verdict.tone == "good"


def test_a_significant_loss_is_a_loss(run):
    for row in run["evaluation"]["speakers"]:
        row["loss_before"], row["loss_after"] = row["loss_after"], row["loss_before"]
    run["evaluation"]["paired_test"]["mean_difference"] *= -1
    verdict = judge(quiet(run))
    assert verdict.headline.startswith("The shared adapter got worse")
    assert verdict.tone == "bad"


def test_what_chance_would_do_is_no_clear_change(run):
    run["evaluation"]["paired_test"]["p_value"] = 0.4
    verdict = judge(quiet(run))
    assert verdict.headline.startswith("No clear change")
    assert verdict.tone == "mixed"


def test_too_few_voices_show_a_direction_only(run):
    few = run["evaluation"]
    few["speakers"] = few["speakers"][:2]
    few["paired_test"].update(n=2, p_value=0.5)
    verdict = describe_change(few)
    assert "2 voices that were not in the choir is lower" in verdict.headline
    assert "no test could tell" in verdict.because[0]
    few["speakers"], few["paired_test"] = few["speakers"][:1], None
    assert "1 voice that was not in the choir" in describe_change(few).headline


def test_no_finished_round_means_nothing_was_learned(run):
    for r in run["rounds"]:
        r.update(status="aborted", reason="Too few survivors.", adapter_sha256=None)
    verdict = judge(run)
    assert verdict.headline == "No round was finished, so nothing was learned."
    assert verdict.because == ("Too few survivors.",)


def test_without_privacy_it_says_that_nothing_bounds_what_is_told(run):
    run["private"] = False
    run["budgets"] = []
    for r in run["rounds"]:
        r["noise_to_signal"] = None
    assert "nothing bounds" in " ".join(judge(run).because)


def test_without_federation_it_counts_the_voices_that_got_better(run):
    run["federated"] = False
    run["rounds"] = []
    assert judge(run).headline == "Each device trained alone: 7 of 8 voices got better by it."


def test_nothing_measured_is_said(run):
    run["evaluation"]["speakers"] = []
    assert "nothing can be said" in judge(quiet(run)).headline


@pytest.mark.parametrize(
    ("epsilon", "label"),
    [
        (None, "no meaningful guarantee"),
        (10.01, "no meaningful guarantee"),
        (10.0, None),
        (1.0, None),
    ],
)
def test_a_figure_above_ten_is_labelled_whatever_the_record_says(run, epsilon, label):
    assert budget_label({**copy.deepcopy(run["budgets"][0]), "epsilon": epsilon}) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345, "1.23"),
        (0.1, "0.1"),
        (1234.5, "1234"),
        (1e-5, "10⁻⁵"),
        (2.5e-7, "2.5 × 10⁻⁷"),
        (-0.5, "−0.5"),
        (0, "0"),
    ],
)
def test_figures_are_written_as_people_write_them(value, text):
    assert figure(value) == text


def test_p_values_are_printed_as_in_papers():
    assert (p_text(0.00001), p_text(0.0312)) == ("p < 0.001", "p = 0.031")
