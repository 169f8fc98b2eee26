"""The statement that segment-level privacy stands on: one segment changes no other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chorister.client.prepare import GUARD_SAMPLES, segments
from chorister.shared.types import Recording

LENGTH = 20_480
STRIDE = LENGTH + GUARD_SAMPLES


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 6),
    changed=st.integers(0, 5),
    level=st.sampled_from([0.0, 1e-4, 0.003, 0.1, 1.0]),
    gain=st.floats(0.1, 10.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_changing_one_segment_changes_no_other(
    count: int, changed: int, level: float, gain: float, seed: int
) -> None:
    changed %= count
    draw = np.random.default_rng(seed)
    samples = draw.normal(0, 0.05, count * STRIDE).astype(np.float32)
    other = samples.copy()
    # All that belongs to the segment, and half of the unused samples on both sides.
    low = max(changed * STRIDE - GUARD_SAMPLES // 2, 0)
    high = changed * STRIDE + LENGTH + GUARD_SAMPLES // 2
    other[low:high] = draw.normal(0.01, level, len(other[low:high])).astype(np.float32)
    before = {s.name: s.samples for s in segments([Recording(samples, "a")], gain=gain)}
    after = {s.name: s.samples for s in segments([Recording(other, "a")], gain=gain)}
    for number in range(count):
        name = f"a#{number}"
        if number != changed:
            assert (name in before) == (name in after)
            if name in before:
                np.testing.assert_array_equal(before[name], after[name])


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 200_000), frames=st.integers(60, 1000))
def test_segments_lie_in_their_recording_and_apart(length: int, frames: int) -> None:
    ramp = np.arange(length, dtype=np.float64)
    wave = np.sin(ramp * 0.7).astype(np.float32)
    found = segments([Recording(wave, "a")], segment_s=frames / 100)
    size = frames * 160
    assert all(len(segment.samples) == size for segment in found)
    expected = 0 if length < size else (length - size) // (size + GUARD_SAMPLES) + 1
    if length < size and length >= 9_600:
        expected = 1
    assert len(found) == expected
