"""The state of a streaming model's training: student, its running average and the place in it."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.voice.model import VoiceModel
from chorister.simulations.base_batches import Batch
from chorister.simulations.base_state import learning_rate
from chorister.simulations.base_steps import SpeakerJudges, Trainee
from chorister.simulations.stream_recipe import Phase, StreamRecipe
from chorister.simulations.stream_steps import content_loss, envelope_loss, streaming_form

_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01
_CLIP_NORM = 2.0
_AVERAGE_DECAY = 0.998


class StreamTraining:
    """A student on its way through the phases.

    Args:
        recipe: what to do.
        teacher: the offline model.
        base_sha256: digest of the offline model's weights.
        start: a streaming model to go on from; its encoder is taken as it is, so the first phase is
            left out. None starts from the offline model.
        out: folder for the checkpoint, the log and the weights.
    """

    def __init__(
        self,
        recipe: StreamRecipe,
        teacher: VoiceModel,
        base_sha256: str,
        start: VoiceModel | None,
        out: Path,
    ) -> None:
        self.recipe = recipe
        self.teacher = teacher.eval().requires_grad_(False)
        self.out = out
        torch.manual_seed(recipe.seed)
        ahead = recipe.model
        student = streaming_form(teacher, ahead.encoder_ahead, ahead.decoder_ahead)
        self.phase: Phase = "content"
        if start is not None:
            if start.settings != student.settings:
                raise BadSettings(
                    "A model that is gone on from has the sizes and look-ahead of the recipe.",
                    str(start.settings),
                    "Train it anew: leave the option out.",
                )
            student.load_state_dict(start.state_dict())
            # How a table is used and what contrast lacks is the base's to say: it is not learnt.
            student.decoder.recall.load_state_dict(teacher.decoder.recall.state_dict())
            student.decoder.contrast.copy_(teacher.decoder.contrast)
            self.phase = "envelopes"
        self.trainee = Trainee(student)
        self.average = copy.deepcopy(student)
        self.step = 0
        self.done = False
        self._key = _digest(recipe, base_sha256, start)
        self._start_phase()

    @property
    def checkpoint_path(self) -> Path:
        """Where the state is kept."""
        return self.out / "checkpoint.pt"

    def _start_phase(self) -> None:
        """Only the part that the phase is about learns."""
        learns_encoder = self.phase == "content"
        model = self.trainee.model
        model.encoder.requires_grad_(learns_encoder)
        model.decoder.requires_grad_(not learns_encoder)
        # What the phase before left behind would count when gradients are clipped.
        self.trainee.zero_grad(set_to_none=True)
        self.optimiser = torch.optim.AdamW(
            [p for p in self.trainee.parameters() if p.requires_grad],
            lr=self.recipe.phase(self.phase).learning_rate,
            betas=_BETAS,
            weight_decay=_WEIGHT_DECAY,
            fused=True,
        )

    def next_phase(self) -> None:
        """Goes on to the next phase from the running average."""
        self.trainee.model.load_state_dict(self.average.state_dict())
        phases = self.recipe.phases()
        later = phases[phases.index(self.phase) + 1 :]
        self.step = 0
        if not later:
            self.done = True
            return
        self.phase = later[0]
        self._start_phase()

    def one_step(self, batch: Batch, judges: SpeakerJudges | None) -> dict[str, float]:
        """One optimiser step on one batch; returns what to log.

        Args:
            batch: its examples.
            judges: of converted speech, in the phase 'speech'.
        """
        settings = self.recipe.phase(self.phase)
        key = f"{self.recipe.seed} {self.phase} {self.step}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6])
        generator = torch.Generator().manual_seed(seed)
        rate = learning_rate(settings, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss, parts = self._loss(batch, judges, generator)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.trainee.parameters(), _CLIP_NORM)
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
        decay = min(_AVERAGE_DECAY, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.trainee.model.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1.0 - decay)
        self.step += 1
        return parts | {"gradient_norm": float(norm), "learning_rate": rate}

    def _loss(
        self, batch: Batch, judges: SpeakerJudges | None, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        settings, student = self.recipe.phase(self.phase), self.trainee.model
        if self.phase == "speech":
            step = self.trainee.step(batch, settings, generator, judges)
            return step.total, step.parts
        if self.phase == "content":
            loss = content_loss(student, self.teacher, batch)
        else:
            noise = settings.content_noise
            loss = envelope_loss(student, self.teacher, batch, noise, generator)
        return loss, {self.phase: float(loss.detach())}

    @torch.no_grad()
    def validation(self, batches: list[Batch]) -> dict[str, float]:
        """Losses of the running average on held-out speakers; the same noise every time."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        content, envelopes = [], []
        for batch in batches:
            content.append(content_loss(self.average, self.teacher, batch))
            envelopes.append(envelope_loss(self.average, self.teacher, batch, 0.0, generator))
        return {
            "held_out_content": float(torch.stack(content).mean()),
            "held_out_envelopes": float(torch.stack(envelopes).mean()),
        }

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        state = {
            "key": self._key,
            "phase": self.phase,
            "step": self.step,
            "done": self.done,
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        part = self.checkpoint_path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint_path)

    def resume(self) -> None:
        """Continues from the checkpoint.

        Raises:
            BadSettings: the checkpoint was made by another recipe, base or start.
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
        if state["key"] != self._key:
            raise BadSettings(
                "A run is resumed with the recipe, the base and the start that it began with.",
                "others",
                "Use those, or start without --resume in another folder.",
            )
        self.phase, self.step, self.done = state["phase"], state["step"], state["done"]
        self._start_phase()
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def _digest(recipe: StreamRecipe, base_sha256: str, start: VoiceModel | None) -> str:
    """Digest of all that determines a run."""
    digest = hashlib.sha256(base_sha256.encode())
    digest.update(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    if start is not None:
        for name, value in sorted(start.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()
