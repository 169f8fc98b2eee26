"""`chorister consent benchmark`: does the check of a statement tell the speaker from another?

A trial is what an enrolment gives: one utterance in the statement's place, and recordings of at
least 20 s beside it. Speakers that the shipped encoder was trained on are left out where the corpus
comes with splits.json; the limit was chosen on others than those that are reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from chorister.client.same_speaker import DIGITS_LIMIT, STATEMENT_LIMIT
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    say,
)
from chorister.shared.errors import BadSettings, UsageError
from chorister.simulations.consent_pairs import (
    CHOOSING,
    ENROLMENT_S,
    REPORTED,
    STATEMENT_S,
    Spoken,
    Trials,
    draw_trials,
    read_prints,
    speakers_for,
)
from chorister.simulations.consent_rates import Rates, limit_at, rates

# The limit was chosen at this rate on the speakers `--speakers clients`, rounded up.
STATED_FALSE_ACCEPT = 0.005
# Of honest statements, where the background of statement and digits would be compared.
BACKGROUND_REFUSED = 0.05


def benchmark(argv: Sequence[str]) -> int:
    """Measure how often a statement of the speaker, and one of another, passes."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    if options.digits:
        return _measure_digits(options)
    if options.data is None:
        raise UsageError("Voices are measured on a corpus.", "no --data", "Give --data DIR.")
    if options.pairs < 100:
        raise BadSettings("Rates rest on pairs.", f"{options.pairs}", "Ask for --pairs 2000.")
    chosen, impostors = speakers_for(options.data, options.speakers)
    prints = read_prints(options.data, {*chosen, *impostors})
    trials = draw_trials(
        prints, chosen, impostors, options.pairs, options.seed, apart=options.apart
    )
    found = rates(trials, STATEMENT_LIMIT, options.seed)
    plain = _plain(trials, found)
    if options.forged:
        from chorister.simulations.consent_forgery import forge

        forged = forge(prints, chosen, options.forged, STATEMENT_LIMIT, options.seed)
        plain["forged"] = {
            "attempts": forged.attempts,
            "accept_rate": forged.accepted,
            "accept_rate_unconverted": forged.before,
            "median_score": float(median(forged.scores)),
            "words_understood": forged.understood if isfinite(forged.understood) else None,
        }
    if options.spliced:
        plain["spliced"] = _spliced(prints, chosen, impostors, options)
    if options.json:
        print_json(plain)
    _tell(plain)
    return 0


def _measure_digits(options: argparse.Namespace) -> int:
    from chorister.client.recogniser_sphinx import Sphinx
    from chorister.simulations.consent_digits import digit_rates, hear_digits
    from chorister.simulations.embedded import find_library

    library, data = find_library()
    found = digit_rates(
        hear_digits(options.digits, Sphinx(), library, data, options.seed), options.seed
    )
    if options.json:
        plain = asdict(found)
        plain["by_voice"] = {
            voice: {"statements": count, "exact_rate": exact, "accept_rate": accepted}
            for voice, (count, exact, accepted) in found.by_voice.items()
        }
        print_json({"digits": plain})
    say(f"{found.statements} statements by a synthesiser, {len(found.by_voice)} voices")
    say(f"all six digits heard, and nothing else  {found.exact:8.1%}")
    say(f"accepted                                {found.accepted:8.1%}")
    say(f"other digits accepted                   {found.wrong_accepted:8.3%}"
        f"   of {found.wrong_tried} challenges held against them")  # fmt: skip
    for voice, (count, exact, accepted) in found.by_voice.items():
        say(f"  {voice:22}{count:5} said{exact:8.0%} heard{accepted:8.0%} accepted")
    return 0


