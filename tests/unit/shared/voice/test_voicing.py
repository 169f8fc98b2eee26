"""What is voiced in the source is voiced in the conversion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.vocoder import Vocoder, band_to_bin
from chorister.shared.voice.voicing import (
    EARLY_BELOW_HZ,
    LARGEST_NOISE_SHARE,
    early_onsets,
    keep_voiced,
)

F0 = torch.tensor([[0.0, 120.0, 120.0, 0.0]])


def envelopes(harmonic: float, noise: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    shape = (1, 4, 80)
    return harmonic + 0.3 * torch.randn(shape), noise + 0.3 * torch.randn(shape)


def noise_share(harmonic: Tensor, noise: Tensor) -> Tensor:
    bins = torch.from_numpy(band_to_bin().sum(axis=1))
    voice, breath = (((2.0 * e).exp() * bins).sum(2) for e in (harmonic, noise))
    return breath / (voice + breath)


def test_low_noise_is_bounded_where_voiced_and_each_bands_power_is_kept() -> None:
    harmonic, noise = envelopes(-5.0, -4.0)
    kept = keep_voiced(harmonic, noise, F0)
    voiced = (F0 > 0)[0]
    low, high = slice(0, 12), slice(50, 80)
    lost = (noise - kept[1])[0, voiced]
    assert lost[:, low].mean().item() == pytest.approx(-0.5 * np.log(LARGEST_NOISE_SHARE), abs=0.2)
    assert lost[:, high].abs().max() < 1e-3
    power = [(2.0 * e).exp() for e in (harmonic, noise, *kept)]
    assert torch.allclose(power[0] + power[1], power[2] + power[3], rtol=1e-4)


def test_no_more_is_taken_than_needed() -> None:
    tilt = torch.linspace(0.0, -6.0, 80).expand(1, 4, 80)
    harmonic, noise = tilt - 4.0, tilt - 5.0
    assert (noise_share(harmonic, noise)[0, 1:3] > 1.5 * LARGEST_NOISE_SHARE).all()
    share = noise_share(*keep_voiced(harmonic, noise, F0))[0, 1:3]
    assert share.tolist() == pytest.approx([LARGEST_NOISE_SHARE] * 2, rel=0.02)


@pytest.mark.parametrize("levels", [(-5.0, -4.0), (-3.0, -6.0)])
def test_unvoiced_frames_and_those_with_little_noise_stay_as_they_are(
    levels: tuple[float, float],
) -> None:
    harmonic, noise = envelopes(*levels)
    kept = keep_voiced(harmonic, noise, F0)
    untouched = [0, 3] if levels[0] < levels[1] else [0, 1, 2, 3]
    for before, after in zip((harmonic, noise), kept, strict=True):
        assert torch.equal(before[:, untouched], after[:, untouched])


def test_silence_stays_finite() -> None:
    quiet = torch.full((1, 4, 80), -60.0)
    assert all(torch.isfinite(e).all() for e in keep_voiced(quiet, quiet, F0))


def test_a_breathy_frame_is_heard_as_voiced_again() -> None:
    f0_hz = torch.full((1, 60), 140.0)
    hiss = torch.randn(1, 60 * 160, generator=torch.Generator().manual_seed(2))
    tilt = torch.linspace(0.0, -5.0, 80).expand(1, 60, 80)
    harmonic, noise = tilt - 5.0, tilt - 4.0
    vocoder = Vocoder()
    before = estimate_f0(vocoder(harmonic, noise, f0_hz, hiss)[0].numpy())
    after = estimate_f0(vocoder(*keep_voiced(harmonic, noise, f0_hz), f0_hz, hiss)[0].numpy())
    assert np.count_nonzero(before) < 20
    assert np.count_nonzero(after) > 50


def test_a_deep_voice_begins_a_frame_earlier_and_a_high_one_does_not() -> None:
    deep, high = EARLY_BELOW_HZ - 20.0, EARLY_BELOW_HZ + 1.0
    f0_hz = torch.tensor([[0, 0, deep, deep, 0, 0, high, 0], [deep, 0, deep, 0, 0, 0, 0, deep]])
    wanted = torch.tensor(
        [[0, deep, deep, deep, 0, 0, high, 0], [deep, deep, deep, 0, 0, 0, deep, deep]]
    )
    assert torch.equal(early_onsets(f0_hz), wanted)


def test_nothing_begins_before_the_first_frame() -> None:
    assert early_onsets(torch.zeros(1, 0)).shape == (1, 0)
    assert early_onsets(torch.tensor([[90.0]])).tolist() == [[90.0]]
