"""`chorister train-base`: trains a base model by a recipe; survives kill -9.

A checkpoint is written every few minutes, whole or not at all. As every step's data and noise are
seeded by (seed, stage, step), a resumed run does the steps that an undisturbed one would have done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from chorister.shared.console import say
from chorister.simulations.base_batches import Batch, Batches
from chorister.simulations.base_data import known_speakers
from chorister.simulations.base_load import load_batches
from chorister.simulations.base_recipe import StageSettings, read_recipe
from chorister.simulations.base_state import Training, load_judges
from chorister.simulations.base_steps import Trainee, validation_loss

SUMMARY = "train a base voice model from a recipe and a corpus"
_LOG_EVERY = 25
_VALIDATE_EVERY = 200
_VALIDATION_BATCHES = 4


def run(training: Training, data: Path, cache: Path, checkpoint_s: float) -> None:
    """Does what is left of the recipe.

    Args:
        training: a new or resumed state.
        data: folder of the corpora.
        cache: folder of computed features.
        checkpoint_s: seconds between checkpoints.
    """
    recipe = training.recipe
    fresh = training.stage == 0 and training.step == 0
    while training.stage < len(recipe.stages):
        stage = recipe.stages[training.stage]
        weights = dict(recipe.data.weights)
        corpus = recipe.data.corpus(speeds=stage.synthetic_speeds)
        batches = load_batches(
            data,
            corpus,
            cache,
            weights=weights,
            synthetic_weight=stage.synthetic_weight,
            seed=recipe.seed,
            namer=stage.vectors,
            with_teacher=stage.teacher_weight > 0,
        )
        others = recipe.data.corpus(held_out=True)
        held_out = load_batches(
            data, others, cache, weights={}, seed=recipe.seed, namer=stage.vectors
        )
        if stage.learn == "decoder":
            for one in (batches, held_out):
                one.listen(training.trainee.model.content_of)
        checks = [held_out.draw(0, i, 8, stage.frames, 1.0) for i in range(_VALIDATION_BATCHES)]
        if fresh:
            training.set_statistics(batches)
            fresh = False
        _run_stage(training, stage, batches, checks, checkpoint_s)
        training.finish_stage(batches, known_speakers(data, corpus))
        training.save()


def _run_stage(
    training: Training,
    stage: StageSettings,
    batches: Batches,
    checks: list[Batch],
    checkpoint_s: float,
) -> None:
    saved = time.monotonic()
    judges = load_judges(stage)
    with Progress(transient=True) as progress, (training.out / "log.jsonl").open("a") as log:
        bar = progress.add_task(stage.kind, total=stage.steps, completed=training.step)
        while training.step < stage.steps:
            began = time.monotonic()
            batch = batches.draw(
                training.stage, training.step, stage.batch, stage.frames, stage.largest_warp
            )
            figures: dict[str, Any] = dict(training.one_step(batch, judges))
            progress.advance(bar)
            if training.step % _VALIDATE_EVERY == 0:
                judged = Trainee(training.average)
                validation = validation_loss(judged, checks, training.recipe.seed)
                figures["validation"] = validation
                if training.has_diverged(validation):
                    say(f"stage {training.stage + 1} diverged: its weights are given up")
                    training.fall_back()
            if training.step % _LOG_EVERY == 0 or "validation" in figures:
                figures |= {"stage": training.stage + 1, "step": training.step}
                figures["step_s"] = time.monotonic() - began
                log.write(json.dumps({k: _rounded(v) for k, v in figures.items()}) + "\n")
                log.flush()
            if time.monotonic() - saved > checkpoint_s:
                training.save()
                saved = time.monotonic()
    training.save()


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister train-base",
        description=SUMMARY,
        epilog="example: chorister train-base recipe.toml --data ../shared/data --out runs/base",
    )
    parser.add_argument("recipe", type=Path, help="TOML file; unknown keys are refused")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    parser.add_argument("--cache", type=Path, help="folder for computed features (default: in OUT)")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument(
        "--checkpoint-s", type=float, default=180.0, help="seconds between checkpoints"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    recipe = read_recipe(arguments.recipe)
    arguments.out.mkdir(parents=True, exist_ok=True)
    training = Training(recipe, arguments.out)
    if arguments.resume:
        training.resume()
    cache = arguments.cache or arguments.out / "cache"
    run(training, arguments.data, cache, arguments.checkpoint_s)
    say(f"trained {len(training.recipe.stages)} stages into {arguments.out}")
    return 0
