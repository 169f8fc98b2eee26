"""`chorister train-stream`: makes a streaming model from an offline one; survives kill -9."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
from rich.progress import Progress

from chorister.shared.console import say
from chorister.shared.voice.base import BASE_WEIGHTS, load_base
from chorister.shared.voice.stream_weights import load_stream, save_stream
from chorister.simulations.base_batches import Batch, Batches
from chorister.simulations.base_load import load_batches
from chorister.simulations.base_state import load_judges
from chorister.simulations.stream_recipe import PHASES, StreamRecipe, read_stream_recipe
from chorister.simulations.stream_steps import match_directions, moved_to_base
from chorister.simulations.stream_training import StreamTraining

SUMMARY = "make a streaming voice model from an offline one by distillation"
_LOG_EVERY = 25
_VALIDATE_EVERY = 200
_HELD_OUT_BATCHES = 4
_HELD_OUT_EXAMPLES = 8
_DIRECTION_BATCHES = 24
_DIRECTION_EXAMPLES = 8
_DIRECTION_FRAMES = 200
# Draws of its own, apart from those of the phases.
_DIRECTION_STAGE = len(PHASES)


def _draw(batches: Batches, stage: int, count: int, examples: int, frames: int) -> list[Batch]:
    return [batches.draw(stage, i, examples, frames, 1.0) for i in range(count)]


def _load(recipe: StreamRecipe, data: Path, cache: Path) -> tuple[Batches, list[Batch]]:
    """What the phases draw from, and fixed batches of held-out speakers."""
    namer = recipe.envelopes.vectors
    batches = load_batches(
        data,
        recipe.data.corpus(),
        cache,
        weights=dict(recipe.data.weights),
        seed=recipe.seed,
        namer=namer,
        with_teacher=recipe.speech is not None and recipe.speech.teacher_weight > 0,
    )
    others = recipe.data.corpus(held_out=True)
    held_out = load_batches(data, others, cache, weights={}, seed=recipe.seed, namer=namer)
    frames = recipe.envelopes.frames
    return batches, _draw(held_out, 0, _HELD_OUT_BATCHES, _HELD_OUT_EXAMPLES, frames)


def run(training: StreamTraining, data: Path, cache: Path, checkpoint_s: float) -> str:
    """Does what is left of the recipe and writes the weights.

    Args:
        training: a new or resumed state.
        data: folder of the corpora.
        cache: folder of computed features.
        checkpoint_s: seconds between checkpoints.

    Returns:
        SHA-256 of the weights file.
    """
    batches, checks = _load(training.recipe, data, cache)
    while not training.done:
        _run_phase(training, batches, checks, checkpoint_s)
        training.next_phase()
        training.save()
    drawn = _draw(
        batches, _DIRECTION_STAGE, _DIRECTION_BATCHES, _DIRECTION_EXAMPLES, _DIRECTION_FRAMES
    )
    share = match_directions(training.average, training.teacher, drawn)
    say(f"the shared adapter's coordinates: {share:.3f} of their variance is predicted")
    return save_stream(training.average, training.out / "stream.safetensors")


def _run_phase(
    training: StreamTraining, batches: Batches, checks: list[Batch], checkpoint_s: float
) -> None:
    settings = training.recipe.phase(training.phase)
    stage = PHASES.index(training.phase)
    judges = load_judges(settings) if training.phase == "speech" else None
    saved = time.monotonic()
    with Progress(transient=True) as progress, (training.out / "log.jsonl").open("a") as log:
        bar = progress.add_task(training.phase, total=settings.steps, completed=training.step)
        while training.step < settings.steps:
            began = time.monotonic()
            batch = batches.draw(
                stage,
                training.step,
                settings.batch,
                settings.frames,
                settings.largest_warp,
                settings.augment,
            )
            figures = training.one_step(batch, judges)
            progress.advance(bar)
            last = training.step == settings.steps
            if training.step % _VALIDATE_EVERY == 0 or last:
                figures |= training.validation(checks)
            if training.step % _LOG_EVERY == 0 or last:
                figures["step_s"] = time.monotonic() - began
                rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
                line = {"phase": training.phase, "step": training.step} | rounded
                log.write(json.dumps(line) + "\n")
                log.flush()
            if time.monotonic() - saved > checkpoint_s:
                training.save()
                saved = time.monotonic()


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister train-stream",
        description=SUMMARY,
        epilog="example: chorister train-stream RECIPE.toml --data ../shared/data --out runs/live",
    )
    parser.add_argument("recipe", type=Path, help="TOML file; unknown keys are refused")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    parser.add_argument("--base", type=Path, help="offline weights (default: the shipped ones)")
    parser.add_argument(
        "--start", type=Path, help="streaming weights to go on from: their encoder is kept"
    )
    parser.add_argument(
        "--start-base", type=Path, help="the base that these were made from, if it was another"
    )
    parser.add_argument("--cache", type=Path, help="folder for computed features (default: in OUT)")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument(
        "--checkpoint-s", type=float, default=120.0, help="seconds between checkpoints"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    recipe = read_stream_recipe(arguments.recipe)
    teacher = load_base(arguments.base)
    base_sha256 = hashlib.sha256((arguments.base or BASE_WEIGHTS).read_bytes()).hexdigest()
    start = load_stream(arguments.start) if arguments.start is not None else None
    if start is not None and arguments.start_base is not None:
        start = moved_to_base(start, load_base(arguments.start_base), teacher)
    arguments.out.mkdir(parents=True, exist_ok=True)
    training = StreamTraining(recipe, teacher, base_sha256, start, arguments.out)
    if arguments.resume:
        training.resume()
    cache = arguments.cache or arguments.out / "cache"
    digest = run(training, arguments.data, cache, arguments.checkpoint_s)
    say(f"{digest}  {arguments.out / 'stream.safetensors'}")
    return 0
