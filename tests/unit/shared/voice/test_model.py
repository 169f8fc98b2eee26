"""The whole model: shapes, what depends on what, conversion and pitch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from chorister.shared.types import FeatureSequence
from chorister.shared.voice import model as voice_model
from chorister.shared.voice.blocks import Block
from chorister.shared.voice.model import (
    ModelSettings,
    VoiceBatch,
    VoiceModel,
    move_pitch,
    single_batch,
)
from chorister.shared.voice.profile import SpeakerProfile

SMALL = ModelSettings(
    content=8, encoder_width=16, encoder_blocks=2, decoder_width=24, decoder_blocks=2
)


def small_model() -> VoiceModel:
    torch.manual_seed(3)
    model = VoiceModel(SMALL)
    # Untrained blocks start as near identities: make them count.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def profile(seed: int, median_hz: float = 120.0, spread: float = 0.2) -> SpeakerProfile:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=256).astype(np.float32)
    return SpeakerProfile(
        vector=vector / np.linalg.norm(vector),
        mel_mean=rng.normal(-4.0, 1.0, 80).astype(np.float32),
        mel_std=rng.uniform(0.5, 2.0, 80).astype(np.float32),
        log_f0_median=float(np.log(median_hz)),
        log_f0_spread=spread,
        seconds=30.0,
        sounds_content=rng.normal(size=(40, SMALL.content)).astype(np.float32),
        sounds_log_mel=rng.normal(-4.0, 1.0, (40, 80)).astype(np.float32),
    )


def features(frames: int = 30, seed: int = 0) -> FeatureSequence:
    rng = np.random.default_rng(seed)
    f0_hz = rng.uniform(90.0, 160.0, frames).astype(np.float32)
    f0_hz[frames // 2 :] = 0.0
    return FeatureSequence(rng.normal(-4.0, 1.0, (frames, 80)).astype(np.float32), f0_hz)


def batch(frames: int = 30) -> VoiceBatch:
    return single_batch(features(frames), profile(1), profile(2))


def test_conversions_get_contrast_and_copies_that_are_learnt_from_do_not() -> None:
    model, hiss = small_model(), torch.randn(1, 4800)
    flat = model.speak(batch(), hiss), model(batch(), hiss)
    model.decoder.contrast[2:] = 1.2
    assert not torch.allclose(model.speak(batch(), hiss), flat[0])
    assert torch.equal(model(batch(), hiss), flat[1])


def test_how_foreign_a_source_is_follows_from_both_means() -> None:
    model, target, said = small_model(), profile(2), features()
    model.decoder.recall.content_share.fill_(0.6)
    tilt = np.linspace(-1.0, 1.0, 80, dtype=np.float32) * np.float32(np.sqrt(3.0))
    for apart, foreign in ((0.0, 0.0), (0.275, 0.5), (0.6, 1.0)):
        source = dataclasses.replace(profile(1), mel_mean=target.mel_mean + apart * tilt)
        content = model.content_of(said.log_mel, source.mel_mean, source.mel_std)
        f0_hz = move_pitch(said.f0_hz, source, target)
        spoken = model.say(content, f0_hz, target, foreign=foreign)
        np.testing.assert_allclose(model.convert(said, source, target), spoken, atol=1e-3)
        assert not np.allclose(model.say(content, f0_hz, target, foreign=0.25), spoken)


@pytest.mark.parametrize("frames", [4, 30, 101])
def test_a_frame_in_is_a_hop_out(frames: int) -> None:
    hiss = torch.randn(1, frames * 160)
    assert small_model()(batch(frames), hiss).shape == (1, frames * 160)


def test_the_same_noise_gives_the_same_samples() -> None:
    model, hiss = small_model(), torch.randn(1, 4800)
    assert torch.equal(model(batch(), hiss), model(batch(), hiss))
    assert not torch.equal(model(batch(), hiss), model(batch(), torch.randn(1, 4800)))


def test_examples_of_a_batch_do_not_mix() -> None:
    model = small_model()
    one, two = batch(), single_batch(features(30, 5), profile(3), profile(4))
    both = VoiceBatch(
        *(torch.cat([getattr(one, name), getattr(two, name)]) for name in one.__slots__)
    )
    hiss = torch.randn(2, 4800)
    together = model(both, hiss)
    assert torch.allclose(together[:1], model(one, hiss[:1]), atol=1e-5)
    assert torch.allclose(together[1:], model(two, hiss[1:]), atol=1e-5)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(VoiceBatch)])
def test_every_input_matters(name: str) -> None:
    model, hiss = small_model(), torch.randn(1, 4800)
    plain = batch()
    value = getattr(plain, name)
    # Only the direction of a content counts where sounds are looked up.
    other = value.flip(1) if name == "sounds_content" else value * 1.3
    changed = dataclasses.replace(plain, **{name: other})
    assert not torch.allclose(model(plain, hiss), model(changed, hiss), atol=1e-5)


def test_the_content_does_not_see_the_level_when_the_statistics_follow() -> None:
    model, plain = small_model(), batch()
    louder = model.encoder(plain.log_mel + 1.0, plain.source_mel_mean + 1.0, plain.source_mel_std)
    same = model.encoder(plain.log_mel, plain.source_mel_mean, plain.source_mel_std)
    assert torch.allclose(louder, same, atol=1e-4)


def test_the_content_is_normalised_in_each_frame() -> None:
    model, plain = small_model(), batch()
    content = model.encoder(plain.log_mel, plain.source_mel_mean, plain.source_mel_std)
    assert torch.allclose(content.mean(dim=2), torch.zeros(1, 30), atol=1e-5)
    assert torch.allclose(content.var(dim=2, unbiased=False), torch.ones(1, 30), atol=1e-2)


def test_pitch_moves_to_the_target_and_back() -> None:
    source, target = profile(1, 110.0, 0.15), profile(2, 210.0, 0.2)
    f0_hz = np.array([0.0, 110.0, 130.0, 0.0, 90.0], np.float32)
    moved = move_pitch(f0_hz, source, target)
    assert moved[1] == pytest.approx(210.0, rel=1e-4)
    assert (moved > 0).tolist() == (f0_hz > 0).tolist()
    assert np.log(moved[2] / 210.0) == pytest.approx(np.log(130.0 / 110.0) * 0.2 / 0.15, rel=1e-4)
    assert np.allclose(move_pitch(moved, target, source), f0_hz, rtol=1e-4)


def test_pitch_stays_in_range() -> None:
    f0_hz = np.array([400.0, 60.0], np.float32)
    moved = move_pitch(f0_hz, profile(1, 110.0, 0.05), profile(2, 300.0, 0.5))
    assert ((moved >= 65.0) & (moved <= 600.0)).all()


def test_conversion_is_finite_reproducible_and_seeded() -> None:
    model = small_model()
    arguments = (features(), profile(1), profile(2))
    first = model.convert(*arguments, seed=1)
    assert first.shape == (4800,)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, model.convert(*arguments, seed=1))
    assert not np.array_equal(first, model.convert(*arguments, seed=2))


@pytest.mark.parametrize("ahead", [(), (2, 1)])
@pytest.mark.parametrize("pitch_hz", [110.0, 150.0])
def test_a_deep_voice_begins_a_frame_early_and_in_a_stream_half_a_frame(
    monkeypatch: pytest.MonkeyPatch, ahead: tuple[int, ...], pitch_hz: float
) -> None:
    monkeypatch.setattr(voice_model, "draw_hiss", lambda shape, generator: torch.zeros(shape))
    model = VoiceModel(dataclasses.replace(SMALL, encoder_ahead=ahead))
    model.load_state_dict(small_model().state_dict())
    f0_hz = np.zeros(40, np.float32)
    f0_hz[20:] = pitch_hz
    content = np.random.default_rng(1).normal(size=(40, SMALL.content)).astype(np.float32)
    level = np.abs(model.say(content, f0_hz, profile(2))).reshape(-1, 80).mean(1)
    level /= level[44:-4].mean()
    first_half = 40 if pitch_hz > 133.0 else 39 if ahead else 38
    assert level[:first_half].max() < 0.1
    assert level[first_half] > 0.25


def test_conversion_leaves_the_mode_as_it_was() -> None:
    model = small_model().train()
    model.convert(features(), profile(1), profile(2))
    assert model.training


@pytest.mark.parametrize("ahead", [0, 2, 6])
def test_a_block_sees_as_far_ahead_as_it_was_told(ahead: int) -> None:
    block = Block(4, 7, 2, ahead=ahead)
    x = torch.randn(1, 40, 4)
    other = x.clone()
    other[:, 20] += 1.0
    changed = (block(x) != block(other)).any(dim=2)[0].nonzero().flatten().tolist()
    assert changed == list(range(20 - ahead, 20 - ahead + 7))


def test_half_the_kernel_is_what_a_block_sees_ahead_by_default() -> None:
    torch.manual_seed(0)
    untold = VoiceModel(SMALL)
    told = VoiceModel(
        dataclasses.replace(
            SMALL,
            encoder_ahead=(3,) * SMALL.encoder_blocks,
            decoder_ahead=(3,) * SMALL.decoder_blocks,
        )
    )
    told.load_state_dict(untold.state_dict())
    log_mel, statistics = torch.randn(1, 30, 80), torch.ones(1, 80)
    assert torch.equal(
        untold.encoder(log_mel, statistics, statistics),
        told.encoder(log_mel, statistics, statistics),
    )


def test_recurrent_blocks_see_further_than_convolutions() -> None:
    hiss = torch.randn(1, 200 * 160)
    for recurrent, reaches in ((False, False), (True, True)):
        torch.manual_seed(1)
        model = VoiceModel(dataclasses.replace(SMALL, decoder_recurrent=recurrent)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        plain = batch(200)
        f0_hz = plain.f0_hz.clone()
        f0_hz[:, 190:] = 150.0
        condition = torch.zeros(1, 128)
        content = torch.randn(1, 200, SMALL.content)
        first, then = (model.decoder.hidden(content, f0, condition) for f0 in (plain.f0_hz, f0_hz))
        changed = (first - then).abs().amax(dim=2)[0] > 1e-9
        assert changed[190:].all()
        # Two convolutions over seven frames reach six frames back.
        assert bool(changed[150:183].any()) is reaches
        assert model(plain, hiss).shape == (1, 200 * 160)
