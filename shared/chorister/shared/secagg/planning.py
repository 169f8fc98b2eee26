"""From assumptions and wishes to round terms; what does not fit is refused with what would."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chorister.shared.errors import BadSettings, RoundAborted
from chorister.shared.privacy.discrete_gaussian import MAX_VARIANCE
from chorister.shared.secagg.terms import (
    LEAST_VARIANCE,
    MAX_COHORT,
    MAX_DIMENSION,
    WRAP_BITS,
    RoundTerms,
)
from chorister.shared.secagg.thresholds import (
    Thresholds,
    corrupt_devices,
    derive,
    quantile_survivors,
)

ABORT_LIMIT = 0.75
_SILENT_STEPS = 2.0**20
"""Steps per clip_norm of a run without noise, where the modulus has room for them."""
_MOST_INFLATION = 1.5
"""Rounding may lengthen the sensitivity by half; beyond it the noise pays for rounding alone."""


@dataclass(frozen=True, slots=True)
class CohortPlan:
    """What follows from a cohort and the assumptions about it.

    Attributes:
        cohort: devices invited.
        gamma: assumed corrupt fraction.
        dropout: assumed drop-out fraction over all stages.
        thresholds: derived for a full roster.
        abort_probability: bound on the chance that an honest round aborts.
    """

    cohort: int
    gamma: float
    dropout: float
    thresholds: Thresholds
    abort_probability: float

    @property
    def min_honest(self) -> int:
        """Honest devices that every released sum covers; noise is sized for it."""
        return self.thresholds.min_honest


def plan_cohort(cohort: int, gamma: float, dropout: float) -> CohortPlan:
    """Return the largest min_honest that the assumptions allow, with all that follows.

    Args:
        cohort: devices invited, 2 to 4096.
        gamma: assumed corrupt fraction of them, in [0, 1/3).
        dropout: assumed drop-out fraction over all stages, in [0, 1/2].

    Raises:
        BadSettings: infeasible, with the nearest feasible cohort.
    """
    if cohort > MAX_COHORT:
        raise BadSettings(
            f"A cohort has at most {MAX_COHORT} devices.", f"{cohort}",
            "Choose a share of the devices for each round.",
        )  # fmt: skip
    plan = _try(cohort, gamma, dropout)
    if plan is None:
        raise BadSettings(
            "Cohort, gamma and drop-outs leave two honest devices in every sum, and a round that "
            f"aborts at most {ABORT_LIMIT:.0%} of the time.",
            f"cohort {cohort}, gamma {gamma}, drop-outs {dropout}",
            f"Feasible and near: {_nearest(cohort, gamma, dropout)}.",
        )
    return plan


def _nearest(cohort: int, gamma: float, dropout: float) -> str:
    """Return which settings, changed one at a time, are feasible."""
    larger = range(max(2, cohort + 1), min(4 * max(cohort, 2) + 16, 513))
    fewer = range(corrupt_devices(cohort, max(0.0, min(gamma, 0.34))), -1, -1)
    steps = range(int(100 * max(0.0, min(dropout, 0.5))), -1, -1)
    options = [
        next((f"a cohort of {n}" for n in larger if _try(n, gamma, dropout)), ""),
        next((f"gamma = {c / cohort:.2g}" for c in fewer if _try(cohort, c / cohort, dropout)), "")
        if cohort > 0
        else "",
        next((f"drop-outs = {s / 100}" for s in steps if _try(cohort, gamma, s / 100)), ""),
    ]
    return " or ".join(o for o in options if o) or "gamma below 1/3 and drop-outs up to 0.5"


def _try(cohort: int, gamma: float, dropout: float) -> CohortPlan | None:
    if not 2 <= cohort <= MAX_COHORT or not 0 <= gamma < 1 / 3 or not 0 <= dropout <= 0.5:
        return None
    corrupt = corrupt_devices(cohort, gamma)
    quorum = (cohort + corrupt) // 2 + 1
    most = max(quantile_survivors(cohort, dropout), quorum)
    for min_honest in range(most - corrupt, 1, -1):
        try:
            thresholds = derive(cohort, cohort, gamma, dropout, min_honest)
        except RoundAborted:
            continue
        if thresholds.min_survivors <= most:
            chance = thresholds.abort_probability(dropout)
            if chance > ABORT_LIMIT:
                return None
            return CohortPlan(cohort, gamma, dropout, thresholds, chance)
    return None


def plan_terms(
    plan: CohortPlan,
    *,
    federation: str,
    run: str,
    round_number: int,
    dimension: int,
    modulus_bits: int,
    clip_norm: float,
    noise_multiplier: float,
    adapter: str,
    simulated: bool,
    bit_share: float = 0.0,
    rotation: bool = False,
) -> RoundTerms:
    """Return the terms of a round, with the finest scale that modulus and sampler allow.

    Args:
        plan: of the cohort.
        federation: name of the federation.
        run: name of the run.
        round_number: from 0.
        dimension: d.
        modulus_bits: 16 to 32.
        clip_norm: L2 bound of a delta.
        noise_multiplier: standard deviation of min_honest devices' noise over the sensitivity; 0
            for none.
        adapter: digest of the shared adapter, 64 hexadecimal digits.
        simulated: whether all randomness is a simulation's.
        bit_share: part of the round's privacy cost that goes to counting whose delta was within
            the clip, in [0, 1); 0 where the clip does not adapt.
        rotation: whether deltas are rotated before they are rounded.

    Raises:
        BadSettings: no scale fits, with the smallest modulus that would.
    """

    for name, value, holds, rule in (
        (
            "dimension",
            dimension,
            1 <= dimension < MAX_DIMENSION,
            f"fewer than {MAX_DIMENSION} values",
        ),
        ("modulus_bits", modulus_bits, 16 <= modulus_bits <= 32, "a modulus of 16 to 32 bits"),
        ("clip_norm", clip_norm, 1e-6 <= clip_norm <= 1e6, "a clip norm of 1e-6 to 1e6"),
        ("noise_multiplier", noise_multiplier, 0 <= noise_multiplier <= 1e3, "noise of 0 to 1000"),
        ("bit_share", bit_share, 0 <= bit_share < 1, "a bit_share in [0, 1)"),
        ("bit_share", bit_share, not bit_share or noise_multiplier > 0, "noise for a bit_share"),
    ):
        if not holds:
            raise BadSettings(f"A round needs {rule}.", f"{name} = {value}", f"Change {name}.")

    def attempt(steps: float, bits: int) -> RoundTerms | None:
        scale = steps / clip_norm
        norm_bound = _norm_bound(steps, dimension)
        # The bit's squared height over everything squared is its share of what the round costs.
        bit = math.ceil(math.sqrt(norm_bound * bit_share / (1 - bit_share)))
        sensitivity_squared = norm_bound + bit**2
        variance = math.ceil(noise_multiplier**2 * sensitivity_squared / plan.min_honest)
        if noise_multiplier > 0 and not LEAST_VARIANCE <= variance <= MAX_VARIANCE:
            return None
        signal = plan.cohort * math.sqrt(sensitivity_squared)
        spread = 2 * plan.cohort * variance
        length = dimension + (bit > 0)
        tail = math.sqrt(spread * (math.log(2 * length) + WRAP_BITS * math.log(2)))
        if signal + tail >= 2.0 ** (bits - 1):
            return None
        return RoundTerms(
            federation, run, round_number, plan.cohort, float(plan.gamma), float(plan.dropout),
            plan.min_honest, dimension, bits, float(clip_norm), scale, float(noise_multiplier),
            variance, bit, rotation, adapter, simulated,
        )  # fmt: skip

    def finest(bits: int) -> RoundTerms | None:
        steps = _SILENT_STEPS
        while steps >= 1:
            terms = attempt(steps, bits)
            if terms is not None:
                inflation = math.sqrt(terms.norm_bound) / steps
                return terms if inflation <= _MOST_INFLATION else None
            steps /= 2
        return None

    terms = finest(modulus_bits)
    if terms is None:
        wider = next((b for b in range(modulus_bits + 1, 33) if finest(b)), None)
        advice = f"modulus_bits = {wider}" if wider else "a smaller noise multiplier or dimension"
        raise BadSettings(
            f"A scale exists at which sums wrap at most once in 2**{WRAP_BITS} rounds and rounding "
            "does not outweigh the clip.",
            f"{modulus_bits} bits for {plan.cohort} devices and {dimension} values",
            f"Feasible and near: {advice}.",
        )
    return terms


def _norm_bound(steps: float, dimension: int) -> int:
    root_d = math.sqrt(dimension)
    return math.floor(min(steps**2 + dimension / 4 + steps + root_d / 2, (steps + root_d) ** 2))
