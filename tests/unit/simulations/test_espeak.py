"""The synthesiser's child process: faults become one error, speech becomes the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chorister.simulations.espeak import SpeechError, Voice, speak

loader = pytest.importorskip("espeakng_loader", reason="needs the extra 'embedded'")
LIBRARY = Path(loader.get_library_path())
DATA = Path(loader.get_data_path())
SENTENCES = ("The sun is low.", "Zoë asked: “why?”")


def test_an_unknown_voice() -> None:
    with pytest.raises(SpeechError, match="no voice gmw/nowhere"):
        speak(Voice("gmw/nowhere"), SENTENCES, LIBRARY, DATA)


def test_a_missing_library(tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="OSError"):
        speak(Voice("gmw/en-US"), SENTENCES, tmp_path / "none.so", DATA)


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="data cannot be read"):
        speak(Voice("gmw/en-US"), SENTENCES, LIBRARY, tmp_path / "espeak-ng-data")


def test_the_same_speech_every_time() -> None:
    first = speak(Voice("gmw/en-US+klatt2"), SENTENCES, LIBRARY, DATA)
    assert first == speak(Voice("gmw/en-US+klatt2"), SENTENCES, LIBRARY, DATA)
    rate_hz, pcm = first
    assert rate_hz == 22_050 and len(pcm) == len(SENTENCES)
    for block in pcm:
        samples = np.frombuffer(block, "<i2")
        assert 0.5 < len(samples) / rate_hz < 5
        assert 2000 < np.abs(samples.astype(int)).max() < 32_767


def test_pitch_and_rate_are_heard() -> None:
    (_, (plain, *_)) = speak(Voice("gmw/en-US"), SENTENCES, LIBRARY, DATA)
    (_, (slow, *_)) = speak(Voice("gmw/en-US", rate_wpm=90), SENTENCES, LIBRARY, DATA)
    (_, (high, *_)) = speak(Voice("gmw/en-US", pitch=90), SENTENCES, LIBRARY, DATA)
    assert len(slow) > 1.4 * len(plain) and high != plain


def test_a_long_path_to_the_data(tmp_path: Path) -> None:
    """The library cuts the path that it is given at 160 characters."""
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / DATA.name).symlink_to(DATA)
    _, pcm = speak(Voice("gmw/en-US"), SENTENCES[:1], LIBRARY, deep / DATA.name)
    assert len(pcm[0]) > 10_000
