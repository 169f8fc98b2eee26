"""`chorister train-base`: trains a base model by a recipe; survives kill -9.

A checkpoint is written every few minutes, whole or not at all. As every step's data and noise are
seeded by (seed, stage, step), a resumed run does the steps that an undisturbed one would have done.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from chorister.shared.console import say
from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.voice.base import save_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.base_batches import Batch, Batches
from chorister.simulations.base_critics import Critics, TeacherVectors
from chorister.simulations.base_load import load_batches
from chorister.simulations.base_recipe import Recipe, StageSettings, read_recipe
from chorister.simulations.base_steps import (
    SpeakerJudges,
    Trainee,
    set_directions,
    validation_loss,
)
from chorister.simulations.ge2e import load_ge2e

SUMMARY = "train a base voice model from a recipe and a corpus"
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 2.0
_AVERAGE_DECAY = 0.998
_LAST_RATE = 0.05
_LOG_EVERY = 25
_VALIDATE_EVERY = 200
_VALIDATION_BATCHES = 4
_DIRECTION_BATCHES = 40


def learning_rate(stage: StageSettings, step: int) -> float:
    """Rate of a step: linear warm-up, then a cosine down to a twentieth of the highest."""
    if step < stage.warm_up:
        return stage.learning_rate * (step + 1) / stage.warm_up
    done = (step - stage.warm_up) / max(stage.steps - stage.warm_up, 1)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return stage.learning_rate * (_LAST_RATE + (1.0 - _LAST_RATE) * cosine)


class Training:
    """State of a run: the weights, their running average, the optimiser and the place.

    Args:
        recipe: what to do.
        out: folder for the checkpoint, the log and the weights.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        torch.manual_seed(recipe.seed)
        self.trainee = Trainee(VoiceModel(recipe.model.sizes()))
        self.critics = Critics()
        self.average = copy.deepcopy(self.trainee.model)
        self.stage = 0
        self.step = 0
        self._start_optimisers()

    def _start_optimisers(self) -> None:
        stage = self.recipe.stages[min(self.stage, len(self.recipe.stages) - 1)]
        self.optimiser = _adam(self.trainee, stage.learning_rate)
        self.critic_optimiser = _adam(self.critics, stage.critic_rate)

    @property
    def stages_begun(self) -> int:
        """How many stages the state depends on."""
        return self.stage + (self.step > 0)

    @property
    def checkpoint_path(self) -> Path:
        """Where the state is kept."""
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        state = {
            "recipe": recipe_digest(self.recipe, self.stages_begun),
            "stage": self.stage,
            "step": self.step,
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "critics": self.critics.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
        }
        part = self.checkpoint_path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint_path)

    def resume(self) -> None:
        """Continues from the checkpoint.

        Raises:
            BadSettings: the checkpoint was made by another recipe (later stages may differ).
            BadWeights: there is no readable checkpoint.
        """
        try:
            state = torch.load(self.checkpoint_path, weights_only=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadWeights(
                "--resume needs the checkpoint of an earlier run.",
                f"{self.checkpoint_path}: {type(error).__name__}",
                "Start without --resume, or name the folder of that run with --out.",
            ) from error
        self.stage, self.step = state["stage"], state["step"]
        if state["recipe"] != recipe_digest(self.recipe, self.stages_begun):
            raise BadSettings(
                "A run is resumed with the recipe that it began with.",
                "a recipe whose data, model or stages so far differ",
                "Use the old recipe, or start without --resume in another folder.",
            )
        self._start_optimisers()
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])

    def next_stage(self) -> None:
        """Moves on with a fresh optimiser; the weights go on from their running average."""
        self.stage += 1
        self.step = 0
        self.trainee.model.load_state_dict(self.average.state_dict())
        self._start_optimisers()

    def one_step(self, batch: Batch, judges: SpeakerJudges | None) -> dict[str, float]:
        """One optimiser step on one batch; returns what to log.

        Args:
            batch: its examples.
            judges: of the converted speech; None in a reconstruction stage.
        """
        settings = self.recipe.stages[self.stage]
        seed = int.from_bytes(
            hashlib.sha256(f"{self.recipe.seed} {self.stage} {self.step}".encode()).digest()[:6]
        )
        generator = torch.Generator().manual_seed(seed)
        rate = learning_rate(settings, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        critics = self.critics if settings.kind == "adversarial" else None
        loss = self.trainee.step(batch, settings, generator, judges, critics)
        if loss.critics is not None:
            self.critic_optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss.critics)
            self.critic_optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        norm = nn.utils.clip_grad_norm_(self.trainee.parameters(), _CLIP_NORM)
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
        decay = min(_AVERAGE_DECAY, (1.0 + self.step) / (10.0 + self.step))
        if self.stage > 0:
            decay = _AVERAGE_DECAY
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.trainee.model.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1.0 - decay)
        self.step += 1
        return loss.parts | {"gradient_norm": float(norm), "learning_rate": rate}

    def set_statistics(self, batches: Batches) -> None:
        """Centres and scales the mel statistics by those of the training speakers."""
        rows = torch.from_numpy(batches.speaker_statistics())
        for model in (self.trainee.model, self.average):
            model.decoder.condition.centre.copy_(rows.mean(dim=0))
            model.decoder.condition.spread.copy_(rows.std(dim=0).clamp(min=0.05))


def _adam(module: nn.Module, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        module.parameters(), lr=rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
    )


def load_judges(stage: StageSettings) -> SpeakerJudges | None:
    """What a stage's converted speech is judged by; None for reconstruction."""
    if stage.kind == "reconstruction":
        return None
    teacher = TeacherVectors(load_ge2e()) if stage.teacher_weight > 0 else None
    return SpeakerJudges(load_speaker_encoder(), teacher)


def recipe_digest(recipe: Recipe, stages: int) -> str:
    """Digest of what determines the state after some stages: later ones may still be changed.

    Args:
        recipe: the whole.
        stages: how many have begun.
    """
    plain = recipe.model_dump(mode="json", exclude_defaults=True)
    plain["stages"] = plain["stages"][:stages]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


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
        corpus = recipe.data.corpus()
        batches = load_batches(
            data,
            corpus,
            cache,
            weights=weights,
            seed=recipe.seed,
            namer=stage.vectors,
            with_teacher=stage.teacher_weight > 0,
        )
        others = recipe.data.corpus(held_out=True)
        held_out = load_batches(
            data, others, cache, weights={}, seed=recipe.seed, namer=stage.vectors
        )
        checks = [held_out.draw(0, i, 8, stage.frames, 1.0) for i in range(_VALIDATION_BATCHES)]
        if fresh:
            training.set_statistics(batches)
            fresh = False
        _run_stage(training, stage, batches, checks, checkpoint_s)
        set_directions(
            training.average,
            # Draws that no training step made.
            [
                batches.draw(training.stage, stage.steps + i, 8, 160, 1.0)
                for i in range(_DIRECTION_BATCHES)
            ],
        )
        save_base(training.average, training.out / f"stage{training.stage + 1}.safetensors")
        training.next_stage()
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
                figures["validation"] = validation_loss(judged, checks, training.recipe.seed)
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
