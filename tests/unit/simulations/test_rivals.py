"""Rivals of the model: nearest neighbours, differential conversion and WORLD."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.simulations.rivals import (
    content_of,
    convert_by_neighbours,
    convert_differentially,
    render,
    target_frames,
)
from chorister.simulations.vocoder_copy import envelopes
from chorister.simulations.world_copy import analyse, convert_by_world, copy_by_world

Speech = Callable[[float, int], FloatArray]


@pytest.fixture(scope="module")
def own(speech: Speech) -> Recording:
    return Recording(speech(1.2, 3), "own")


def test_rendering_reaches_the_wanted_log_mel() -> None:
    """Whispered formants: what is rendered wavers with the noise, its mean does not lie off."""
    bands = np.arange(80)
    formants = sum(np.exp(-(((bands - centre) / 8.0) ** 2)) for centre in (15, 40, 62))
    wanted = np.tile(-5.0 + 3.0 * formants, (200, 1)).astype(np.float32)
    whispered = np.zeros(200, np.float32)
    first, last = (render(wanted, whispered, rounds) for rounds in (0, 3))
    gaps = [(log_mel(wav) - wanted)[5:-5] for wav in (first, last)]
    assert np.abs(gaps[1]).mean() < 0.6 * np.abs(gaps[0]).mean()
    assert np.abs(gaps[1].mean(0)).mean() < 0.06
    assert (last == render(wanted, whispered, 3)).all()


def test_content_is_of_unit_length(
    small_model: VoiceModel, own: Recording, target: SpeakerProfile
) -> None:
    found = content_of(small_model, log_mel(own.samples), target)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(found)), abs=1e-5)


def test_the_nearest_frames_of_ones_own_recording_are_its_own(
    small_model: VoiceModel, own: Recording, target: SpeakerProfile
) -> None:
    """With the source among the target's recordings and one neighbour nothing is replaced."""
    features = extract_features(own)
    frames = target_frames(small_model, [own], target)
    found = convert_by_neighbours(small_model, features, target, target, frames, neighbours=1)
    assert found == pytest.approx(render(features.log_mel, features.f0_hz), abs=0.05)
    assert len(found) == len(features.f0_hz) * 160


def test_more_neighbours_than_frames_are_all_frames(
    small_model: VoiceModel, own: Recording, target: SpeakerProfile
) -> None:
    features = extract_features(own)
    frames = target_frames(small_model, [own], target)
    found = convert_by_neighbours(small_model, features, target, target, frames, 10_000)
    assert np.isfinite(found).all()


def test_between_equal_speakers_the_difference_is_nothing(
    own: Recording, target: SpeakerProfile
) -> None:
    features = extract_features(own)
    # Away from the vocoder's limits a change of the envelopes is a change of the level.
    pulses, noise = (e.clamp(-10.0, 4.0) for e in envelopes(features.log_mel, features.f0_hz))
    fitted = (pulses, noise)
    plain = convert_differentially(fitted, features, target, target)
    louder = SpeakerProfile(
        **{name: getattr(target, name) for name in SpeakerProfile.__slots__ if name != "mel_mean"},
        mel_mean=target.mel_mean + np.float32(0.5),
    )
    raised = convert_differentially(fitted, features, target, louder)
    assert raised == pytest.approx(plain * np.exp(0.5), abs=1e-3)
    assert torch.isfinite(torch.from_numpy(raised)).all()


def test_world_copies_and_moves(own: Recording, target: SpeakerProfile) -> None:
    pytest.importorskip("pyworld")
    features = extract_features(own)
    analysis = analyse(own, features.f0_hz)
    copy = copy_by_world(analysis)
    assert copy.shape == (len(features.f0_hz) * 160,)
    assert np.corrcoef(log_mel(copy).mean(1), features.log_mel.mean(1))[0, 1] > 0.8
    same = convert_by_world(analysis, features, target, target)
    assert np.abs(log_mel(same) - log_mel(copy)).mean() < 0.35
