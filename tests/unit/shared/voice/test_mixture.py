"""Background mixtures: damaged files first, then that a voice explains its own speech best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice.mixture import (
    BACKGROUND_FORMAT,
    COEFFICIENTS,
    Background,
    VoiceMixture,
    cepstral_frames,
    read_background,
)


def one_gaussian(columns: int = COEFFICIENTS) -> Background:
    return Background(np.ones(1), np.zeros((1, columns)), np.ones((1, columns)))


def mel(seed: int, shape: FloatArray | None = None, frames: int = 200) -> FloatArray:
    """Noise around a formant that moves; `shape` is added to every frame."""
    draw = np.random.default_rng(seed)
    bands = np.arange(80)
    centre = 30.0 + 12.0 * np.sin(np.arange(frames) / 9.0 + seed)
    rows = -3.0 + 3.0 * np.exp(-(((bands - centre[:, None]) / 6.0) ** 2))
    rows = rows + 0.1 * draw.normal(size=(frames, 80)) + (0.0 if shape is None else shape)
    return rows.astype(np.float32)


def arrays(**changes: object) -> dict[str, np.ndarray]:
    plain = {
        "weights": np.ones(2, np.float32) / 2,
        "means": np.zeros((2, COEFFICIENTS), np.float32),
        "variances": np.ones((2, COEFFICIENTS), np.float32),
    }
    return plain | changes  # type: ignore[return-value]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="absent"):
        read_background(tmp_path / "absent.safetensors")


def test_another_format_is_refused(tmp_path: Path) -> None:
    save_file(arrays(), tmp_path / "b.safetensors", {"format": "other"})
    with pytest.raises(BadWeights, match="'other'"):
        read_background(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"means": np.zeros((2, 7), np.float32), "variances": np.ones((2, 7), np.float32)},
        {"variances": np.zeros((2, COEFFICIENTS), np.float32)},
        {"means": np.full((2, COEFFICIENTS), np.nan, np.float32)},
        {"weights": np.ones(3, np.float32)},
        {"weights": np.array([1.0, -1.0], np.float32)},
    ],
)
def test_values_that_make_no_mixture_are_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_file(arrays(**changes), tmp_path / "b.safetensors", {"format": BACKGROUND_FORMAT})
    with pytest.raises(BadWeights, match="means of shape"):
        read_background(tmp_path / "b.safetensors")


def test_a_voice_needs_speech() -> None:
    with pytest.raises(BadAudio, match="in 0 recordings"):
        VoiceMixture(one_gaussian(), [])


def test_the_density_is_the_normal_distributions() -> None:
    frames = np.random.default_rng(0).normal(size=(50, COEFFICIENTS))
    expected = -0.5 * (frames**2).sum(1).mean() - 0.5 * COEFFICIENTS * np.log(2 * np.pi)
    assert one_gaussian().log_likelihood(frames) == pytest.approx(expected)


def test_means_move_towards_the_frames_as_the_relevance_says() -> None:
    frames = np.full((16, COEFFICIENTS), 2.0)
    # 16 frames weigh as much as the background's mean: half way.
    assert one_gaussian().adapt(frames) == pytest.approx(np.full((1, COEFFICIENTS), 1.0))


def test_frames_do_not_depend_on_level_or_channel() -> None:
    channel = np.linspace(-1.0, 1.0, 80, dtype=np.float32)
    plain = cepstral_frames(mel(1), with_slopes=True)
    assert plain.shape[1] == 2 * COEFFICIENTS
    filtered = cepstral_frames(mel(1, channel + 2.0), with_slopes=True)
    assert filtered == pytest.approx(plain, abs=1e-5)


def test_a_voice_explains_its_own_speech_better_than_another() -> None:
    low = np.exp(-(((np.arange(80) - 60.0) / 5.0) ** 2)).astype(np.float32)

    def spoken(seed: int, size: float) -> FloatArray:
        """A second formant that comes and goes with the first one, `size` high."""
        wave = np.sin(np.arange(200) / 9.0 + seed)[:, None].astype(np.float32)
        return np.asarray(mel(seed) + size * wave * low, np.float32)

    people = [spoken(seed, size) for seed, size in ((1, 1.5), (2, -1.5))]
    rows = np.concatenate([cepstral_frames(one, with_slopes=False) for one in people])
    high = rows[:, 0] > 0
    background = Background(
        np.array([0.5, 0.5]),
        np.stack([rows[~high].mean(0), rows[high].mean(0)]),
        np.stack([rows[~high].var(0), rows[high].var(0)]),
    )
    voices = [VoiceMixture(background, [spoken(3, size), spoken(4, size)]) for size in (1.5, -1.5)]
    for own, size in enumerate((1.5, -1.5)):
        ratios = [voice.ratio(spoken(5, size)) for voice in voices]
        assert ratios[own] > 0.1 > ratios[1 - own]
