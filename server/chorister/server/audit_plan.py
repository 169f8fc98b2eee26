"""`chorister audit plan`: the noise that a goal asks for, and what can be learnt with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chorister.shared.charts import Series, line_chart
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.files import write_atomically
from chorister.shared.page import STYLE
from chorister.shared.privacy.calibration import BudgetPlan, epsilon_after, plan_budget
from chorister.shared.privacy.figures import MEANINGFUL_EPSILON, label_of

EXAMPLES = """examples:
  chorister audit plan --clients 200 --rounds 20 --epsilon 4 --delta 1e-5
  chorister audit plan --clients 50 --rounds 5 --epsilon 8 --delta 1e-3 --plot epsilon.svg

The unit is one speaker: everything that a speaker contributes, in rounds that all take part in."""
BAR = 30
MOST_ROWS = 12


def main(argv: Sequence[str]) -> int:
    """Derive the noise, the signal that is left and the least cohort from a privacy goal."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    plan = plan_budget(
        clients=options.clients, rounds=options.rounds, epsilon=options.epsilon,
        delta=options.delta, dimension=options.dim, gamma=options.gamma, dropout=options.dropout,
    )  # fmt: skip
    curve = _curve(plan)
    if options.plot is not None:
        write_atomically(options.plot, _drawing(plan, curve).encode(), mode=0o644)
    if options.json:
        plain = {k: v for k, v in asdict(plan).items() if k != "cohort"}
        ratio = plan.noise_to_signal
        print_json(
            {
                **plain, "min_honest": plan.cohort.min_honest,
                "min_survivors": plan.cohort.thresholds.min_survivors,
                "abort_probability": plan.cohort.abort_probability,
                "signal_to_noise_db": -20 * math.log10(ratio), "label": label_of(plan.reached),
                "epsilon_by_round": [{"round": r, "epsilon": e} for r, e in curve],
            }
        )  # fmt: skip
        return 0
    for line in (*_lines(plan), "", *_table(plan, curve)):
        say(line)
    if options.plot is not None:
        say(f"\nPlot: {options.plot}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister audit plan",
        description="From a privacy goal to noise multiplier, signal to noise and least cohort.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--clients", type=int, required=True, help="devices in a round's cohort")
    parser.add_argument("--rounds", type=int, required=True, help="rounds that a speaker is in")
    parser.add_argument("--epsilon", type=float, required=True, help="most that a speaker spends")
    parser.add_argument("--delta", type=float, required=True, help="of that epsilon")
    parser.add_argument("--dim", type=int, default=320, help="values in the shared adapter (320)")
    parser.add_argument("--gamma", type=float, default=0.0, help="assumed corrupt fraction (0)")
    parser.add_argument(
        "--dropout", type=float, default=0.15, help="assumed drop-out fraction (0.15)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw epsilon by round")
    add_output_options(parser)
    return parser


def _lines(plan: BudgetPlan) -> list[str]:
    thresholds = plan.cohort.thresholds
    ratio = plan.noise_to_signal
    lines = [
        f"goal               epsilon {plan.epsilon:g} at delta {plan.delta:g} for one speaker over "
        f"{plan.rounds} rounds",
        f"noise multiplier   {plan.noise_multiplier:.4g} (epsilon {plan.reached:.4g} is reached)",
        f"signal to noise    {1 / ratio:.3g} ({-20 * math.log10(ratio):+.1f} dB) with "
        f"{thresholds.min_survivors} survivors; {1 / plan.noise_to_signal_all:.3g} if all "
        f"{plan.clients} stay; if deltas reach the clip and agree",
        f"least cohort       {plan.cohort_to_see} devices for noise = signal, "
        f"{plan.cohort_to_learn} to learn well (noise 0.3 of the signal)",
        f"min honest         {plan.cohort.min_honest} of {plan.clients}: the noise is sized for "
        "them",
        f"abort probability  {plan.cohort.abort_probability:.2g} for an honest round",
    ]
    if plan.clients < plan.cohort_to_see:
        lines.append("                   too small a cohort: the noise will exceed the learning")
    label = label_of(plan.reached)
    if label is not None:
        lines.append(f"label              {label}: epsilon above {MEANINGFUL_EPSILON:g}")
    return lines


def _curve(plan: BudgetPlan) -> list[tuple[int, float]]:
    """Epsilon after each round, at most a hundred of them, half as many again as were asked for."""
    last = math.ceil(plan.rounds * 1.5)
    step = max(1, last // 100)
    marks = sorted({*range(step, last + 1, step), plan.rounds})
    return [(r, epsilon_after(plan.noise_multiplier, r, plan.delta)) for r in marks]


def _table(plan: BudgetPlan, curve: list[tuple[int, float]]) -> list[str]:
    step = max(1, math.ceil(len(curve) / MOST_ROWS))
    rows = [row for i, row in enumerate(curve) if i % step == 0 or row[0] == plan.rounds]
    most = curve[-1][1]
    lines = ["round   epsilon"]
    for number, epsilon in rows:
        bar = "#" * max(1, round(BAR * epsilon / most))
        note = "  <- the goal" if number == plan.rounds else ""
        lines.append(f"{number:5}   {epsilon:7.3f}  {bar}{note}")
    return lines


def _drawing(plan: BudgetPlan, curve: list[tuple[int, float]]) -> str:
    drawing = line_chart(
        f"Epsilon by round with noise multiplier {plan.noise_multiplier:.3g}",
        [Series("epsilon", [(float(r), e) for r, e in curve], "a")],
        x_label="round", y_label=f"epsilon at delta {plan.delta:g}", from_zero=True,
        reference=(plan.epsilon, f"goal: {plan.epsilon:g}"),
    )  # fmt: skip
    head, _, rest = str(drawing).partition("</title>")
    return f"{head}</title><style>{STYLE}</style>{rest}\n"
