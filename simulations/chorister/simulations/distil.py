"""Train the speaker encoder on the teacher's vectors, and write it as the package ships it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from chorister.shared.console import progress, say
from chorister.shared.files import write_atomically
from chorister.shared.types import FloatArray
from chorister.shared.voice.speaker import (
    SPEAKER_FORMAT,
    SPEAKER_SIZE,
    WINDOW_FRAMES,
    SpeakerEncoder,
)
from chorister.simulations.speaker_targets import SpeakerRecipe, Targets

_SAY_EVERY = 100


def _unit(x: NDArray[np.float32]) -> FloatArray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def smooth_targets(targets: Targets, recipe: SpeakerRecipe) -> FloatArray:
    """Mix each window's vector with its chunk's and its voice's mean: content noise averages out.

    Args:
        targets: the teacher's vectors.
        recipe: the three weights.

    Returns:
        shape (N, W, 256), float32, unit rows.
    """
    chunk = _unit(targets.windows.mean(1))
    sums = np.zeros((int(targets.group.max()) + 1, SPEAKER_SIZE), np.float32)
    np.add.at(sums, targets.group, chunk)
    voice = _unit(sums)[targets.group]
    mixed = recipe.window_weight * targets.windows
    mixed = mixed + (recipe.chunk_weight * chunk + recipe.group_weight * voice)[:, None]
    return _unit(mixed)


def _blur(mel: Tensor, draw: np.random.Generator) -> Tensor:
    """Noise, and sometimes the smoothing over bands and frames that a vocoder's output shows."""
    if draw.random() < 0.3:
        axis = int(draw.integers(1, 3))
        share = float(draw.uniform(0.1, 0.33))
        mel = mel + share * (mel.roll(1, axis) + mel.roll(-1, axis) - 2 * mel)
    if draw.random() < 0.3:
        mel = mel + float(draw.uniform(0.05, 0.3)) * torch.randn(mel.shape)
    return mel


def _draw_crops(
    targets: Targets,
    goal: FloatArray,
    chosen: NDArray[np.int64],
    recipe: SpeakerRecipe,
    draw: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Crops (B, F, 80) of one random length and the vectors (B, 256) wanted for them."""
    if draw.random() < recipe.whole_chunk_share:
        frames = int(draw.integers(WINDOW_FRAMES, recipe.chunk_frames + 1))
        starts = draw.integers(recipe.chunk_frames - frames + 1, size=len(chosen))
        wanted = _unit(goal[chosen].mean(1))
    else:
        frames = int(draw.integers(recipe.crop_frames[0], recipe.crop_frames[1] + 1))
        window = draw.integers(goal.shape[1], size=len(chosen))
        starts = window * WINDOW_FRAMES + draw.integers(
            WINDOW_FRAMES - frames + 1, size=len(chosen)
        )
        wanted = goal[chosen, window]
    crops = [targets.log_mel[c, s : s + frames] for c, s in zip(chosen, starts, strict=True)]
    return torch.from_numpy(np.stack(crops)).float(), torch.from_numpy(wanted)


def distil(targets: Targets, recipe: SpeakerRecipe) -> SpeakerEncoder:
    """Train the student on random crops; the distance to the teacher is printed on the way.

    Args:
        targets: chunks and the teacher's vectors.
        recipe: steps, batch, optimiser and losses.

    Returns:
        the trained encoder, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    draw = np.random.default_rng(recipe.seed)
    student = SpeakerEncoder()
    optimiser = torch.optim.AdamW(
        student.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
    )
    warm_up = max(1, recipe.steps // 20)

    def rate(step: int) -> float:
        cosine = 0.5 + 0.5 * float(np.cos(np.pi * step / recipe.steps)) + 1e-3
        return min((step + 1) / warm_up, cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    goal = smooth_targets(targets, recipe)
    order: list[int] = []
    losses: list[float] = []
    with progress("Distilling", recipe.steps) as step_done:
        for step in range(1, recipe.steps + 1):
            while len(order) < recipe.batch:
                order.extend(draw.permutation(len(goal)).tolist())
            chosen, order = np.array(order[: recipe.batch]), order[recipe.batch :]
            crops, wanted = _draw_crops(targets, goal, chosen, recipe, draw)
            guess = student(_blur(crops, draw))
            distance = (1.0 - (guess * wanted).sum(1)).mean()
            relation = (guess @ guess.T - wanted @ wanted.T).square().mean()
            optimiser.zero_grad()
            (distance + recipe.relation_weight * relation).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            losses.append(float(distance.detach()))
            if step % _SAY_EVERY == 0:
                say(f"step {step}: 1 - cosine with the teacher {np.mean(losses):.4f}")
                losses.clear()
            step_done()
    return student.eval()


def save_encoder(student: SpeakerEncoder, recipe: SpeakerRecipe, path: Path) -> str:
    """Write the encoder in half precision, its recipe in the file's metadata.

    Returns:
        the file's SHA-256, 64 hexadecimal digits.
    """
    state = {
        name: value.detach().half().contiguous() for name, value in student.state_dict().items()
    }
    described = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    content = save(state, metadata={"format": SPEAKER_FORMAT, "recipe": described})
    write_atomically(path, content, mode=0o644)
    return hashlib.sha256(content).hexdigest()
