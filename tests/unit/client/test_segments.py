"""Long speech in segments: the same as at once, and no click at the joints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chorister.client.controls import Controls
from chorister.client.level import LevelFollower
from chorister.client.segments import OVERLAP_FRAMES, SEGMENT_FRAMES, SegmentConverter, join
from chorister.client.voice import Voice
from chorister.shared.types import FloatArray

RATE = 16_000
SECONDS = 38.0
Speech = Callable[[float, int], FloatArray]
# Rates that no number of frames is a multiple of.
SLOW = Controls(rate=0.77, formant=1.1, pitch_st=-2.0, intonation=1.4, breathiness=0.3)
FAST = Controls(rate=1.37, formant=0.9, pitch_st=3.0, intonation=0.5, breathiness=-0.3)
ALL = (Controls(), SLOW, FAST)


@pytest.fixture(scope="module")
def voice(voice_path: Path) -> Voice:
    return Voice(voice_path.read_bytes(), "v")


def in_segments(converter: SegmentConverter, samples: FloatArray, block: int) -> FloatArray:
    parts = [converter.feed(samples[at : at + block]) for at in range(0, len(samples), block)]
    return np.concatenate([*parts, converter.finish()])


def flux(samples: FloatArray) -> FloatArray:
    """Change of the log spectrum from one 10 ms frame to the next."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160) * np.hanning(160)
    spectrum = np.log(np.abs(np.fft.rfft(frames, axis=1)) + 1e-4)
    return np.abs(np.diff(spectrum, axis=0)).mean(axis=1)


@pytest.mark.parametrize("controls", ALL, ids=["neutral", "slow", "fast"])
def test_segments_are_the_same_as_the_whole(
    voice: Voice, speech: Speech, monkeypatch: pytest.MonkeyPatch, controls: Controls
) -> None:
    """Of the model alone: levels, which follow each segment, are left out."""
    monkeypatch.setattr(LevelFollower, "follow", lambda self, source, made, **where: made)
    samples = speech(SECONDS, 1)
    whole = voice.run(samples, controls=controls)
    converter = SegmentConverter(voice, controls=controls, statistics=whole.statistics)
    found = in_segments(converter, samples, RATE)
    assert found.shape == whole.samples.shape == (np.ceil(len(samples) / controls.rate),)
    for start in range(0, len(found), RATE * 5):
        wanted = whole.samples[start : start + RATE * 5].astype(np.float64)
        noise = np.square(found[start : start + RATE * 5] - wanted).sum()
        assert 10 * np.log10(np.square(wanted).sum() / max(noise, 1e-30)) > 60


def test_the_size_of_the_blocks_does_not_matter(voice: Voice, speech: Speech) -> None:
    samples = speech(24.0, 2)
    wanted = in_segments(SegmentConverter(voice), samples, len(samples))
    assert wanted.shape == samples.shape
    for block in (7001, 16_000 * 11):
        np.testing.assert_array_equal(in_segments(SegmentConverter(voice), samples, block), wanted)


@pytest.mark.parametrize("extra", [-1, 0, 1, 160])
def test_lengths_around_a_segment(voice: Voice, speech: Speech, extra: int) -> None:
    samples = speech(21.0, 3)[: SEGMENT_FRAMES * 160 + extra]
    assert in_segments(SegmentConverter(voice), samples, 50_000).shape == samples.shape


def test_nothing_gives_nothing(voice: Voice) -> None:
    converter = SegmentConverter(voice)
    assert len(converter.feed(np.zeros(0, np.float32))) == 0
    assert len(converter.finish()) == 0


@pytest.mark.parametrize("controls", ALL, ids=["neutral", "slow", "fast"])
@pytest.mark.parametrize("kind", ["speech", "one long vowel"])
def test_no_click_at_the_joints(
    voice: Voice, speech: Speech, kind: str, controls: Controls
) -> None:
    """Spectral flux where two segments meet is that of the same places converted at once."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    cycles = 140 * t + 6 * np.sin(2 * np.pi * 0.4 * t)
    vowel = sum(np.sin(2 * np.pi * k * cycles) / k for k in range(1, 15))
    samples = speech(SECONDS, 4) if kind == "speech" else (0.05 * vowel).astype(np.float32)
    made = voice.run(samples, controls=controls)
    whole = flux(LevelFollower().follow(samples, made.samples, rate=controls.rate))
    found = flux(in_segments(SegmentConverter(voice, controls=controls), samples, RATE))
    step = SEGMENT_FRAMES - OVERLAP_FRAMES
    for joint in range(step, round(SECONDS * 100) - OVERLAP_FRAMES, step):
        around = slice(*(int(at / controls.rate) for at in (joint, joint + OVERLAP_FRAMES)))
        assert found[around].max() < 1.2 * whole[around].max()
        assert np.percentile(found[around], 90) < 1.2 * np.percentile(whole[around], 90)


def test_a_joint_is_at_the_quietest_unvoiced_frame() -> None:
    overlap = OVERLAP_FRAMES * 160
    before, after = np.ones(overlap, np.float32), -np.ones(overlap + 320, np.float32)
    f0_hz = np.full(OVERLAP_FRAMES, 100.0, np.float32)
    f0_hz[140:160] = 0
    before[150 * 160 : 154 * 160] = 0.1
    after[150 * 160 : 154 * 160] = -0.1
    joined = join(before, f0_hz, after, f0_hz)
    assert len(joined) == len(after)
    np.testing.assert_array_equal(joined[: 150 * 160], 1.0)
    np.testing.assert_array_equal(joined[154 * 160 :], -1.0)
    assert np.abs(joined[150 * 160 : 154 * 160]).max() <= 0.1
