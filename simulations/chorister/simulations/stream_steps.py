"""What a streaming model learns in one step: to find and to say what the offline model does."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from chorister.shared.errors import BadSettings
from chorister.shared.voice.encoder import with_noise
from chorister.shared.voice.model import VoiceModel
from chorister.simulations.base_batches import Batch
from chorister.simulations.base_steps import swap_pitch

# The offline encoder sees 15 frames to each side, the streaming one 27 or more to the left.
_BEFORE_FRAMES = 30
_AFTER_FRAMES = 15


def streaming_form(
    teacher: VoiceModel, encoder_ahead: tuple[int, ...], decoder_ahead: tuple[int, ...]
) -> VoiceModel:
    """A model of the same sizes that sees less ahead, as near to the offline one as it starts.

    Each kernel's taps stay at the frames that they belong to; those that lie too far ahead are
    added to the last one, as if the sound stood still.

    Args:
        teacher: the offline model, without adapters; it is not changed.
        encoder_ahead: frames that each block of the encoder sees ahead.
        decoder_ahead: the same for the decoder.

    Raises:
        BadSettings: the numbers do not fit the model.
    """
    settings = replace(teacher.settings, encoder_ahead=encoder_ahead, decoder_ahead=decoder_ahead)
    student = VoiceModel(settings)
    state = dict(teacher.state_dict())
    centre = settings.kernel // 2
    for part, several in (("encoder", encoder_ahead), ("decoder", decoder_ahead)):
        for index, ahead in enumerate(several):
            name = f"{part}.blocks.{index}.conv.conv.weight"
            state[name] = _moved(state[name], centre, ahead)
    student.load_state_dict(state)
    return student


def moved_to_base(student: VoiceModel, old: VoiceModel, new: VoiceModel) -> VoiceModel:
    """A streaming model of one base as one of its successor, without training.

    What the student learnt beyond the old base's streaming form is added to the new one's. Its
    encoder stays as it is.

    Args:
        student: made from the old base.
        old: offline model that it was made from.
        new: offline model of the same sizes and with the same encoder, trained on from the old one.

    Returns:
        a new model; the shared adapter's directions are still the new base's own.

    Raises:
        BadSettings: the sizes differ.
    """
    ahead = (student.settings.encoder_ahead, student.settings.decoder_ahead)
    before, after = (streaming_form(base, *ahead).state_dict() for base in (old, new))
    moved = streaming_form(new, *ahead)
    own = student.state_dict()
    if any(moved.settings != one.settings for one in (student, streaming_form(old, *ahead))):
        raise BadSettings(
            "A streaming model moves to a base of the same sizes.",
            f"{student.settings} and {new.settings}",
            "Train it anew with `chorister train-stream`.",
        )
    for name, value in after.items():
        if name.startswith("encoder."):
            after[name] = own[name]
        elif "directions" not in name:
            after[name] = value + own[name] - before[name]
    moved.load_state_dict(after)
    return moved


def _moved(weight: Tensor, centre: int, ahead: int) -> Tensor:
    """Kernels (C, 1, 1, K) that saw `centre` frames ahead, as kernels that see `ahead`."""
    moved = torch.zeros_like(weight)
    taps = weight.shape[-1]
    for tap in range(taps):
        moved[..., max(min(tap + centre - ahead, taps - 1), 0)] += weight[..., tap]
    return moved


def content_loss(student: VoiceModel, teacher: VoiceModel, batch: Batch) -> Tensor:
    """Mean squared difference between both contents, which have variance 1; a scalar."""
    rows = (batch.log_mel, batch.source_mean, batch.source_std)
    with torch.no_grad():
        wanted = teacher.encoder(*rows)
    difference: Tensor = student.encoder(*rows) - wanted
    return difference[:, _BEFORE_FRAMES:-_AFTER_FRAMES].square().mean()


def envelope_loss(
    student: VoiceModel,
    teacher: VoiceModel,
    batch: Batch,
    content_noise: float,
    generator: torch.Generator,
) -> Tensor:
    """Mean absolute difference between both models' envelopes, nepers; a scalar.

    Without what a target's table adds to them: both models look into the same one.

    The second half of the batch is spoken by the speakers of the first. The harmonic envelope
    counts where it is heard: in voiced frames.

    Args:
        student: its content is used as it is, no gradient reaches its encoder.
        teacher: offline model.
        batch: at least two examples.
        content_noise: standard deviation of the noise on the student's content.
        generator: of the noise.
    """
    with torch.no_grad():
        f0_hz, vector, mean, std = _half_swapped(batch)
        rows = (batch.log_mel, batch.source_mean, batch.source_std)
        wanted = teacher.decoder(
            teacher.encoder(*rows), f0_hz, teacher.decoder.condition(vector, mean, std), None
        )
        content = with_noise(student.encoder(*rows), content_noise, generator)
    found = student.decoder(content, f0_hz, student.decoder.condition(vector, mean, std), None)
    kept = slice(_BEFORE_FRAMES, -_AFTER_FRAMES)
    voiced = (f0_hz > 0).to(f0_hz.dtype)[:, kept, None]
    harmonic: Tensor = (found[0] - wanted[0])[:, kept].abs() * voiced
    noise: Tensor = (found[1] - wanted[1])[:, kept].abs()
    return harmonic.mean() / voiced.mean().clamp(min=0.1) + noise.mean()


def _half_swapped(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F0 and target of each example: its own in one half, another speaker's in the other."""
    own = (batch.f0_hz, batch.vector, batch.target_mean, batch.target_std)
    swapped = (
        swap_pitch(batch.f0_hz, batch.log_f0),
        *(row.roll(1, 0) for row in own[1:]),
    )
    half = len(batch.f0_hz) // 2
    f0_hz, vector, mean, std = (
        torch.cat([mine[:half], other[half:]]) for mine, other in zip(own, swapped, strict=True)
    )
    return f0_hz, vector, mean, std


