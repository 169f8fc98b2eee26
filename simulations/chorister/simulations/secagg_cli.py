"""`chorister secagg`: what secure aggregation costs, what follows from a plan, a self-test."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil, sqrt

from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import BadSettings
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.speaker_level import check_population, largest_delta, speaker_figure
from chorister.shared.secagg.planning import CohortPlan, plan_cohort, plan_terms
from chorister.shared.secagg.terms import MAX_COHORT, RoundTerms

SUMMARY = "Measure, plan or self-test the secure aggregation"
EXAMPLES = """examples:
  chorister secagg plan --cohort 100 --gamma 0.05 --dropout 0.1 --dim 4000
  chorister secagg bench --dim 100000 --neighbours 50
  chorister secagg bench --dim 100000 --neighbours 99 --cohorts 100 250 500 1000
  chorister secagg selftest"""


def main(argv: Sequence[str]) -> int:
    """Run one of the three and return the exit status."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    if options.action == "plan":
        return _plan(options)
    if options.action == "bench":
        return _bench(options)
    return _selftest(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "chorister secagg", description=SUMMARY, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True)
    plan = actions.add_parser("plan", help="derive thresholds, noise and abort probability")
    plan.add_argument("--cohort", type=int, required=True, help="devices invited")
    plan.add_argument("--gamma", type=float, default=0.0, help="assumed corrupt fraction")
    plan.add_argument("--dropout", type=float, default=0.1, help="assumed drop-out fraction")
    plan.add_argument("--dim", type=int, default=4000, help="values in a delta")
    plan.add_argument("--bits", type=int, default=32, help="bits of the modulus")
    plan.add_argument("--clip", type=float, default=0.05, help="L2 clip norm of a delta")
    plan.add_argument("--noise", type=float, default=1.0, help="noise multiplier, 0 for none")
    plan.add_argument(
        "--bit-share", type=float, default=0.0, help="part of the cost that an adaptive clip takes"
    )
    plan.add_argument("--rounds", type=int, default=1, help="rounds that a speaker takes part in")
    plan.add_argument("--delta", type=float, default=None, help="default: cohort**-1.1")
    bench = actions.add_parser("bench", help="measure against Flower's SecAgg+")
    bench.add_argument("--dim", type=int, default=100_000, help="values in a delta")
    bench.add_argument("--neighbours", type=int, default=50, help="of every device")
    bench.add_argument("--repeats", type=int, default=3, help="of every measurement")
    bench.add_argument(
        "--cohorts", type=int, nargs="*", default=[100, 250], help="sizes to rehearse"
    )
    bench.add_argument("--cohort-dim", type=int, default=10_000, help="values in their deltas")
    bench.add_argument("--gamma", type=float, default=0.05, help="assumed corrupt fraction there")
    bench.add_argument("--dropout", type=float, default=0.05, help="drop-outs there, in all")
    selftest = actions.add_parser("selftest", help="check this installation against the vectors")
    for action in (plan, bench, selftest):
        add_output_options(action)
    return parser


def _plan(options: argparse.Namespace) -> int:
    plan = plan_cohort(options.cohort, options.gamma, options.dropout)
    terms = plan_terms(
        plan, federation="plan", run="plan", round_number=0, dimension=options.dim,
        modulus_bits=options.bits, clip_norm=options.clip, noise_multiplier=options.noise,
        adapter="0" * 64, simulated=True, bit_share=options.bit_share,
    )  # fmt: skip
    delta = largest_delta(options.cohort) if options.delta is None else options.delta
    if not 0 < delta < 1 or options.rounds < 1:
        raise BadSettings(
            "A plan has at least one round and a delta between 0 and 1.",
            f"{options.rounds} rounds, delta {delta}", "Change --rounds or --delta.",
        )  # fmt: skip
    if terms.private:
        check_population(delta, options.cohort)
    t = plan.thresholds
    values: dict[str, object] = {
        **asdict(t),
        "log2_failure": None if t.complete else t.log2_failure,
        "complete": t.complete,
        "abort_probability": plan.abort_probability,
        "scale": terms.scale,
        "sensitivity_steps": terms.sensitivity,
        "client_variance": terms.client_variance,
        "noise_to_signal": options.noise * options.dim**0.5 / options.cohort,
        "bit_steps": terms.bit_steps,
        "share_within_error": _share_error(plan, terms),
    }
    if terms.private:
        event = PrivacyEvent(SPEAKER_MECHANISM, terms.noise_multiplier, 1.0, options.rounds)
        figure = speaker_figure([event], delta)
        values |= {"epsilon": figure.epsilon, "delta": delta}
    if options.json:
        print_json(values)
        return 0
    for line in _plan_lines(plan, terms):
        say(line)
    if terms.private:
        say(f"privacy of {options.rounds} round(s)  {figure.sentence()}")
    return 0


