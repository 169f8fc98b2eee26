"""`chorister evaluate`: how alike, how intelligible and how fast the conversions are.

    recordings -> enrolment | adaptation | tests | reference -> conversions of a fixed list of pairs
               -> judges of the voice, recognisers of the words, distances, gates -> tables, a page

Always printed beside the results: real speech of the target (what can be reached), the unconverted
source (where it starts), copies by the vocoder and by WORLD, and voice changers without learning.
Intervals come from a bootstrap over target speakers. The protocol is in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    say,
)
from chorister.shared.errors import UsageError

if TYPE_CHECKING:
    from chorister.simulations.evaluation import Spoken
    from chorister.simulations.trials import Panel

SUMMARY = "measure conversions: similarity, identification, intelligibility, distances, speed"
MOST_JOBS = 2
_EXAMPLES = """examples:
  chorister evaluate --data ../shared/data/librispeech/test-clean
      --split ../shared/data/librispeech/splits.json:dev_test --adapt personal
  chorister evaluate --data MY/SPEAKERS --targets 4 --sources 2 --save-audio OUT --page report.html
"""


SOURCE_NOTES = {
    "enrolled": "from the source speaker's enrolment recordings",
    "calibrated": "from the first two seconds of voiced speech in what is converted",
}


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chorister evaluate",
        description=SUMMARY,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="LibriSpeech, VCTK or SPEAKER/*")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--split", metavar="FILE:NAME", help="list of speakers in a JSON file")
    who.add_argument("--speakers", metavar="A,B", help="these speakers")
    parser.add_argument("--targets", type=int, default=6, help="voices to convert to (default: 6)")
    parser.add_argument("--sources", type=int, default=4, help="sources a target (default: 4)")
    parser.add_argument(
        "--voices", type=int, help="voices told apart at most (default: all unknown to the model)"
    )
    parser.add_argument("--references", type=int, default=8, help="enrolled from (default: 8)")
    parser.add_argument(
        "--source",
        choices=("enrolled", "calibrated"),
        default="enrolled",
        help="what is known of the source: its enrolment, or two seconds of what is converted",
    )
    parser.add_argument("--adapt", choices=("none", "personal"), default="none")
    parser.add_argument(
        "--seconds-of-target",
        type=float,
        default=180.0,
        metavar="S",
        help="speech that personalising may see (default: 180)",
    )
    parser.add_argument(
        "--conditions",
        default="all",
        metavar="LIST",
        help="disturb the source as well: all, none, or some of noise,room,narrow (default: all)",
    )
    parser.add_argument("--rivals", action="store_true", help="also nearest neighbours and filters")
    parser.add_argument("--streaming", action="store_true", help="also the shipped streaming model")
    parser.add_argument("--weights", type=Path, help="base model, not the shipped one")
    parser.add_argument(
        "--trained",
        metavar="FILE:NAME",
        help="whom it was trained on, where the weights do not say",
    )
    parser.add_argument(
        "--allow-trained", action="store_true", help="also measure speakers it was trained on"
    )
    parser.add_argument(
        "--no-phones", action="store_true", help="recognise neither phones nor words"
    )
    parser.add_argument("--no-words", action="store_true", help="recognise phones, but no words")
    parser.add_argument("--save-audio", type=Path, metavar="OUT", help="write wavs to a new folder")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write a page with plots")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(MOST_JOBS, os.cpu_count() or 1),
        help="processes that recognise words; 0: none beside this one (default: %(default)s)",
    )
    add_output_options(parser)
    return parser.parse_args(argv)


def _check(options: argparse.Namespace) -> None:
    for name in ("targets", "sources", "references", "threads"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} is at least 1.", str(getattr(options, name)), "Raise it.")
    if options.voices is not None and options.voices < max(2, options.targets):
        raise UsageError(
            "--voices is at least 2 and at least --targets.", str(options.voices), "Raise it."
        )
    if options.jobs < 0:
        raise UsageError("--jobs is at least 0.", str(options.jobs), "Raise it.")
    if not 1.0 <= options.seconds_of_target <= 3600.0:
        raise UsageError(
            "--seconds-of-target is 1 to 3600.", f"{options.seconds_of_target}", "Correct it."
        )
    folder: Path | None = options.save_audio
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "--save-audio takes a new or empty folder.", str(folder), "Choose another name."
        )
    page: Path | None = options.page
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        raise UsageError(
            "--page takes a file in a folder that exists.", str(page), "Choose another name."
        )


def _panel(options: argparse.Namespace) -> tuple[Panel, list[str]]:
    from chorister.shared.voice.base import trained_on
    from chorister.simulations.trials import Wanted, check_not_trained, open_panel, read_speakers

    notes = []
    trained = trained_on(options.weights)
    if options.trained is not None:
        trained |= frozenset(read_speakers(options.trained))
    if not trained:
        notes.append(
            "The weights do not say whom they were trained on: nobody could be refused, and only"
            " the speakers that were asked for are told apart (--trained FILE:NAME says it)."
        )
    speakers: Sequence[str] | None = None
    if options.split is not None:
        speakers = read_speakers(options.split)
    elif options.speakers is not None:
        speakers = [name.strip() for name in options.speakers.split(",") if name.strip()]
    if not options.allow_trained:
        check_not_trained(speakers or (), trained)
    elif speakers is None:
        trained = frozenset()
    wanted = Wanted(
        options.references,
        options.seconds_of_target if options.adapt == "personal" else 0.0,
        options.voices,
    )
    return open_panel(options.data, speakers, trained, wanted), notes


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    options = _parse(argv)
    apply_output_options(options)
    _check(options)
    import torch

    from chorister.shared.voice.base import load_base
    from chorister.shared.voice.stream_weights import load_stream
    from chorister.simulations.conditions import read_conditions
    from chorister.simulations.evaluation import Evaluation, Plan
    from chorister.simulations.evaluation_page import Excerpts, write_page
    from chorister.simulations.evaluation_report import summarise
    from chorister.simulations.evaluation_tables import format_table
    from chorister.simulations.hearing import can_hear, listeners
    from chorister.simulations.saved_audio import AudioFolder
    from chorister.simulations.trials import TESTS, fixed_pairs

    conditions = read_conditions(options.conditions)
    torch.set_num_threads(options.threads)
    model = load_base(options.weights)
    streaming = load_stream() if options.streaming else None
    panel, notes = _panel(options)
    pairs = fixed_pairs(len(panel.tested), TESTS, options.targets, options.sources)
    audio = None
    if options.save_audio is not None:
        options.save_audio.mkdir(parents=True, exist_ok=True)
        audio = AudioFolder(options.save_audio, panel)
    excerpts = Excerpts() if options.page is not None else None

    def keep(spoken: Spoken) -> None:
        for keeper in (audio, excerpts):
            if keeper is not None:
                keeper.keep(spoken)

    hearing = not options.no_phones and can_hear()
    with listeners(options.jobs if hearing else 0, words=not options.no_words) as ears:
        evaluation = Evaluation(
            model,
            panel,
            pairs,
            Plan(
                options.adapt == "personal",
                options.rivals,
                conditions,
                streaming,
                options.source == "calibrated",
            ),
            listeners=ears if hearing else None,
            keep=keep,
        )
        evaluation.run()
    notes.append(f"Source statistics: {SOURCE_NOTES[options.source]}.")
    report = summarise(evaluation, notes)
    if audio is not None:
        audio.finish()
    say(format_table(report))
    if excerpts is not None:
        write_page(options.page, report, excerpts)
        say(f"The page is {options.page}.")
    if options.json:
        print_json(report)
    return 0
