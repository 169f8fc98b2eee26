"""Log-mel: frame count and place, floor, parity of numpy and torch, and too short input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chorister.shared.errors import BadAudio
from chorister.shared.types import Recording
from chorister.shared.voice.features import (
    MEL_FLOOR,
    extract_features,
    hz_to_mel,
    log_mel,
    magnitude_spectrum,
    mel_edges_hz,
    mel_filters,
    mel_to_hz,
)
from chorister.shared.voice.torch_mel import LogMel


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=length)).astype(np.float32)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 16_000, 16_159])
def test_frames_are_whole_hops(length: int) -> None:
    assert log_mel(noise(length)).shape == (length // 160, 80)


def test_silence_is_the_floor() -> None:
    assert np.allclose(log_mel(np.zeros(3200, np.float32)), np.log(MEL_FLOOR))


def test_a_frame_is_centred_on_its_hop() -> None:
    """A click in the middle of hop 20 is loudest in frame 20, and equal on both sides of it."""
    samples = np.zeros(6400, np.float32)
    samples[20 * 160 + 80] = 1.0
    level = log_mel(samples).mean(axis=1)
    assert level.argmax() == 20
    assert level[19] == pytest.approx(level[21], abs=1e-4)
    assert level[18] == pytest.approx(np.log(MEL_FLOOR))


def test_a_tone_peaks_in_its_band() -> None:
    centres = mel_edges_hz()[1:-1]
    for band in (10, 40, 70):
        tone = np.sin(2 * np.pi * centres[band] * np.arange(8000) / 16_000).astype(np.float32)
        assert abs(int(log_mel(tone)[20].argmax()) - band) <= 1


def test_doubling_the_level_adds_ln_2() -> None:
    samples = noise(8000)
    assert np.allclose(log_mel(2 * samples) - log_mel(samples), np.log(2.0), atol=1e-4)


def test_a_long_recording_is_analysed_as_its_parts_are() -> None:
    """More frames than are handled at once, compared where the edges do not reach."""
    samples = noise(160 * 5000)
    whole, part = log_mel(samples), log_mel(samples[160 * 4000 :])
    assert np.allclose(whole[4010:], part[10:], atol=1e-4)


def test_torch_gives_the_same_numbers() -> None:
    batch = np.stack([noise(3200, seed) for seed in range(3)])
    batch[1, 1000:] = 0.0
    expected = np.stack([log_mel(row) for row in batch])
    assert np.allclose(LogMel()(torch.from_numpy(batch)).numpy(), expected, atol=2e-4)


def test_torch_has_a_finite_gradient_in_silence() -> None:
    samples = torch.zeros(1, 1600, requires_grad=True)
    LogMel()(samples).sum().backward()
    assert samples.grad is not None
    assert torch.isfinite(samples.grad).all()


def test_filters_average_and_leave_no_band_empty() -> None:
    filters = mel_filters()
    assert filters.shape == (257, 80)
    assert (filters >= 0).all()
    assert np.allclose(filters.sum(axis=0), 1.0, atol=1e-5)


def test_the_mel_scale_inverts() -> None:
    hz = np.array([0.0, 60.0, 999.0, 1000.0, 1001.0, 7999.0])
    assert np.allclose(mel_to_hz(hz_to_mel(hz)), hz)


def test_features_share_their_frames() -> None:
    features = extract_features(Recording(noise(8123), "a"))
    assert features.log_mel.shape == (50, 80)
    assert features.f0_hz.shape == (50,)
    assert features.log_mel.dtype == features.f0_hz.dtype == np.float32


def test_less_than_a_frame_is_refused() -> None:
    with pytest.raises(BadAudio):
        extract_features(Recording(noise(159), "short"))


def test_the_linear_spectrum_is_what_the_log_mel_is_made_of() -> None:
    samples = noise(8123)
    spectrum = magnitude_spectrum(samples)
    assert spectrum.shape == (50, 257)
    expected = np.log(np.maximum(spectrum @ mel_filters(), MEL_FLOOR))
    assert expected.tobytes() == log_mel(samples).tobytes()
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16_000).astype(np.float32)
    assert (magnitude_spectrum(tone)[5:-5].argmax(axis=1) == 32).all()
