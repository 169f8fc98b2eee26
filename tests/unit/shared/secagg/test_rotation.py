"""The rotation is orthogonal, nobody's choice, and spreads what one coordinate held."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from chorister.client.privatise import clip, quantise
from chorister.shared.secagg.masks import centred, residues
from chorister.shared.secagg.quantise import mean_delta, squared_norm
from chorister.shared.secagg.rotation import rotate, rotation_seed, unrotate
from chorister.shared.types import AdapterDelta, Aggregate
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import Rehearsal, rehearsal_terms

SEED = bytes(range(32))
SIZES = [1, 2, 3, 4, 5, 7, 8, 64, 65, 127, 320, 1000]


@pytest.mark.parametrize("d", [size for size in SIZES if size <= 127])
def test_the_rotation_is_an_orthogonal_matrix(d: int) -> None:
    matrix = np.stack([rotate(unit, SEED) for unit in np.eye(d)], axis=1)
    assert np.abs(matrix @ matrix.T - np.eye(d)).max() < 1e-12
    assert np.abs(matrix.T @ matrix - np.eye(d)).max() < 1e-12


def test_on_four_values_it_is_hadamards_matrix_with_signs() -> None:
    # AES-256-CTR under the seed, from a zero counter; its lowest bits are the signs.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES256(SEED), modes.CTR(bytes(16))).encryptor().update(bytes(1))[0]
    signs = [1 - 2 * (stream >> i & 1) for i in range(4)]
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert rotate(values, SEED) == pytest.approx(hadamard @ (signs * values) / 2)


@pytest.mark.parametrize("d", SIZES)
def test_it_comes_back(d: int) -> None:
    values = np.random.default_rng(d).normal(size=d)
    rotated = rotate(values, SEED)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(values), rel=1e-12)
    assert unrotate(rotated, SEED) == pytest.approx(values, abs=1e-12)
    other = hashlib.sha256(SEED).digest()
    if d > 8:
        assert np.abs(unrotate(rotated, other) - values).max() > 0.1


def test_the_seed_is_bound_to_everybodys_keys() -> None:
    assert (
        rotation_seed(bytes(32)) == hashlib.sha256(b"chorister/1 rotation\0" + bytes(32)).digest()
    )
    rehearsals = [Rehearsal(rehearsal_terms(4, 3), seed) for seed in (0, 1)]
    for rehearsal in rehearsals:
        rehearsal.run({name: np.zeros(3, np.int64) for name in rehearsal.devices})
    one, two = (r.coordinator.rotation_seed for r in rehearsals)
    assert one != two  # the same terms, other keys


@pytest.mark.parametrize("d", [320, 1000, 4097])
def test_one_large_value_is_spread(d: int) -> None:
    for place in (0, d // 3, d // 2, d - 1):
        unit = np.zeros(d)
        unit[place] = 1.0
        # Spread evenly it would be 1 / sqrt(d) everywhere.
        assert np.abs(rotate(unit, SEED)).max() <= 8 / math.sqrt(d)


def test_a_sum_that_would_wrap_does_not_where_deltas_are_rotated() -> None:
    # Twelve devices agree on one coordinate: 12 x 400 steps in a modulus of 4096. No terms allow
    # it, because for rotated deltas the same could only be said with high probability.
    d, n, steps = 256, 12, 400.0
    delta = np.zeros(d)
    delta[17] = steps

    def through(values: np.ndarray) -> np.ndarray:
        return centred(residues(n * np.round(values).astype(np.int64), 12), 12) / n

    assert np.abs(through(delta) - delta).max() > 100
    assert np.abs(unrotate(through(rotate(delta, SEED)), SEED) - delta).max() < 6


@pytest.mark.parametrize("d", [4, 5, 320])
def test_through_quantising_and_back_it_costs_no_more_than_rounding(d: int) -> None:
    terms = rehearsal_terms(6, d, noise_multiplier=0.0, rotation=True)
    values = np.random.default_rng(1).normal(size=d).astype(np.float32)
    clipped = clip(AdapterDelta(values), 1.0)
    total = np.zeros(d, np.int64)
    for i in range(6):
        quantised = quantise(clipped, terms, SEED, SimulatedRandomness(i)).values
        # Sensitivity is what it is without rotation: the bound is checked after rounding.
        assert squared_norm(quantised) <= terms.norm_bound
        total += quantised
    mean = mean_delta(Aggregate(total, tuple("abcdef"), 32), terms, SEED)
    assert np.linalg.norm(mean - clipped.values) <= math.sqrt(d) / terms.scale
    wrong = mean_delta(Aggregate(total, tuple("abcdef"), 32), terms, bytes(32))
    assert np.linalg.norm(wrong - clipped.values) > 0.1


def test_without_rotation_the_seed_is_not_read() -> None:
    terms = rehearsal_terms(6, 3, noise_multiplier=0.0)
    clipped = clip(AdapterDelta(np.array([0.5, 0.25, 0.0], np.float32)), 1.0)
    quantised = quantise(clipped, terms, SEED, SimulatedRandomness(0)).values
    assert list(quantised) == [terms.scale * v for v in (0.5, 0.25, 0.0)]
