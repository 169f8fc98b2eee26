"""The whole protocol: for every pattern of drop-outs the sum is exact, or the round aborts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from chorister.shared.errors import RoundAborted
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.thresholds import derive
from chorister.simulations.secagg_rehearsal import (
    STAGES,
    Network,
    Rehearsal,
    exact_sum,
    rehearsal_terms,
    uniform_deltas,
)


def _outcome(cohort: int, drops: dict[str, set[str]], gamma: float = 0.0, seed: int = 0) -> bool:
    """Return whether the round finished; if so, its sum was compared with the plain one."""
    terms = rehearsal_terms(cohort, 5, gamma=gamma)
    deltas = uniform_deltas(terms, seed)
    rehearsal = Rehearsal(terms, seed)
    try:
        aggregate = rehearsal.run(deltas, Network(drops))
    except RoundAborted:
        return False
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    gone = set().union(*(drops.get(s, set()) for s in STAGES[:3]))
    assert set(names) == rehearsal.devices.keys() - gone
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))
    return True


def test_every_pattern_of_drop_outs_of_five_devices() -> None:
    names = [f"device-{i:04}" for i in range(5)]
    finished = 0
    # Each device either stays or drops out at one of the five stages; order does not matter for the
    # coordinator, so patterns are multisets given to the devices in order.
    for pattern in itertools.combinations_with_replacement([*STAGES, "stays"], 5):
        drops = {s: {n for n, p in zip(names, pattern, strict=True) if p == s} for s in STAGES}
        left = list(
            itertools.accumulate((pattern.count(s) for s in STAGES), int.__sub__, initial=5)
        )
        _, roster, _, masked, voted, revealed = left
        # Nobody is corrupt: min_honest is 3, and thresholds are majorities of whoever advertised.
        majority = roster // 2 + 1
        done = _outcome(5, drops)
        assert done == (masked >= 3 and voted >= majority and revealed >= majority), pattern
        finished += done
    assert finished > 20


def _should_finish(terms: RoundTerms, pattern: tuple[str, ...]) -> bool:
    """Return what section 4 says of a complete graph: who is left after each exchange, and limits.

    Args:
        terms: of the round.
        pattern: for each device the stage in which it drops out, or 'stays'.
    """
    left = len(pattern)
    counts = [left := left - pattern.count(stage) for stage in STAGES]
    roster, sharers, survivors, voters, revealed = counts
    try:
        t = derive(roster, terms.cohort, terms.gamma, terms.dropout, terms.min_honest)
    except RoundAborted:
        return False
    return (
        min(sharers, survivors) >= t.min_survivors
        and voters >= t.vote_quorum
        and revealed >= t.share_threshold
    )


def _every_subset_at_every_stage(cohort: int) -> tuple[int, int]:
    """Run a round for each of the 6**n ways to drop out; return how many finished and aborted."""
    terms, finished = rehearsal_terms(cohort, 5), 0
    names = [f"device-{i:04}" for i in range(cohort)]
    for pattern in itertools.product([*STAGES, "stays"], repeat=cohort):
        drops = {s: {n for n, p in zip(names, pattern, strict=True) if p == s} for s in STAGES}
        done = _outcome(cohort, drops)
        assert done == _should_finish(terms, pattern), pattern
        finished += done
    return finished, 6**cohort - finished


def test_every_subset_of_three_devices_at_every_stage() -> None:
    finished, aborted = _every_subset_at_every_stage(3)
    # Nobody drops out, or one device does, at any of the five stages.
    assert (finished, aborted) == (1 + 3 * 5, 216 - 16)


@pytest.mark.slow
def test_every_subset_of_four_devices_at_every_stage() -> None:
    finished, aborted = _every_subset_at_every_stage(4)
    assert finished >= 1 + 4 * 3
    assert aborted > 1000


@pytest.mark.parametrize("seed", range(12))
def test_answers_that_get_lost_on_the_way_are_drop_outs_too(seed: int) -> None:
    # The device has done its step, and has stored that it did; the server never hears of it.
    generator = np.random.default_rng(seed)
    lost = {
        (STAGES[generator.integers(5)], f"device-{i:04}")
        for i in range(7)
        if generator.random() < 0.3
    }

    class Lossy(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return None if (stage, peer) in lost else message

    terms = rehearsal_terms(7, 5, gamma=0.15)
    deltas, rehearsal = uniform_deltas(terms, seed), Rehearsal(terms, seed)
    drops = [next((s for s, name in lost if name == f"device-{i:04}"), "stays") for i in range(7)]
    if not _should_finish(terms, tuple(drops)):
        with pytest.raises(RoundAborted):
            rehearsal.run(deltas, Lossy())
        return
    aggregate = rehearsal.run(deltas, Lossy())
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dropped", [(0,), (1, 4), (2, 3), (0, 5)])
def test_drop_outs_of_six_devices_wherever_they_are_in_the_order(
    stage: str, dropped: tuple[int, ...]
) -> None:
    assert _outcome(6, {stage: {f"device-{i:04}" for i in dropped}}, gamma=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_random_drop_outs_of_thirty_devices(seed: int) -> None:
    generator = np.random.default_rng(seed)
    drops: dict[str, set[str]] = {s: set() for s in STAGES}
    for i in range(30):
        if generator.random() < 0.15:
            drops[STAGES[generator.integers(5)]].add(f"device-{i:04}")
    _outcome(30, drops, gamma=0.1, seed=seed)


@pytest.mark.parametrize("modulus_bits", [16, 20, 32])
def test_the_sum_is_exact_for_other_moduli(modulus_bits: int) -> None:
    terms = rehearsal_terms(6, 7, modulus_bits=modulus_bits)
    deltas = uniform_deltas(terms, 3)
    rehearsal = Rehearsal(terms, 3)
    aggregate = rehearsal.run(deltas, Network({"mask": {"device-0002"}}))
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))


def test_a_sparse_graph_sums_exactly_despite_drop_outs() -> None:
    terms = rehearsal_terms(160, 3, gamma=0.02, dropout=0.02)
    deltas = uniform_deltas(terms, 0)
    rehearsal = Rehearsal(terms, 0)
    drops = {"share": {"device-0003"}, "mask": {"device-0050"}, "reveal": {"device-0100"}}
    aggregate = rehearsal.run(deltas, Network(drops))
    assert not rehearsal.coordinator.thresholds.complete
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert len(names) == 158
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))


def test_the_same_seed_gives_the_same_bytes() -> None:
    terms = rehearsal_terms(6, 7)
    deltas = uniform_deltas(terms, 3)
    first, second = Rehearsal(terms, 3), Rehearsal(terms, 3)
    first.run(deltas)
    second.run(deltas)
    assert [d.state for d in first.devices.values()] == [d.state for d in second.devices.values()]
