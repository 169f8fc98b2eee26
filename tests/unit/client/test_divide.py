"""A speaker's recordings by what they are for: no sample serves two ends."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.client.prepare import divide
from chorister.shared.types import Recording


def numbered(count: int, seconds: float = 12.0) -> list[Recording]:
    """Recordings whose samples say where they come from."""
    length = round(16_000 * seconds)
    return [
        Recording(np.arange(i * length, (i + 1) * length, dtype=np.float32), f"r{i}")
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 12, 40])
def test_no_sample_is_in_two_parts_and_every_part_has_some(count: int) -> None:
    parts = divide(numbered(count))
    used = [
        {float(sample) for one in part for sample in one.samples}
        for part in (parts.enrolment, parts.training, parts.held_out)
    ]
    assert all(used)
    assert not used[0] & used[1] and not used[1] & used[2] and not used[0] & used[2]


@pytest.mark.parametrize("count", [1, 12])
def test_half_is_trained_on_and_a_third_conditions_the_model(count: int) -> None:
    parts = divide(numbered(count))
    seconds = [
        sum(one.duration_s for one in part)
        for part in (parts.enrolment, parts.training, parts.held_out)
    ]
    shares = np.array(seconds) / (12.0 * count)
    np.testing.assert_allclose(shares, [1 / 3, 1 / 2, 1 / 6], atol=0.03)


def test_the_division_does_not_look_at_what_is_said() -> None:
    names = [[one.name for one in divide(numbered(9)).training]]
    other = [Recording(-one.samples[::-1].copy(), one.name) for one in numbered(9)]
    names.append([one.name for one in divide(other).training])
    assert names[0] == names[1]


def test_stretches_of_one_file_leave_a_gap_between_them() -> None:
    parts = divide(numbered(1))
    first, second = parts.enrolment[0].samples[-1], parts.training[0].samples[0]
    assert second - first > 0.25 * 16_000 - 1


def test_a_recording_too_short_to_cut_gives_no_empty_part() -> None:
    parts = divide([Recording(np.ones(4_000, np.float32), "short")])
    assert all(len(one.samples) for part in (parts.training, parts.held_out) for one in part)
