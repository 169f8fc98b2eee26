"""`chorister evaluate`: how alike, how intelligible and how fast the conversions are.

    recordings -> enrolment | tests | reference -> conversions of a fixed list of pairs -> judges

Always printed beside the results: real speech of the target (what can be reached) and the
unconverted source (where it starts). Intervals come from a bootstrap over target speakers.
"""

from __future__ import annotations

import argparse
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
    from chorister.simulations.trials import Voice

SUMMARY = "measure conversions: similarity, identification, intelligibility, distances, speed"
_EXAMPLES = """examples:
  chorister evaluate --data ../shared/data/librispeech
      --split ../shared/data/librispeech/splits.json:dev_test
  chorister evaluate --data MY/SPEAKERS --targets 4 --sources 2 --adapt personal --save-audio OUT
"""


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
    parser.add_argument("--voices", type=int, default=10, help="voices told apart (default: 10)")
    parser.add_argument("--references", type=int, default=8, help="enrolled from (default: 8)")
    parser.add_argument("--adapt", choices=("none", "personal"), default="none")
    parser.add_argument("--weights", type=Path, help="base model, not the shipped one")
    parser.add_argument("--no-phones", action="store_true", help="leave out the phone error rate")
    parser.add_argument("--save-audio", type=Path, metavar="OUT", help="write wavs to a new folder")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add_output_options(parser)
    return parser.parse_args(argv)


def _check(options: argparse.Namespace) -> None:
    for name in ("targets", "sources", "references", "threads"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} is at least 1.", str(getattr(options, name)), "Raise it.")
    if options.voices < max(2, options.targets):
        raise UsageError(
            "--voices is at least 2 and at least --targets.", str(options.voices), "Raise it."
        )
    folder: Path | None = options.save_audio
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "--save-audio takes a new or empty folder.", str(folder), "Choose another name."
        )


def _voices(options: argparse.Namespace) -> list[Voice]:
    from chorister.simulations.trials import choose_voices, read_speakers

    speakers: Sequence[str] | None = None
    if options.split is not None:
        speakers = read_speakers(options.split)
    elif options.speakers is not None:
        speakers = [name.strip() for name in options.speakers.split(",") if name.strip()]
    return choose_voices(
        options.data, speakers, enrolment=options.references, tests=2, most=options.voices
    )


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    options = _parse(argv)
    apply_output_options(options)
    _check(options)
    import torch

    from chorister.shared.voice.base import load_base
    from chorister.simulations.evaluation import Evaluation
    from chorister.simulations.evaluation_report import format_table, summarise
    from chorister.shared.voice.phones import find_recogniser
    from chorister.simulations.trials import fixed_pairs

    torch.set_num_threads(options.threads)
    model = load_base(options.weights)
    voices = _voices(options)
    pairs = fixed_pairs(len(voices), len(voices[0].tests), options.targets, options.sources)
    if options.save_audio is not None:
        options.save_audio.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(
        model,
        voices,
        pairs,
        recogniser=None if options.no_phones else find_recogniser(),
        personal=options.adapt == "personal",
        audio=options.save_audio,
    )
    evaluation.run()
    report = summarise(evaluation)
    say(format_table(report))
    if options.json:
        print_json(report)
    return 0
