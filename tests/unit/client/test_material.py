"""Segments as the vault keeps them: the same bits when they come back."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from chorister.client.material import Segments, analyse
from chorister.shared.errors import BadWeights
from chorister.shared.types import Recording
from chorister.shared.voice.features import extract_features


def test_segments_come_back_to_the_bit(material):
    own = material(3).segments
    found = Segments.from_bytes(own.to_bytes())
    assert len(found) == 3
    for one, two in zip(own.recordings, found.recordings, strict=True):
        assert one.samples.tobytes() == two.samples.tobytes()
    for one, two in zip(own.features, found.features, strict=True):
        assert one.log_mel.tobytes() == two.log_mel.tobytes()
        assert one.f0_hz.tobytes() == two.f0_hz.tobytes()


def test_names_of_recordings_are_not_kept(material):
    assert b"s1" not in material(3).segments.to_bytes()
    assert Segments.from_bytes(material(2).segments.to_bytes()).recordings[1].name == "segment 1"


def test_no_segments_are_kept_as_none():
    assert len(Segments.from_bytes(Segments((), ()).to_bytes())) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"", b"junk", save({"other": np.zeros(3, np.float32)}),
        save({"samples": np.zeros((2, 9), np.float32)}),
        save({"samples": np.zeros((2, 9), np.float32), "log_mel": np.zeros((1, 2, 80), np.float32),
              "f0_hz": np.zeros((2, 2), np.float32)}),
    ],
)  # fmt: skip
def test_something_else_is_refused(data):
    with pytest.raises(BadWeights, match="Delete them from the vault"):
        Segments.from_bytes(data)


def test_a_selection_keeps_recording_and_features_together(material):
    own = material(4).segments
    picked = own.select([2, 0])
    assert picked.recordings == (own.recordings[2], own.recordings[0])
    assert picked.features == (own.features[2], own.features[0])


def test_a_segments_features_are_from_its_own_samples(speech):
    samples = speech(0.6, 1)
    one, two = (Recording(samples[i : i + 4800], "x") for i in (0, 4800))
    together = analyse([one, two])
    assert together.features[1].log_mel.tobytes() == extract_features(two).log_mel.tobytes()
    assert repr(together) == "Segments(2)"
