"""Ripples of an envelope get larger, its level does not, and harmonics keep to their noise."""

from __future__ import annotations

import torch

from chorister.shared.voice.contrast import restore_contrast, ripples_of
from chorister.shared.voice.recall import sound_of

F0 = torch.tensor([[120.0, 0.0, 200.0]])


def envelopes() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    harmonic = torch.randn(1, 3, 80, generator=generator) - 4.0
    return harmonic, harmonic - torch.rand(1, 3, 80, generator=generator)


def test_ripples_are_an_orthonormal_basis() -> None:
    ripples = ripples_of()
    torch.testing.assert_close(ripples @ ripples.T, torch.eye(80), atol=1e-5, rtol=0.0)


def test_gains_of_one_change_nothing() -> None:
    harmonic, noise = envelopes()
    kept = restore_contrast(harmonic, noise, F0, torch.ones(80))
    assert torch.equal(kept[0], harmonic)
    assert torch.equal(kept[1], noise)


def test_each_component_of_the_sound_grows_by_its_gain() -> None:
    harmonic, noise = envelopes()
    gains = torch.linspace(1.0, 1.5, 80)
    before = sound_of(torch.cat([harmonic, noise], 2), F0)
    wanted = (before @ ripples_of().T * gains) @ ripples_of()
    heard = sound_of(torch.cat(restore_contrast(harmonic, noise, F0, gains), 2), F0)
    torch.testing.assert_close(heard[..., 10:], wanted[..., 10:], atol=1e-3, rtol=1e-3)
    # Below, single harmonics: nothing in the two lowest bands, half of it in the middle between.
    torch.testing.assert_close(heard[..., :3], before[..., :3], atol=1e-5, rtol=0.0)
    half = (before + wanted)[..., 6] / 2.0
    torch.testing.assert_close(heard[..., 6], half, atol=1e-3, rtol=1e-3)


def test_both_envelopes_move_alike_and_hardly_in_level() -> None:
    harmonic, noise = envelopes()
    gains = torch.full((80,), 1.3)
    gains[0] = 1.0
    loud, breath = restore_contrast(harmonic, noise, F0, gains)
    assert float((loud - harmonic).abs().max()) > 0.1
    torch.testing.assert_close(loud - harmonic, breath - noise, atol=1e-5, rtol=0.0)
    moved = (loud - harmonic)[..., 10:]
    assert float(moved.mean(dim=2).abs().max()) < 0.2 * float(moved.abs().mean())