@torch.no_grad()
def match_directions(student: VoiceModel, teacher: VoiceModel, batches: list[Batch]) -> float:
    """Makes the shared adapter mean the same to the streaming model as to the offline one.

    The adapter reads coordinates of the last hidden layer. The student's own hidden layer is
    projected so that it predicts the teacher's coordinates, by least squares.

    Args:
        student: changed in place.
        teacher: offline model.
        batches: what to fit on; the first half, while the second half judges.

    Returns:
        share of the coordinates' variance that is predicted, on the second half.
    """
    inputs, wanted = [], []
    for batch in batches:
        condition = (batch.vector, batch.target_mean, batch.target_std)
        rows = (batch.plain_log_mel, batch.target_mean, batch.target_std)
        kept = slice(_BEFORE_FRAMES, -_AFTER_FRAMES)
        pair = [
            model.decoder.hidden(
                model.encoder(*rows), batch.f0_hz, model.decoder.condition(*condition)
            )[:, kept].flatten(0, 1)
            for model in (student, teacher)
        ]
        inputs.append(pair[0].double())
        wanted.append(
            ((pair[1] - teacher.decoder.directions_mean) @ teacher.decoder.directions).double()
        )
    half = len(batches) // 2
    x, y = torch.cat(inputs[:half]), torch.cat(wanted[:half])
    mean, level = x.mean(dim=0), y.mean(dim=0)
    ridge = 1e-3 * torch.eye(x.shape[1], dtype=x.dtype) * len(x)
    centred = x - mean
    directions = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (y - level))
    # What is added to the coordinates is taken off the mean: the form has no other place for it.
    offset = torch.linalg.lstsq(directions.T, level.unsqueeze(1)).solution.squeeze(1)
    student.decoder.directions.copy_(directions.float())
    student.decoder.directions_mean.copy_((mean - offset).float())
    truth = torch.cat(wanted[half:])
    guess = (torch.cat(inputs[half:]) - mean + offset) @ directions
    missed, whole = (guess - truth).square().sum(), (truth - truth.mean(dim=0)).square().sum()
    return float(1.0 - missed / whole.clamp(min=1e-9))
