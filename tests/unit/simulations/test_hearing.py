"""Recognisers: words of transcripts, and (where pocketsphinx is installed) of sounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chorister.shared.types import FloatArray
from chorister.simulations.hearing import hear, listeners, words_of


def test_words_of_a_transcript_have_no_punctuation_or_case() -> None:
    assert words_of("  I'LL -- go,\tnow!\n") == ["i'll", "go", "now"]
    assert words_of("1234 ...") == []


def test_the_same_is_heard_twice_whatever_the_level(speech: Callable[..., FloatArray]) -> None:
    pytest.importorskip("pocketsphinx")
    samples = speech(1.0, 2)
    with listeners(0, words=False) as ears:
        first, second = (ears.hear((g * samples).astype(np.float32)) for g in (1.0, 0.5))
    assert first.result() == second.result()
    assert first.result().words is None


@pytest.mark.slow
def test_processes_hear_what_this_one_does(speech: Callable[..., FloatArray]) -> None:
    pytest.importorskip("pocketsphinx")
    samples = speech(1.0, 2)
    with listeners(1, words=True) as ears:
        assert ears.hear(samples).result() == hear(samples, words=True)
