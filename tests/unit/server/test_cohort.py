"""Who is asked: the right number, everybody equally often, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from chorister.server.cohort import choose_cohort
from chorister.simulations.randomness import SimulatedRandomness

DEVICES = [f"d{i:02}" for i in range(20)]


@pytest.mark.parametrize(("share", "size"), [(1.0, 20), (0.5, 10), (0.25, 5), (0.001, 1)])
def test_the_share_says_how_many(share, size):
    chosen = choose_cohort(DEVICES, share, SimulatedRandomness(1))
    assert len(set(chosen)) == size
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(DEVICES)


def test_nobody_is_nobody():
    assert choose_cohort([], 1.0, SimulatedRandomness(1)) == []


def test_everybody_is_chosen_equally_often():
    counts = Counter(
        d for s in range(800) for d in choose_cohort(DEVICES, 0.25, SimulatedRandomness(s))
    )
    # Binomial(800, 1/4): 200, standard deviation 12.
    assert max(abs(counts[d] - 200) for d in DEVICES) < 62


def test_the_choice_follows_from_the_randomness():
    one, two = (choose_cohort(DEVICES, 0.5, SimulatedRandomness(3)) for _ in range(2))
    assert one == two
    assert one != choose_cohort(DEVICES, 0.5, SimulatedRandomness(4))
