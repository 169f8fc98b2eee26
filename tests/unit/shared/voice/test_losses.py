"""The reconstruction loss: zero for a copy, and each example on its own."""

from __future__ import annotations

import torch

from chorister.shared.voice.losses import reconstruction_loss


def pair(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    wav = 0.1 * torch.randn((size, 3200), generator=generator)
    return wav + 0.05 * torch.randn(wav.shape, generator=generator), wav


def test_a_copy_costs_nothing_and_a_difference_something() -> None:
    wav_hat, wav = pair()
    assert torch.equal(reconstruction_loss(wav, wav), torch.zeros(3))
    assert (reconstruction_loss(wav_hat, wav) > 0.1).all()


def test_an_example_does_not_see_the_others() -> None:
    """The premise of clipping one example's gradient."""
    wav_hat, wav = pair()
    together = reconstruction_loss(wav_hat, wav)
    for index in range(3):
        alone = reconstruction_loss(wav_hat[index : index + 1], wav[index : index + 1])
        assert torch.allclose(together[index], alone[0], rtol=1e-5)
    louder = wav.clone()
    louder[2] *= 30.0
    assert torch.allclose(reconstruction_loss(wav_hat, louder)[:2], together[:2], rtol=1e-5)


def test_the_gradient_of_one_example_touches_only_its_own_samples() -> None:
    wav_hat, wav = pair()
    wav_hat.requires_grad_()
    (gradient,) = torch.autograd.grad(reconstruction_loss(wav_hat, wav)[1], wav_hat)
    assert gradient[1].abs().max() > 0
    assert not gradient[0].any()
    assert not gradient[2].any()


def test_silence_costs_finitely_and_has_a_finite_gradient() -> None:
    wav_hat = torch.zeros(1, 3200, requires_grad=True)
    loss = reconstruction_loss(wav_hat, torch.zeros(1, 3200))
    loss.sum().backward()
    assert loss.item() == 0.0
    assert wav_hat.grad is not None
    assert torch.isfinite(wav_hat.grad).all()


def test_a_wrong_level_costs_more_the_wronger_it_is() -> None:
    _, wav = pair()
    costs = [reconstruction_loss(gain * wav, wav).mean().item() for gain in (0.9, 0.5, 0.1)]
    assert costs == sorted(costs)
