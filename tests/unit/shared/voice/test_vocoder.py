"""The vocoder: both transforms agree, its filters do what they say, its frames stay in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chorister.shared.voice.vocoder import PulseTrain, Vocoder, band_to_bin, minimum_phase


def envelopes(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn((2, 1, frames, 8), generator=generator)
    harmonic, noise = torch.nn.functional.interpolate(smooth, (frames, 80)).squeeze(1)
    return harmonic[None] - 3.0, noise[None] - 4.0


def hiss(samples: int) -> torch.Tensor:
    return torch.randn((1, samples), generator=torch.Generator().manual_seed(1))


def test_products_and_fft_give_the_same_waveform() -> None:
    f0_hz = torch.full((1, 40), 133.0)
    f0_hz[:, 15:25] = 0.0
    harmonic, noise = envelopes(40)
    arguments = (harmonic, noise, f0_hz, hiss(6400))
    by_fft = Vocoder()(*arguments)
    by_products = Vocoder(as_products=True)(*arguments)
    assert by_fft.shape == (1, 6400)
    assert torch.allclose(by_fft, by_products, atol=1e-5)


def test_a_flat_envelope_returns_the_noise_itself() -> None:
    quiet, flat = torch.full((1, 20, 80), -12.0), torch.zeros(1, 20, 80)
    noise = hiss(3200)
    wav = Vocoder()(quiet, flat, torch.zeros(1, 20), noise)
    assert torch.allclose(wav[:, 160:-160], noise[:, 160:-160], atol=1e-4)


def test_a_flat_envelope_returns_the_pulses_themselves() -> None:
    quiet, flat = torch.full((1, 30, 80), -12.0), torch.zeros(1, 30, 80)
    f0_hz = torch.full((1, 30), 100.0)
    wav = Vocoder()(flat, quiet, f0_hz, torch.zeros(1, 4800))
    pulses = PulseTrain()(f0_hz)
    assert torch.allclose(wav[:, 160:-160], pulses[:, 160:-160], atol=1e-3)


def test_pulses_have_the_period_and_unit_power() -> None:
    pulses = PulseTrain()(torch.full((1, 100), 125.0))[0].numpy()
    peaks = np.flatnonzero(pulses > 0.8 * pulses.max())
    assert set(np.diff(peaks)) == {128}
    assert np.mean(pulses**2) == pytest.approx(1.0, rel=0.02)


def test_pulses_follow_a_glide_without_drift() -> None:
    """The number of pulses in 30 s equals the integral of F0."""
    f0_hz = torch.linspace(100.0, 200.0, 3000)[None]
    pulses = PulseTrain()(f0_hz)[0].numpy()
    high = pulses > 0.5 * np.sqrt(2 * 0.48 * 16_000 / 200.0)
    onsets = np.count_nonzero(high[1:] & ~high[:-1])
    assert abs(onsets - 150.0 * 30.0) <= 2


def test_nothing_is_heard_where_both_filters_are_closed() -> None:
    closed = torch.full((1, 20, 80), -40.0)
    wav = Vocoder()(closed, closed, torch.full((1, 20), 120.0), hiss(3200))
    assert wav.abs().max() < 1e-3


def test_unvoiced_frames_have_no_pulses() -> None:
    f0_hz = torch.zeros(1, 20)
    assert not PulseTrain()(f0_hz).any()


def test_a_loud_frame_stays_in_its_place() -> None:
    noise = torch.full((1, 40, 80), -12.0)
    noise[:, 20] = 0.0
    wav = Vocoder()(torch.full((1, 40, 80), -12.0), noise, torch.zeros(1, 40), hiss(6400))[0]
    energy = wav.square()
    inside = energy[19 * 160 : 22 * 160].sum()
    assert inside / energy.sum() > 0.999


def test_minimum_phase_makes_a_causal_filter() -> None:
    """A smooth log magnitude and its phase give an impulse response that lies before half time."""
    shape = np.cos(np.linspace(0.0, 3.0, 257)) + 0.3 * np.cos(np.linspace(0.0, 9.0, 257))
    response = np.fft.irfft(np.exp(shape + 1j * (shape @ minimum_phase())), 512)
    assert np.sum(response[256:] ** 2) / np.sum(response**2) < 1e-6
    assert np.allclose(np.abs(np.fft.rfft(response)), np.exp(shape), rtol=1e-3)


def test_bands_interpolate_without_gain() -> None:
    assert np.allclose(band_to_bin().sum(axis=0), 1.0)


def test_gradients_reach_both_envelopes() -> None:
    harmonic, noise = (one.clone().requires_grad_() for one in envelopes(10))
    Vocoder()(harmonic, noise, torch.full((1, 10), 150.0), hiss(1600)).square().sum().backward()
    for one in (harmonic, noise):
        assert one.grad is not None
        assert torch.isfinite(one.grad).all()
        assert one.grad.abs().max() > 0
