"""Terms that promise too little noise, or a sum that wraps, cannot be stated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSettings
from chorister.shared.privacy.discrete_gaussian import discrete_gaussian
from chorister.shared.secagg.planning import plan_cohort, plan_terms
from chorister.shared.secagg.terms import RoundTerms
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import rehearsal_terms

TERMS = rehearsal_terms(10, 100)


@pytest.mark.parametrize(
    "change",
    [
        {"federation": ""}, {"federation": "x" * 65}, {"run": ""}, {"round": -1}, {"cohort": 1},
        {"cohort": 5000}, {"gamma": -0.1}, {"gamma": 0.34}, {"gamma": math.nan}, {"dropout": 0.6},
        {"min_honest": 1}, {"min_honest": 11}, {"dimension": 0}, {"dimension": 2**24},
        {"modulus_bits": 15}, {"modulus_bits": 33}, {"clip_norm": 0.0}, {"clip_norm": math.inf},
        {"clip_norm": math.nan}, {"scale": 0.0}, {"scale": math.nan}, {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan}, {"client_variance": -1}, {"client_variance": 3},
        {"client_variance": 2**30}, {"adapter": "abc"},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadSettings):
        replace(TERMS, **change)


def test_less_noise_than_stated_is_refused() -> None:
    with pytest.raises(BadSettings, match="noise_multiplier says"):
        replace(TERMS, client_variance=TERMS.client_variance // 2)
    with pytest.raises(BadSettings, match="noise_multiplier says"):
        replace(TERMS, min_honest=TERMS.min_honest // 2)
    with pytest.raises(BadSettings, match="noise_multiplier says"):
        replace(TERMS, scale=TERMS.scale * 1.01)


def test_a_sum_that_may_wrap_is_refused() -> None:
    with pytest.raises(BadSettings, match="wraps"):
        replace(TERMS, modulus_bits=18)


def test_the_wire_form_is_strict() -> None:
    assert RoundTerms.from_bytes(TERMS.to_bytes()) == TERMS
    plain = codec.decode(TERMS.to_bytes())
    for change in (
        {"protocol": 2}, {"message": "term"}, {"round": 1.0}, {"round": True}, {"extra": 1},
        {"client_variance": 3}, {"federation": b"x"},
    ):  # fmt: skip
        with pytest.raises(BadMessage):
            RoundTerms.from_bytes(codec.encode({**plain, **change}))
    del plain["run"]
    with pytest.raises(BadMessage):
        RoundTerms.from_bytes(codec.encode(plain))
    with pytest.raises(BadMessage):
        RoundTerms.from_bytes(codec.encode([1]))


def test_every_field_is_in_the_digest() -> None:
    digests = {TERMS.digest()}
    for change in (
        {"federation": "f"}, {"run": "r"}, {"round": 9}, {"cohort": 11}, {"gamma": 0.01},
        {"dropout": 0.2}, {"min_honest": 9}, {"dimension": 99}, {"modulus_bits": 31},
        {"clip_norm": 0.5}, {"scale": TERMS.scale / 2}, {"noise_multiplier": 0.5},
        {"client_variance": TERMS.client_variance + 1}, {"adapter": "1" * 64}, {"simulated": False},
    ):  # fmt: skip
        digests.add(replace(TERMS, **change).digest())
    assert len(digests) == 16
    assert len(TERMS.digest()) == 64


@pytest.mark.parametrize("modulus_bits", [18, 20, 24, 32])
@pytest.mark.parametrize("noise_multiplier", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("dimension", [10, 4000])
def test_planned_terms_hold_their_promises(
    modulus_bits: int, noise_multiplier: float, dimension: int
) -> None:
    plan = plan_cohort(20, 0.1, 0.1)
    try:
        terms = plan_terms(
            plan, federation="f", run="r", round_number=0, dimension=dimension,
            modulus_bits=modulus_bits, clip_norm=0.05, noise_multiplier=noise_multiplier,
            adapter="0" * 64, simulated=True,
        )  # fmt: skip
    except BadSettings as refused:
        assert "modulus_bits = " in refused.advice or modulus_bits == 32
        return
    total = math.sqrt(terms.client_variance * plan.min_honest)
    assert total >= noise_multiplier * terms.sensitivity * (1 - 1e-9)
    assert terms.sensitivity >= terms.clip_norm * terms.scale
    assert terms.fits_modulus()
    assert terms.private == (noise_multiplier > 0)


def test_an_infeasible_modulus_names_a_feasible_one() -> None:
    plan = plan_cohort(20, 0.0, 0.1)
    arguments = {
        "federation": "f", "run": "r", "round_number": 0, "dimension": 400_000, "clip_norm": 0.05,
        "noise_multiplier": 8.0, "adapter": "0" * 64, "simulated": True,
    }  # fmt: skip
    with pytest.raises(BadSettings, match="modulus_bits = ") as caught:
        plan_terms(plan, modulus_bits=16, **arguments)
    bits = int(caught.value.advice.split("modulus_bits = ")[1].rstrip("."))
    assert plan_terms(plan, modulus_bits=bits, **arguments).modulus_bits == bits
    with pytest.raises(BadSettings):
        plan_terms(plan, modulus_bits=bits - 1, **arguments)


def test_the_noise_tail_bounds_what_sampling_finds() -> None:
    terms = rehearsal_terms(4, 2000, noise_multiplier=2.0)
    noise = sum(
        discrete_gaussian(terms.client_variance, 2000, SimulatedRandomness(0, str(i)))
        for i in range(4)
    )
    largest = float(np.abs(noise).max())
    deviation = math.sqrt(4 * terms.client_variance)
    assert 3 * deviation < largest < terms.noise_tail() < 12 * deviation
