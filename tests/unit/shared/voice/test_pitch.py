"""F0 methods by name: refused where unknown or not installed, and on the same frames."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.pitch import F0_METHODS, f0_estimator

Speech = Callable[[float, int], FloatArray]


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadSettings, match="yin-viterbi, harvest") as caught:
        f0_estimator("crepe")
    assert caught.value.found == "'crepe'"


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(BadSettings, match=r"pip install 'chorister\[harvest\]'"):
        f0_estimator("harvest")


def test_the_default_is_the_one_that_the_base_is_trained_with(speech: Speech) -> None:
    assert f0_estimator() is estimate_f0
    recording = Recording(speech(1.0, 0), "a")
    named = extract_features(recording, "yin-viterbi").f0_hz
    assert extract_features(recording).f0_hz.tobytes() == named.tobytes()


@pytest.mark.parametrize("method", F0_METHODS)
@pytest.mark.parametrize("length", [0, 100, 160, 319, 8_007])
def test_every_method_has_a_row_for_each_hop(method: str, length: int, speech: Speech) -> None:
    if method == "harvest":
        pytest.importorskip("pyworld")
    found = f0_estimator(method)(speech(1.0, 0)[:length])
    assert (found.shape, found.dtype) == ((length // 160,), np.float32)


def test_harvest_hears_the_same_pitch_on_the_same_frames() -> None:
    pytest.importorskip("pyworld")
    t = np.arange(16_000) / 16_000
    f0_hz = 150.0 * np.exp(0.3 * np.sin(2 * np.pi * t))
    phase = 2 * np.pi * np.cumsum(f0_hz) / 16_000
    voice = (0.05 * sum(np.sin(k * phase) / k for k in range(1, 12))).astype(np.float32)
    found = extract_features(Recording(voice, "a"), "harvest").f0_hz[5:-5]
    middle = f0_hz[80::160][: len(found) + 10][5:-5]
    cents = 1200 * np.log2(found / middle)
    assert np.abs(cents).max() < 12
    # A shift by half a hop would show as a slope of 5 ms times the glide, up to 16 cents.
    glide = np.gradient(1200 * np.log2(middle))
    assert abs(np.dot(cents, glide) / np.dot(glide, glide)) < 0.25


@pytest.mark.parametrize("method", F0_METHODS)
def test_no_method_hears_a_voice_in_silence_or_below_its_floor(method: str) -> None:
    if method == "harvest":
        pytest.importorskip("pyworld")
    estimate = f0_estimator(method)
    wave = np.sin(2 * np.pi * 150 * np.arange(8_000) / 16_000).astype(np.float32)
    assert not estimate(np.zeros(8_000, np.float32)).any()
    assert not estimate(1e-4 * wave).any()
