"""One speaker or several, by the vectors of stretches of speech."""

from __future__ import annotations

import numpy as np

from chorister.client.same_speaker import (
    CONSISTENCY_LIMIT,
    VoicePrint,
    centroid,
    consistency,
    likeness,
    stray_likenesses,
)
from chorister.shared.types import FloatArray

RNG = np.random.default_rng(0)


def voice(seed: int) -> FloatArray:
    vector = np.random.default_rng(seed).normal(size=256)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def spoken_by(*voices: FloatArray, each: int = 8) -> VoicePrint:
    """Windows of speakers in turn, each window a little off."""
    rows = np.repeat(np.stack(voices), each, axis=0)
    rows = rows + RNG.normal(0, 0.02, rows.shape)
    return VoicePrint((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


ANNA, BORIS = voice(1), voice(2)


def test_recordings_of_one_speaker_are_alike_and_of_two_are_not() -> None:
    enrolled = [spoken_by(ANNA), spoken_by(ANNA, each=3)]
    assert likeness(spoken_by(ANNA), enrolled) > 0.95
    assert likeness(spoken_by(BORIS), enrolled) < 0.3


def test_a_centroid_is_a_unit_vector_nearer_to_the_longer_recording() -> None:
    middle = centroid([spoken_by(ANNA, each=30), spoken_by(BORIS, each=3)])
    assert abs(float(np.linalg.norm(middle)) - 1.0) < 1e-5
    assert middle @ ANNA > middle @ BORIS


def test_the_one_stray_recording_is_named() -> None:
    found = stray_likenesses(spoken_by(ANNA), [spoken_by(ANNA), spoken_by(BORIS), spoken_by(ANNA)])
    assert np.argmin(found) == 1
    assert found[1] < 0.4
    assert min(found[0], found[2]) > 0.8


def test_two_speakers_in_turn_fall_apart() -> None:
    assert consistency([spoken_by(ANNA, BORIS, ANNA, BORIS)]) < CONSISTENCY_LIMIT
    assert consistency([spoken_by(ANNA, each=32)]) > CONSISTENCY_LIMIT
    assert consistency([spoken_by(ANNA), spoken_by(BORIS)]) < CONSISTENCY_LIMIT


def test_a_short_or_an_odd_stretch_is_no_second_speaker() -> None:
    assert consistency([spoken_by(ANNA, each=3)]) == 1.0
    assert consistency([spoken_by(*[ANNA] * 9, BORIS, each=4)]) == 1.0


def test_a_voice_print_does_not_show_itself() -> None:
    assert repr(spoken_by(ANNA)) == "VoicePrint(8 windows)"
