"""Figures of docs/adr/0012: `pytest -m slow -s tests/benchmarks/test_rotation.py`."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from chorister.server.update import next_clip
from chorister.shared.errors import BadSettings
from chorister.shared.secagg.quantise import round_within_norm
from chorister.shared.secagg.rotation import rotate, unrotate
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.settings import AdaptiveClip
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import rehearsal_terms

SEED = bytes(range(32))


def _shapes(d: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(d)
    spike = np.zeros(d)
    spike[d // 3] = 1.0
    found = {"even": generator.normal(size=d), "heavy": generator.standard_cauchy(d), "one": spike}
    return {name: values / np.linalg.norm(values) for name, values in found.items()}


def _rounding_error(values: np.ndarray, terms: RoundTerms, rotation: bool) -> float:
    """Return the error that rounding alone makes of one delta, over its length."""
    scaled = (rotate(values, SEED) if rotation else values) * terms.scale
    rounded = round_within_norm(scaled, terms.norm_bound, SimulatedRandomness(0)) / terms.scale
    back = unrotate(rounded, SEED) if rotation else rounded
    return float(np.linalg.norm(back - values))


@pytest.mark.slow
@pytest.mark.parametrize("d", [320, 4000, 100_000])
def test_what_rotation_does_to_the_largest_value_and_to_rounding(d: int) -> None:
    started = time.thread_time()
    rotate(np.ones(d), SEED)
    spent = time.thread_time() - started
    print(f"\nd = {d}, {1e3 * spent:.1f} ms; noise multiplier 1, 100 devices")
    print("bits  delta  largest  rotated  rounding  rotated  noise of one device")
    for bits in (32, 18):
        terms = rehearsal_terms(100, d, modulus_bits=bits)
        noise = math.sqrt(terms.client_variance * d) / terms.scale
        for name, values in _shapes(d).items():
            plain, rotated = (_rounding_error(values, terms, r) for r in (False, True))
            peak, flat = np.abs(values).max(), np.abs(rotate(values, SEED)).max()
            assert flat <= 8 / math.sqrt(d)
            print(
                f"{bits:4}  {name:5}  {peak:7.4f}  {flat:7.4f}  {plain:8.2e}  {rotated:7.1e}  "
                f"{noise:8.2e}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("d", [320, 4000, 100_000])
def test_how_many_bits_rotation_would_save(d: int) -> None:
    def planned(bits: int) -> RoundTerms | None:
        try:
            return rehearsal_terms(100, d, modulus_bits=bits)
        except BadSettings:
            return None

    bits, terms = next((b, t) for b in range(16, 33) if (t := planned(b)) is not None)
    # All deltas alike in one coordinate: what the terms allow for, and what it is once rotated.
    flat = np.abs(rotate(_shapes(d)["one"], SEED)).max()
    signal = terms.cohort * terms.sensitivity
    print(
        f"\nd = {d}: terms need {bits} bits for a signal of {signal:.3g} steps and a noise of at "
        f"most {terms.noise_tail():.3g}; rotated, the signal would be {signal * flat:.3g}, and "
        f"{math.ceil(math.log2(signal * flat + terms.noise_tail())) + 1} bits would do"
    )
    assert flat < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [8, 30, 100])
def test_where_an_adaptive_clip_comes_to(cohort: int) -> None:
    settings = AdaptiveClip()
    terms = rehearsal_terms(cohort, 320, bit_share=settings.budget_share)
    noise = math.sqrt(cohort * terms.client_variance) / (2 * terms.bit_steps * cohort)
    generator = np.random.default_rng(cohort)
    print(f"\n{cohort} devices, median norm 0.1, clip 0.5 at first; count's deviation {noise:.3f}")
    for rounds in (10, 30, 100):
        ends = []
        for _ in range(200):
            clip = 0.5
            for _ in range(rounds):
                norms = 0.1 * np.exp(0.5 * generator.normal(size=cohort))
                clip = next_clip(
                    clip, float(np.mean(norms <= clip)) + noise * generator.normal(), settings
                )
            ends.append(clip)
        low, middle, high = np.quantile(ends, (0.05, 0.5, 0.95))
        print(f"after {rounds:3} rounds: {middle:.3f} (5 % to 95 %: {low:.3f} to {high:.3f})")
        assert middle < 0.5
