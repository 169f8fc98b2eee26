"""Analysis and synthesis over drawn pitches, levels and lengths."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.model import move_pitch
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.vocoder import Vocoder

# Above, a pitch whose period lies between two samples can be heard an octave low (docs/voice.md).
pitches = st.floats(70.0, 300.0)


def envelope(frames: int, level: float) -> torch.Tensor:
    """A voice-like slope over the 80 bands."""
    return (level - torch.linspace(0.0, 3.0, 80)).repeat(1, frames, 1)


@settings(max_examples=25, deadline=None)
@given(pitches, st.floats(-5.0, -1.0))
def test_the_analysis_finds_the_pitch_that_the_vocoder_spoke(f0_hz: float, level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hiss = torch.randn((1, 40 * 160), generator=generator)
    pitch = torch.full((1, 40), f0_hz)
    samples = Vocoder()(envelope(40, level), envelope(40, level - 5.0), pitch, hiss)
    found = estimate_f0(samples[0].numpy())[4:-4]
    assert (found > 0).all()
    assert abs(np.median(found) / f0_hz - 1.0) < 0.01


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 5.0), st.integers(0, 4000))
def test_a_gain_shifts_the_log_mel_and_leaves_the_pitch(gain: float, length: int) -> None:
    noise = 0.1 * np.random.default_rng(length).normal(size=length)
    samples = noise.astype(np.float32)
    shifted = log_mel(np.float32(gain) * samples)
    assert shifted.shape == (length // 160, 80)
    assert np.allclose(shifted - log_mel(samples), np.log(gain), atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(pitches, pitches, st.floats(0.02, 0.6), st.floats(0.02, 0.6))
def test_moved_pitch_is_voiced_where_it_was_and_in_range(
    source_hz: float, target_hz: float, source_spread: float, target_spread: float
) -> None:
    def of(median_hz: float, spread: float) -> SpeakerProfile:
        flat = np.ones(80, np.float32)
        vector = np.full(256, 1 / 16, np.float32)
        sounds = flat[None]
        return SpeakerProfile(
            vector, flat, flat, float(np.log(median_hz)), spread, 10.0, sounds, sounds
        )

    f0_hz = np.array([0.0, 62.0, source_hz, 460.0], np.float32)
    moved = move_pitch(f0_hz, of(source_hz, source_spread), of(target_hz, target_spread))
    assert ((moved > 0) == (f0_hz > 0)).all()
    assert ((moved[1:] >= 50.0) & (moved[1:] <= 600.0)).all()
    assert np.isclose(moved[2], target_hz, rtol=1e-4)
    assert (np.diff(moved[1:]) >= 0).all()
