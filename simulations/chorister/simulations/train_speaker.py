"""`chorister train-speaker`: distil the shipped speaker encoder, or report what it can do."""

from __future__ import annotations

import argparse
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
    from chorister.simulations.speaker_targets import SpeakerRecipe, Targets

SUMMARY = "distil the speaker encoder from GE2E, or report how well it tells voices apart"
RECIPE = Path(__file__).parent / "recipes" / "speaker.toml"
_EXAMPLES = """examples:
  chorister train-speaker --data ../shared/data --out speaker.safetensors
  chorister train-speaker --data ../shared/data --report
  chorister train-speaker --data ../shared/data --report --weights speaker.safetensors --json
"""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chorister train-speaker",
        description=SUMMARY,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds librispeech/")
    parser.add_argument("--out", type=Path, help="train, and write the weights here (.safetensors)")
    parser.add_argument(
        "--report", action="store_true", help="measure on speakers never trained on"
    )
    parser.add_argument("--weights", type=Path, help="report on this file, not on the shipped one")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="settings (TOML)")
    parser.add_argument("--cache", type=Path, help="file that keeps the teacher's vectors (.npz)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add_output_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    options = _parse(argv)
    apply_output_options(options)
    if (options.out is None) == (not options.report):
        raise UsageError(
            "Training needs --out FILE, a report needs --report, and one run does one of them.",
            "both" if options.report else "neither",
            "Give exactly one.",
        )
    if options.out is not None and options.out.exists():
        raise UsageError(
            "An existing file is not overwritten.", str(options.out), "Choose another name."
        )
    import torch

    torch.set_num_threads(options.threads)
    return _report(options) if options.report else _train(options)


def _train(options: argparse.Namespace) -> int:
    from chorister.simulations.distil import distil, save_encoder
    from chorister.simulations.speaker_targets import SpeakerRecipe

    recipe = SpeakerRecipe.load(options.recipe)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    targets = _targets(options, recipe)
    say(f"{len(targets.log_mel)} chunks of {int(targets.group.max()) + 1} voices")
    digest = save_encoder(distil(targets, recipe), recipe, options.out)
    say(f"{digest}  {options.out}")
    if options.json:
        print_json({"sha256": digest, "weights": str(options.out)})
    return 0


def _targets(options: argparse.Namespace, recipe: SpeakerRecipe) -> Targets:
    import numpy as np

    from chorister.simulations.ge2e import load_ge2e
    from chorister.simulations.speaker_targets import Targets, compute_targets, list_base

    cache: Path | None = options.cache
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            return Targets(kept["log_mel"], kept["windows"], kept["group"])
    targets = compute_targets(list_base(options.data), recipe, load_ge2e())
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, log_mel=targets.log_mel, windows=targets.windows, group=targets.group)
    return targets


def _report(options: argparse.Namespace) -> int:
    from chorister.shared.voice.speaker import load_speaker_encoder
    from chorister.simulations.speaker_report import format_report, measure_encoder

    figures = measure_encoder(load_speaker_encoder(options.weights), options.data)
    say(format_report(figures))
    if options.json:
        print_json(figures)
    return 0
