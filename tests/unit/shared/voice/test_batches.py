"""Batches of one speaker's segments: every row from its own segment, one length, exact targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chorister.shared.errors import BadAudio
from chorister.shared.types import Recording
from chorister.shared.voice.batches import hiss_for, own_voice_batch, select
from chorister.shared.voice.model import VoiceBatch


def recordings(speech, *samples):
    return [Recording(speech(n / 16_000, i), f"s{i}") for i, n in enumerate(samples)]


@pytest.mark.parametrize("samples", [(), (3200, 3360), (3200, 3201)])
def test_nothing_or_several_lengths_are_no_batch(speech, target, samples):
    with pytest.raises(BadAudio, match="one length"):
        own_voice_batch(recordings(speech, *samples), target)


def test_shapes_and_targets(speech, target):
    own = recordings(speech, 3300, 3300)
    batch, targets = own_voice_batch(own, target)
    assert batch.log_mel.shape == (2, 20, 80)
    assert batch.f0_hz.shape == (2, 20)
    assert targets.shape == (2, 3200)
    assert np.array_equal(targets[1].numpy(), own[1].samples[:3200])
    for name in ("source_mel_mean", "target_mel_mean"):
        assert np.array_equal(getattr(batch, name)[1].numpy(), target.mel_mean)


def test_a_row_depends_on_its_own_segment_alone(speech, target):
    own = recordings(speech, 3200, 3200, 3200)
    whole, _ = own_voice_batch(own, target)
    one, _ = own_voice_batch(own[1:2], target)
    picked = select(whole, torch.tensor([1]))
    for name in VoiceBatch.__slots__:
        assert torch.equal(getattr(one, name), getattr(picked, name))


def test_known_features_are_used_as_they_are(material):
    own = material(2)
    batch, _ = own_voice_batch(own.segments.recordings, own.profile, own.segments.features)
    assert np.array_equal(batch.log_mel[1].numpy(), own.segments.features[1].log_mel)
    # One's own voice: the pitch is not moved.
    assert np.array_equal(batch.f0_hz[0].numpy(), own.segments.features[0].f0_hz)


def test_hiss_follows_from_its_generator(material):
    own = material(2)
    batch, targets = own_voice_batch(own.segments.recordings, own.profile, own.segments.features)
    one, two = (hiss_for(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == targets.shape
    assert torch.equal(one, two)
    assert abs(float(one.std()) - 1) < 0.05