def _share_error(plan: CohortPlan, terms: RoundTerms) -> float | None:
    """Return the standard deviation of the share of deltas within the clip, None without bits."""
    if not terms.bit_steps:
        return None
    noise = sqrt(plan.cohort * terms.client_variance)
    return noise / (2 * terms.bit_steps * plan.cohort)


def _plan_lines(plan: CohortPlan, terms: RoundTerms) -> list[str]:
    t = plan.thresholds
    graph = "complete graph" if t.complete else f"random graph, failure 2^{t.log2_failure:.1f}"
    lines = [
        f"cohort             {t.roster}, of which {t.corrupt} assumed corrupt",
        f"neighbours         {t.neighbours} ({graph})",
        f"share threshold    {t.share_threshold} of {t.neighbours + 1} shares",
        f"vote quorum        {t.vote_quorum} signatures under one set of survivors",
        f"min survivors      {t.min_survivors}",
        f"min honest         {t.min_honest} ({t.hidden} more may be left out unnoticed)",
        f"abort probability  {plan.abort_probability:.2g} for an honest round",
        f"scale              {terms.scale:.6g} steps per unit, sensitivity {terms.sensitivity:.6g}",
        f"noise per device   discrete Gaussian, variance parameter {terms.client_variance}",
    ]
    error = _share_error(plan, terms)
    if error is not None:
        lines.append(
            f"clip bit           {terms.bit_steps} steps up or down; tells the share of deltas "
            f"within the clip to {error:.2g} (one standard deviation)"
        )
    if plan.abort_probability > 0.05:
        lines.append("                   large, as for any small cohort: rounds will be repeated")
    if not terms.private:
        lines.append("                   none: a run without speaker-level privacy")
        return lines
    ratio = terms.noise_multiplier * terms.dimension**0.5 / t.roster
    lines.append(
        f"noise to signal    {ratio:.3g} in the mean, if all deltas reach the clip and agree"
    )
    if ratio > 1:
        enough = ceil(terms.noise_multiplier * terms.dimension**0.5 / 0.3)
        lines.append(f"                   too small a cohort: about {enough} would bring it to 0.3")
    return lines


def _bench(options: argparse.Namespace) -> int:
    # Flower's client is heavy to import, and only this action needs it.
    from chorister.simulations.secagg_bench import cohort_figures, compare

    if options.neighbours < 3 or options.neighbours >= MAX_COHORT or options.repeats < 1:
        raise BadSettings(
            f"A benchmark has 3 to {MAX_COHORT - 1} neighbours and at least one repeat.",
            f"{options.neighbours} neighbours, {options.repeats} repeats", "Change them.",
        )  # fmt: skip
    with progress("Chorister and SecAgg+", 2 * options.repeats + 2) as step:
        result = compare(options.dim, options.neighbours, options.repeats, step)
    rows = []
    with progress("cohorts", len(options.cohorts)) as step:
        for cohort in options.cohorts:
            rows.append(cohort_figures(cohort, options.cohort_dim, options.gamma, options.dropout))
            step()
    if options.json:
        print_json({**result.to_plain(), "cohorts": [asdict(row) for row in rows]})
        return 0
    plain = result.to_plain()
    say(f"d = {result.dimension}, {result.neighbours} neighbours; processor milliseconds")
    say(f"{'':34}{'Chorister':>11}{'SecAgg+':>11}{'ratio':>8}")
    for title, ours, theirs, ratio in (
        ("a device's round, without noise", "client_s", "client_flower_s", "client"),
        ("one mask, expanded and added", "mask_s", "mask_flower_s", "mask"),
        ("unmasking, a tenth dropped out", "server_s", "server_flower_s", "server"),
    ):
        speedup = plain[f"{ratio}_speedup_vs_flower"]
        say(f"{title:34}{plain[ours] * 1e3:11.2f}{plain[theirs] * 1e3:11.2f}{speedup:8.1f}")
    say(f"{'a device noise, sampled exactly':34}{result.noise_s * 1e3:11.2f}")
    say(
        f"upload {result.upload_bytes} bytes, {result.upload_expansion:.4f} times the vector "
        f"({result.neighbours} neighbours)"
    )
    if rows:
        say(
            f"\nd = {options.cohort_dim}, gamma {options.gamma}, drop-outs {options.dropout} in all"
        )
        say("cohort    k  survivors  device ms  server s  round s  up kB  down kB")
    for row in rows:
        say(
            f"{row.cohort:6}{row.neighbours:5}{row.survivors:11}{row.device_s * 1e3:11.1f}"
            f"{row.server_s:10.2f}{row.round_s:9.1f}{row.up_bytes / 1e3:7.1f}"
            f"{row.down_bytes / 1e3:9.1f}"
        )
    return 0


def _selftest(options: argparse.Namespace) -> int:
    from chorister.simulations.secagg_vectors import check, load

    checked, failures = check(load())
    if options.json:
        print_json({"checked": checked, "failures": failures})
    else:
        for failure in failures:
            say(f"FAILED {failure}")
        say(f"{checked} vectors checked, {len(failures)} failed")
    return 1 if failures else 0