def _spliced(
    prints: dict[str, list[Spoken]],
    chosen: Sequence[str],
    impostors: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    from chorister.simulations.consent_spliced import splice

    spliced = splice(prints, chosen, impostors, options.spliced, options.seed)
    found, same = rates(spliced.digits, DIGITS_LIMIT, options.seed), spliced.digits.same
    both = spliced.whole & (spliced.digits.score >= DIGITS_LIMIT)
    return {
        "pairs": len(same),
        "threshold": DIGITS_LIMIT,
        "accept_rate_without": float(spliced.whole[~same].mean()),
        "accept_rate": float(both[~same].mean()),
        "false_accept_rate": found.false_accept,
        "false_accept_interval": list(found.false_accept_interval),
        "false_reject_rate": found.false_reject,
        "false_reject_interval": list(found.false_reject_interval),
        "background_finds": _finite(spliced.noise_found(BACKGROUND_REFUSED)),
        "background_refuses": BACKGROUND_REFUSED,
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister consent benchmark",
        description="Measure the check of the speaker on a corpus: pairs of a statement and an "
        "enrolment, half of them of one speaker and half of two.",
        epilog="example: chorister consent benchmark --data ../shared/data --pairs 2000 --json",
    )
    parser.add_argument("--data", type=Path, help="folder with the corpus; not for --digits")
    parser.add_argument("--pairs", type=int, default=2000, metavar="N", help="default 2000")
    parser.add_argument(
        "--speakers",
        choices=(REPORTED, CHOOSING),
        default=REPORTED,
        help="of splits.json: those reported (default), or those the limit was chosen on",
    )
    parser.add_argument(
        "--apart",
        action="store_true",
        help="statement and recordings from different chapters: another day, often another room",
    )
    parser.add_argument(
        "--forged", type=int, default=0, metavar="N",
        help="also convert N statements of others into the speakers' voices, and count what passes",
    )  # fmt: skip
    parser.add_argument(
        "--spliced", type=int, default=0, metavar="N",
        help="also lengthen N statements by digits of the speaker or of another voice",
    )  # fmt: skip
    parser.add_argument(
        "--digits", type=int, default=0, metavar="N",
        help="only measure how N statements of a synthesiser's voices are heard (needs "
        "chorister[embedded])",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the pairs (default 0)")
    add_output_options(parser)
    return parser


def _plain(trials: Trials, found: Rates) -> dict[str, Any]:
    return {
        "pairs": len(trials.target),
        "speakers": found.speakers,
        "statement_s": STATEMENT_S,
        "enrolment_s": ENROLMENT_S,
        "threshold": STATEMENT_LIMIT,
        "false_accept_rate": found.false_accept,
        "false_accept_interval": list(found.false_accept_interval),
        "false_reject_rate": found.false_reject,
        "false_reject_interval": list(found.false_reject_interval),
        "equal_error_rate": found.equal_error,
        "equal_error_interval": list(found.equal_error_interval),
        "equal_error_threshold": found.equal_error_at,
        "threshold_at_stated_rate": limit_at(trials, STATED_FALSE_ACCEPT),
        "stated_false_accept_rate": STATED_FALSE_ACCEPT,
        "most_refused": {"speaker": found.worst[0], "false_reject_rate": found.worst[1]},
    }


def _tell(plain: dict[str, Any]) -> None:
    say(
        f"{plain['pairs']} pairs, {plain['speakers']} speakers who enrolled; statements of "
        f"{STATEMENT_S:.0f} s or more, {ENROLMENT_S:.0f} s enrolled; limit {STATEMENT_LIMIT}"
    )
    for name, title in (
        ("false_accept", "another's statement passes"),
        ("false_reject", "the speaker's own fails"),
        ("equal_error", "both equal, at another limit"),
    ):
        low, high = plain[f"{name}_interval"]
        say(f"{title:30}{plain[f'{name}_rate']:8.2%}   95 % over speakers {low:.2%} to {high:.2%}")
    worst = plain["most_refused"]
    say(f"refused most: speaker {worst['speaker']}, {worst['false_reject_rate']:.1%} of the time")
    say(
        f"a limit of {plain['threshold_at_stated_rate']:.4f} would accept "
        f"{STATED_FALSE_ACCEPT:.1%} of others here"
    )
    if "forged" in plain:
        forged = plain["forged"]
        say(
            f"forged by our own model: {forged['accept_rate']:.0%} of {forged['attempts']} pass "
            f"for the speaker (unconverted {forged['accept_rate_unconverted']:.0%}, median score "
            f"{forged['median_score']:.3f})"
        )
    if "spliced" in plain:
        spliced = plain["spliced"]
        say(
            f"an old statement with another's digits: {spliced['accept_rate_without']:.1%} pass by "
            f"the whole, {spliced['accept_rate']:.1%} with the check of the digits' voice, which "
            f"refuses {spliced['false_reject_rate']:.1%} of the speaker's own"
        )
        if spliced["background_finds"] is not None:
            say(
                f"the speaker's own digits of another day: a limit on the background that refuses "
                f"{BACKGROUND_REFUSED:.0%} of honest statements would find "
                f"{spliced['background_finds']:.0%} of them, so there is none"
            )
