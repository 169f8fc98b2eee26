"""The state of a base training: weights, their running average, optimisers and the place in it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.files import write_atomically
from chorister.shared.voice.base import load_base, save_base
from chorister.shared.voice.encoder import ContentEncoder
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.base_batches import Batch, Batches
from chorister.simulations.base_critics import Critics, TeacherVectors
from chorister.simulations.base_recipe import Recipe, StageSettings
from chorister.simulations.base_steps import SpeakerJudges, Trainee, set_contrast, set_directions
from chorister.simulations.ge2e import load_ge2e
from chorister.simulations.parallel import CPU, Processes

_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 2.0
_AVERAGE_DECAY = 0.998
_LAST_RATE = 0.05
_DIRECTION_BATCHES = 40
_DIRECTION_EXAMPLES = 8
_DIRECTION_FRAMES = 160
# A stage with critics that makes held-out reconstruction this much worse has diverged.
_WORST_RATIO = 1.15


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
        processes: this process among those that train together; None for one on the CPU.

    Raises:
        BadSettings: a batch cannot be shared out evenly among the processes.
    """

    def __init__(self, recipe: Recipe, out: Path, processes: Processes | None = None) -> None:
        self.recipe = recipe
        self.out = out
        self.processes = processes or Processes()
        for stage in recipe.stages:
            _check_share(stage, self.processes.count)
        torch.manual_seed(recipe.seed)
        lower = self.processes.lower
        self.trainee = Trainee(VoiceModel(recipe.model.sizes()), lower).to(self.processes.device)
        self.critics = Critics().to(self.processes.device)
        self.average = copy.deepcopy(self.trainee.model)
        self.stage = 0
        self.step = 0
        self.first_validation: float | None = None
        self.clean_ear: ContentEncoder | None = None
        self._start_optimisers()

    def _start_optimisers(self) -> None:
        stage = self.recipe.stages[min(self.stage, len(self.recipe.stages) - 1)]
        if stage.content_share is not None:
            for model in (self.trainee.model, self.average):
                model.decoder.recall.content_share.fill_(stage.content_share)
        hearing = stage.kind == "hearing"
        self.trainee.model.requires_grad_(not hearing)
        self.trainee.model.encoder.requires_grad_(hearing or stage.learn == "all")
        self.clean_ear = None
        if hearing and self.stage < len(self.recipe.stages):
            before = load_base(self.stage_path(self.stage - 1)).encoder
            self.clean_ear = before.to(self.processes.device)
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

    @property
    def total_steps(self) -> int:
        """Steps done in all stages."""
        return sum(stage.steps for stage in self.recipe.stages[: self.stage]) + self.step

    def save(self) -> None:
        """Writes the state, whole or not at all; the first process does."""
        if not self.processes.is_first:
            return
        state = {
            "processes": self.processes.count,
            "recipe": recipe_digest(self.recipe, self.stages_begun),
            "stage": self.stage,
            "step": self.step,
            "first_validation": self.first_validation,
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
            BadSettings: the checkpoint was made by another recipe (later stages may differ), or
                by another number of processes, whose data had another order.
            BadWeights: there is no readable checkpoint.
        """
        try:
            state = torch.load(
                self.checkpoint_path, weights_only=True, map_location=self.processes.device
            )
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
        # Older checkpoints are of one process.
        if state.get("processes", 1) != self.processes.count:
            raise BadSettings(
                "A run is resumed by as many processes as it began with.",
                f"{self.processes.count} instead of {state.get('processes', 1)}",
                "Start it with torchrun --nproc-per-node and that number.",
            )
        self.first_validation = state["first_validation"]
        self._start_optimisers()
        try:
            self.trainee.load_state_dict(state["trainee"])
            self.average.load_state_dict(state["average"])
        except RuntimeError as error:
            raise BadWeights(
                "--resume needs a checkpoint of this version.",
                f"{self.checkpoint_path}: {str(error).splitlines()[-1].strip()}",
                "Go on from the weights of the last stage with --begin, or start anew.",
            ) from error
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])

    def begin_with(self, weights: Path, stage: int) -> None:
        """Starts at a later stage, with weights that the stages before it have made.

        Args:
            weights: a base of the recipe's sizes.
            stage: index of the stage, at least 1; the file is kept as that of the stage before.

        Raises:
            BadSettings: the recipe has no such stage, or the base has other sizes.
            BadWeights: the file is no base.
        """
        if not 0 < stage < len(self.recipe.stages):
            raise BadSettings(
                f"Weights to begin with stand for stages 1 to {len(self.recipe.stages) - 1}.",
                f"stage {stage + 1} as the first one",
                "Name a stage of the recipe after its first.",
            )
        model = load_base(weights)
        if model.settings != self.recipe.model.sizes():
            raise BadSettings(
                "Weights to begin with have the sizes of the recipe's [model].",
                f"{model.settings}",
                "Correct the recipe, or begin with other weights.",
            )
        self.average.load_state_dict(model.state_dict())
        self.trainee.model.load_state_dict(model.state_dict())
        self.stage = stage
        with self.processes.first_then_others():
            if self.processes.is_first:
                write_atomically(self.stage_path(stage - 1), weights.read_bytes())
        self._start_optimisers()

    def has_diverged(self, validation: float) -> bool:
        """Whether an adversarial stage ruins what the stages before it learnt.

        Args:
            validation: loss on held-out speakers now; the first one of a stage is remembered.
        """
        if self.recipe.stages[self.stage].kind != "adversarial" or self.stage == 0:
            return False
        if self.first_validation is None:
            self.first_validation = validation
        return not validation < _WORST_RATIO * self.first_validation

    def fall_back(self) -> None:
        """Takes the weights that the stage before ended with, and ends this stage."""
        previous = load_base(self.stage_path(self.stage - 1))
        self.average.load_state_dict(previous.state_dict())
        self.step = self.recipe.stages[self.stage].steps

    def stage_path(self, stage: int) -> Path:
        """Where the weights after a stage are kept."""
        return self.out / f"stage{stage + 1}.safetensors"

    def begin_stage(self, batches: Batches) -> None:
        """Measures what the stage needs to know of the weights that it begins with."""
        stage = self.recipe.stages[self.stage]
        if stage.contrast and self.step == 0:
            drawn = self._draw_after(batches, stage.steps)
            set_contrast(self.trainee.model, drawn, stage.contrast)
            self.processes.share(self.trainee.model)
            self.average.decoder.contrast.copy_(self.trainee.model.decoder.contrast)

    def _draw_after(self, batches: Batches, steps: int) -> list[Batch]:
        """Draws that no step of the stage makes."""
        return [
            batches.draw(self.stage, steps + i, _DIRECTION_EXAMPLES, _DIRECTION_FRAMES, 1.0)
            for i in range(_DIRECTION_BATCHES)
        ]

    def finish_stage(self, batches: Batches, trained_on: Collection[str]) -> None:
        """Writes the weights of the stage and moves on to the next with fresh optimisers.

        Args:
            batches: of the stage; draws that no step made give the shared adapter's directions.
            trained_on: labels of the speakers, for the weights file.
        """
        steps = self.recipe.stages[self.stage].steps
        drawn = self._draw_after(batches, steps)
        stage = self.recipe.stages[self.stage]
        if self.clean_ear is not None:
            _move_towards(self.clean_ear, self.average.encoder, stage.hearing_share)
        set_directions(self.average, drawn)
        with torch.no_grad():
            self.average.decoder.recall.share.mul_(stage.recall_gain)
        if stage.contrast:
            set_contrast(self.average, drawn, stage.contrast)
        self.processes.share(self.average)
        # A hearing stage begins by reading them, in every process.
        with self.processes.first_then_others():
            if self.processes.is_first:
                save_base(self.average, self.stage_path(self.stage), trained_on=trained_on)
        self.stage += 1
        self.first_validation = None
        self.step = 0
        self.trainee.model.load_state_dict(self.average.state_dict())
        self._start_optimisers()

    def one_step(self, batch: Batch, judges: SpeakerJudges | None) -> dict[str, float]:
        """One optimiser step on one batch; returns what to log.

        Args:
            batch: its examples, of this process.
            judges: of the converted speech; None in a reconstruction stage.
        """
        settings = self.recipe.stages[self.stage]
        place = f"{self.recipe.seed} {self.stage} {self.step}"
        if not self.processes.is_first:
            place += f" {self.processes.rank}"
        seed = int.from_bytes(hashlib.sha256(place.encode()).digest()[:6])
        generator = torch.Generator(self.processes.device).manual_seed(seed)
        batch = batch.to(self.processes.device)
        rate = learning_rate(settings, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        critics = self.critics if settings.kind == "adversarial" else None
        if self.clean_ear is not None:
            loss = self.trainee.hear(batch, self.clean_ear)
        else:
            loss = self.trainee.step(batch, settings, generator, judges, critics)
        if loss.critics is not None:
            self.critic_optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss.critics)
            self.processes.average_gradients(self.critics.parameters())
            self.critic_optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        self.processes.average_gradients(self.trainee.parameters())
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


def _check_share(stage: StageSettings, count: int) -> None:
    """A conversion needs the next example's speaker, so two examples in each process."""
    least = 1 if stage.kind in ("reconstruction", "hearing") or count == 1 else 2
    if stage.batch % count or stage.batch // count < least:
        raise BadSettings(
            "Each process draws an equal part of a batch, of two examples or more for conversions.",
            f"a batch of {stage.batch} for {count} processes",
            "Change the batch in the recipe, or the number of processes.",
        )


def load_judges(stage: StageSettings, device: torch.device = CPU) -> SpeakerJudges | None:
    """What a stage's converted speech is judged by; None for reconstruction."""
    if stage.kind in ("reconstruction", "hearing"):
        return None
    teacher = TeacherVectors(load_ge2e()).to(device) if stage.teacher_weight > 0 else None
    return SpeakerJudges(load_speaker_encoder().to(device), teacher)


def recipe_digest(recipe: Recipe, stages: int) -> str:
    """Digest of what determines the state after some stages: later ones may still be changed.

    Args:
        recipe: the whole.
        stages: how many have begun.
    """
    plain = recipe.model_dump(mode="json", exclude_defaults=True)
    plain["stages"] = plain["stages"][:stages]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def _move_towards(before: ContentEncoder, after: ContentEncoder, share: float) -> None:
    """Leaves `after` a share of the way from `before` to itself."""
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        new.copy_(old.lerp(new, share))
