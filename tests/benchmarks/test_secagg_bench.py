"""Figures of secure aggregation: `pytest -m slow -s tests/benchmarks/test_secagg_bench.py`.

Times are printed, not asserted; sizes do not depend on the machine and are.
"""

from __future__ import annotations

import pytest

from chorister.simulations.secagg_cli import main
from chorister.simulations.secagg_rehearsal import Rehearsal, rehearsal_terms, uniform_deltas


@pytest.mark.slow
def test_client_mask_and_server_against_secagg_plus() -> None:
    assert main(["bench", "--dim", "100000", "--neighbours", "50", "--cohorts"]) == 0


@pytest.mark.slow
def test_cohorts_up_to_a_thousand() -> None:
    cohorts = ["--cohorts", "100", "250", "500", "1000"]
    size = ["--dim", "1000", "--neighbours", "4", "--repeats", "1"]
    assert main(["bench", *size, *cohorts]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("modulus_bits", [24, 32])
def test_the_upload_is_hardly_longer_than_the_vector(modulus_bits: int) -> None:
    terms = rehearsal_terms(100, 100_000, gamma=0.05, modulus_bits=modulus_bits)
    rehearsal = Rehearsal(terms, 0)
    rehearsal.run(uniform_deltas(terms, 0))
    assert rehearsal.coordinator.thresholds.complete
    longest = max(rehearsal.figures.up_bytes.values())
    vector = 100_000 * modulus_bits / 8
    print(f"\nn = 100, {modulus_bits} bits: {longest} bytes, {longest / vector:.4f} of the vector")
    assert longest <= 1.10 * vector
