"""What a run came to, in words that a newcomer understands, computed from its figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from chorister.shared.privacy.figures import label_of

SIGNIFICANT = 0.05
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Tone = Literal["good", "mixed", "bad"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first thing that a report says.

    Attributes:
        headline: one sentence.
        because: the figures behind it, as further sentences.
        tone: how it reads.
    """

    headline: str
    because: tuple[str, ...]
    tone: Tone


def judge(run: dict[str, Any]) -> Verdict:
    """Return the verdict on a run.

    Args:
        run: the record, as docs/run.schema.json describes it.
    """
    finished = [r for r in run["rounds"] if r["status"] == "finished"]
    change = describe_change(run["evaluation"])
    if not run["federated"]:
        return _judge_local(run)
    if not finished:
        reasons = {r["reason"] for r in run["rounds"] if r["reason"]}
        return Verdict(
            "No round was finished, so nothing was learned.", tuple(sorted(reasons)), "bad"
        )
    ratio = finished[-1]["noise_to_signal"]
    if run["private"] and ratio is not None and ratio > 1:
        sentences = [
            f"{finished[-1]['survivors']} clients, noise to signal {figure(ratio)}: where it is "
            "above 1, what a round changes is mostly noise."
        ]
        advice = run.get("cohort_advice")
        if advice is not None:
            sentences.append(
                f"About {advice['cohort_for_target']} clients a round would bring it to "
                f"{figure(advice['target'])}."
            )
        sentences.append(f"Measured: {_lower(change.headline)}")
        return Verdict(
            "The noise exceeds the learning: the cohort is too small.",
            (*sentences, *change.because),
            "bad",
        )
    return Verdict(change.headline, (*change.because, *_privacy(run)), change.tone)


def describe_change(evaluation: dict[str, Any]) -> Verdict:
    """Return what became of the voices outside the federation."""
    rows, test = evaluation["speakers"], evaluation["paired_test"]
    if not rows:
        return Verdict("No voice was kept aside to measure, so nothing can be said.", (), "mixed")
    before = sum(row["loss_before"] for row in rows) / len(rows)
    after = sum(row["loss_after"] for row in rows) / len(rows)
    way = f"loss {figure(before)} → {figure(after)}"
    voices = "voice" if len(rows) == 1 else "voices"
    who = f"{len(rows)} {voices} that {'was' if len(rows) == 1 else 'were'} not in the choir"
    if test is None or least_p_value(test) > SIGNIFICANT:
        trend = "lower" if after < before else "higher" if after > before else "the same"
        return Verdict(
            f"The loss of {who} is {trend} with the shared adapter ({way}).",
            (f"{len(rows)} {voices} cannot show more than a direction: no test could tell.",),
            "mixed",
        )
    p = f"{way}, {p_text(test['p_value'])}, {len(rows)} {voices}"
    if test["p_value"] >= SIGNIFICANT:
        return Verdict(f"No clear change for voices that were not in the choir ({p}).", (), "mixed")
    if test["mean_difference"] < 0:
        return Verdict(
            f"The shared adapter got better for voices that were not in the choir ({p}).",
            (),
            "good",
        )
    return Verdict(
        f"The shared adapter got worse for voices that were not in the choir ({p}).", (), "bad"
    )


def least_p_value(test: dict[str, Any]) -> float:
    """Return the least p-value that a test on the signs or ranks of n differences can give."""
    sides = 2 if test["alternative"] == "two-sided" else 1
    return float(min(1.0, sides * 2.0 ** -test["n"]))


def budget_label(budget: dict[str, Any]) -> str | None:
    """Return the label that a budget's figure has to carry."""
    epsilon = budget["epsilon"]
    label: str | None = budget["label"]
    return label_of(math.inf if epsilon is None else epsilon) or label


def figure(value: float) -> str:
    """Return a number with three significant digits, as people write it."""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        power = "10" + str(int(exponent)).translate(SUPERSCRIPT)
        text = power if mantissa == "1" else f"{mantissa} × {power}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(p_value: float) -> str:
    """Return a p-value as papers print it."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _judge_local(run: dict[str, Any]) -> Verdict:
    rows = run["evaluation"]["clients"]
    if not rows:
        return Verdict("Each device trained alone, and nothing was measured.", (), "mixed")
    better = sum(row["loss_after"] < row["loss_before"] for row in rows)
    return Verdict(
        f"Each device trained alone: {better} of {len(rows)} voices got better by it.",
        ("Nothing was shared, so nothing was learned from others and nothing left a device.",),
        "good" if better == len(rows) else "mixed",
    )


def _privacy(run: dict[str, Any]) -> tuple[str, ...]:
    if not run["private"]:
        return ("Privacy was switched off: nothing bounds what the shared adapter tells.",)
    sentences = []
    for budget in run["budgets"]:
        label = budget_label(budget)
        epsilon = (
            "unbounded" if budget["epsilon"] is None else f"epsilon {figure(budget['epsilon'])}"
        )
        sentences.append(
            f"Privacy of a {budget['unit']}: {epsilon}" + (f", {label}." if label else ".")
        )
    return tuple(sentences)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
