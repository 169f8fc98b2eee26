"""`chorister train-base`: trains a base model by a recipe; survives kill -9.

A checkpoint is written every few minutes, whole or not at all. As every step's data and noise are
seeded by (seed, stage, step), a resumed run does the steps that an undisturbed one would have done.
"""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import get_args

import torch
from rich.progress import Progress

from chorister.shared.console import say
from chorister.shared.errors import UsageError
from chorister.simulations.base_batches import Batch, Batches
from chorister.simulations.base_data import known_speakers
from chorister.simulations.base_load import load_batches
from chorister.simulations.base_recipe import StageSettings, read_recipe
from chorister.simulations.base_state import Training, load_judges
from chorister.simulations.base_steps import Trainee, validation_loss
from chorister.simulations.parallel import Precision, join, leave
from chorister.simulations.training_log import TrainingLog, open_log

SUMMARY = "train a base voice model from a recipe and a corpus"
_EXAMPLES = """examples:
  chorister train-base recipe.toml --data ../shared/data --out runs/base --tensorboard
  chorister train-base recipe.toml --data ../shared/data --out runs/base --resume
  torchrun --nproc-per-node 2 --no-python chorister train-base recipe.toml \\
      --data ../shared/data --out runs/base"""
_LOG_EVERY = 25
_VALIDATE_EVERY = 200
_VALIDATION_BATCHES = 4


def run(
    training: Training,
    data: Path,
    cache: Path,
    checkpoint_s: float,
    *,
    tensorboard: bool = False,
) -> None:
    """Does what is left of the recipe.

    Args:
        training: a new or resumed state.
        data: folder of the corpora.
        cache: folder of computed features.
        checkpoint_s: seconds between checkpoints.
        tensorboard: whether to write scalars into OUT/tensorboard as well.
    """
    recipe = training.recipe
    fresh = training.stage == 0 and training.step == 0
    while training.stage < len(recipe.stages):
        stage = recipe.stages[training.stage]
        corpus = recipe.data.corpus(speeds=stage.synthetic_speeds)
        # The others find the cache that the first process has filled.
        with training.processes.first_then_others():
            batches = load_batches(
                data,
                corpus,
                cache,
                weights=dict(recipe.data.weights),
                synthetic_weight=stage.synthetic_weight,
                seed=recipe.seed,
                namer=stage.vectors,
                with_teacher=stage.teacher_weight > 0,
            )
        if stage.learn == "decoder":
            batches.listen(training.trainee.model.content_of)
        checks = _checks(training, stage, data, cache) if training.processes.is_first else []
        if fresh:
            training.set_statistics(batches)
            fresh = False
        training.begin_stage(batches)
        with _log(training, tensorboard) as log:
            _run_stage(training, stage, batches, checks, checkpoint_s, log)
        training.finish_stage(batches, known_speakers(data, corpus))
        training.save()


def _log(training: Training, tensorboard: bool) -> AbstractContextManager[TrainingLog | None]:
    """The log of the process that writes one."""
    if not training.processes.is_first:
        return nullcontext()
    return open_log(training.out, tensorboard=tensorboard, total=training.total_steps)


def _checks(training: Training, stage: StageSettings, data: Path, cache: Path) -> list[Batch]:
    """Batches of held-out speakers, always the same ones."""
    recipe = training.recipe
    others = recipe.data.corpus(held_out=True)
    held_out = load_batches(data, others, cache, weights={}, seed=recipe.seed, namer=stage.vectors)
    if stage.learn == "decoder":
        held_out.listen(training.trainee.model.content_of)
    return [held_out.draw(0, i, 8, stage.frames, 1.0) for i in range(_VALIDATION_BATCHES)]


def _run_stage(
    training: Training,
    stage: StageSettings,
    batches: Batches,
    checks: list[Batch],
    checkpoint_s: float,
    log: TrainingLog | None,
) -> None:
    saved = time.monotonic()
    processes = training.processes
    judges = load_judges(stage, processes.device)
    with Progress(transient=True, disable=log is None) as progress:
        bar = progress.add_task(stage.kind, total=stage.steps, completed=training.step)
        while training.step < stage.steps:
            began = time.monotonic()
            batch = batches.draw(
                training.stage,
                training.step,
                stage.batch // processes.count,
                stage.frames,
                stage.largest_warp,
                stage.augment,
                processes.rank,
                stage.tables,
            )
            figures = dict(training.one_step(batch, judges))
            progress.advance(bar)
            step, total = training.step, training.total_steps
            if step % _VALIDATE_EVERY == 0:
                validation = _validate(training, checks)
                figures["validation"] = validation
                if training.has_diverged(validation):
                    if log is not None:
                        say(f"stage {training.stage + 1} diverged: its weights are given up")
                    training.fall_back()
            if log is not None and (step % _LOG_EVERY == 0 or "validation" in figures):
                figures["step_s"] = time.monotonic() - began
                log.write(figures, training.stage + 1, step, total)
            if time.monotonic() - saved > checkpoint_s:
                training.save()
                saved = time.monotonic()
    training.save()


def _validate(training: Training, checks: list[Batch]) -> float:
    """Loss on held-out speakers, as the first process finds it."""
    found: float | None = None
    if training.processes.is_first:
        judged = Trainee(training.average).to(training.processes.device)
        found = validation_loss(judged, checks, training.recipe.seed)
    return training.processes.agree(found)


def _beginning(argument: str) -> tuple[Path, int]:
    """File and stage index of `--begin`."""
    name, _, stage = argument.rpartition(":")
    if not name or not stage.isdecimal():
        raise UsageError(
            "--begin takes a weights file, a colon and a stage of the recipe.",
            argument,
            "Write it as base.safetensors:5, for example.",
        )
    return Path(name), int(stage) - 1


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister train-base",
        description=SUMMARY,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path, help="TOML file; unknown keys are refused")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    parser.add_argument("--cache", type=Path, help="folder for computed features (default: in OUT)")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument(
        "--begin",
        metavar="FILE:STAGE",
        help="begin at this stage of the recipe (1 is the first) with weights that exist already",
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument(
        "--checkpoint-s", type=float, default=180.0, help="seconds between checkpoints"
    )
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default auto)"
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of the model's products; auto is bfloat16 where CUDA has it, else float32",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write scalars into OUT/tensorboard"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    recipe = read_recipe(arguments.recipe)
    processes = join(arguments.device, arguments.precision)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        training = Training(recipe, arguments.out, processes)
        if arguments.resume:
            training.resume()
        elif arguments.begin is not None:
            training.begin_with(*_beginning(arguments.begin))
        cache = arguments.cache or arguments.out / "cache"
        run(
            training,
            arguments.data,
            cache,
            arguments.checkpoint_s,
            tensorboard=arguments.tensorboard,
        )
    finally:
        leave(processes)
    if processes.is_first:
        say(f"trained {len(training.recipe.stages)} stages into {arguments.out}")
    return 0
