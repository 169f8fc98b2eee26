"""Sounds looked up by content, and envelopes moved towards them."""

from __future__ import annotations

import torch
from torch import nn

from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.recall import Recall, foreignness
from chorister.shared.voice.torch_mel import LogMel
from chorister.shared.voice.vocoder import Vocoder

TABLE = torch.eye(4).unsqueeze(0)
SOUNDS = torch.arange(4.0).reshape(1, 4, 1).expand(1, 4, 80)
OTHER = torch.ones(1)


def test_a_frame_finds_the_sounds_that_say_the_same() -> None:
    _, found = Recall()(7.0 * TABLE[:, [2, 0]], TABLE, SOUNDS, OTHER)
    assert torch.allclose(found[0, :, 0], torch.tensor([2.0, 0.0]), atol=1e-4)


def test_what_lies_between_two_sounds_gets_their_mean() -> None:
    between = (TABLE[:, :1] + TABLE[:, 3:]) / 2.0
    _, found = Recall()(between, TABLE, SOUNDS, OTHER)
    assert torch.allclose(found, torch.full((1, 1, 80), 1.5), atol=1e-3)


def test_content_moves_to_how_the_table_says_it_by_the_share() -> None:
    """Half way between a frame of the table and something that the table has not."""
    recall = Recall()
    table = nn.functional.layer_norm(torch.randn(1, 3, 48), (48,))
    said = nn.functional.layer_norm(table[:, :1] + 0.5 * torch.randn(1, 1, 48), (48,))
    apart = []
    for share in (0.0, 0.5, 1.0):
        recall.content_share.fill_(share)
        moved, _ = recall(said, table, torch.zeros(1, 3, 80), OTHER)
        assert torch.allclose(moved.mean(dim=2), torch.zeros(1, 1), atol=1e-5)
        assert torch.allclose(moved.var(dim=2, correction=0), torch.ones(1, 1), atol=1e-3)
        apart.append(float((moved - table[:, :1]).square().mean()))
    assert apart[0] > 1.5 * apart[1]
    assert apart[1] > 2.0 * apart[2]
    still, _ = recall(said, table, torch.zeros(1, 3, 80), torch.zeros(1))
    assert torch.allclose(still, said, atol=1e-4)
    half, _ = recall(said, table, torch.zeros(1, 3, 80), torch.tensor([0.5]))
    recall.content_share.fill_(0.5)
    assert torch.allclose(recall(said, table, torch.zeros(1, 3, 80), OTHER)[0], half, atol=1e-6)


def test_a_source_is_foreign_where_its_mean_spectrum_is_another() -> None:
    target = torch.linspace(-7.0, -4.0, 80)[None]
    tilt = torch.linspace(-1.0, 1.0, 80)[None]
    tilt = tilt / tilt.square().mean().sqrt()
    for apart, wanted in ((0.0, 0.0), (0.19, 0.0), (0.275, 0.5), (0.4, 1.0)):
        for level in (0.0, 1.5):  # another gain of the microphone is no other voice
            found = foreignness(target + apart * tilt + level, target)
            assert torch.allclose(found, torch.tensor([wanted]), atol=1e-3)


def test_the_order_of_the_table_does_not_matter() -> None:
    content, order = torch.randn(1, 5, 4), torch.tensor([3, 1, 0, 2])
    recall = Recall()
    recall.content_share.fill_(0.5)
    turned = recall(content, TABLE[:, order], SOUNDS[:, order], OTHER)
    for one, other in zip(recall(content, TABLE, SOUNDS, OTHER), turned, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_lowest_bands_are_left_alone_and_no_share_changes_nothing() -> None:
    recall, envelopes = Recall(), torch.randn(1, 6, 160)
    moved = recall.correct(envelopes, torch.zeros(1, 6, 80), torch.full((1, 6), 120.0))
    assert torch.equal(moved[:, :, [0, 1, 80, 81]], envelopes[:, :, [0, 1, 80, 81]])
    assert not torch.equal(moved, envelopes)
    with torch.no_grad():
        recall.share.zero_()
    still = recall.correct(envelopes, torch.zeros(1, 6, 80), torch.full((1, 6), 120.0))
    assert torch.equal(still, envelopes)


def test_a_whole_share_makes_noise_sound_as_recalled() -> None:
    recall, frames = Recall(), 60
    with torch.no_grad():
        recall.share.fill_(1.0)
    wanted = (-3.0 - 0.02 * torch.arange(80.0)).expand(1, frames, 80)
    f0_hz = torch.zeros(1, frames)
    envelopes = recall.correct(torch.full((1, frames, 160), -6.0), wanted, f0_hz)
    hiss = draw_hiss((1, frames * 160), torch.Generator().manual_seed(1))
    wav = Vocoder()(*envelopes.chunk(2, dim=2), f0_hz, hiss)
    heard = LogMel()(wav)[0, 5:-5].mean(dim=0)
    assert (heard - wanted[0, 0]).abs().max() < 0.15
