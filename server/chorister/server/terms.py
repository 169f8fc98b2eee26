"""From the operator's settings to the terms of one round."""

from __future__ import annotations

import math

from chorister.shared.privacy.speaker_level import check_population
from chorister.shared.secagg.planning import plan_cohort, plan_terms
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.settings import Federation
from chorister.shared.types import Adapter

# A run without privacy still needs a bound to quantise within; no honest delta comes near it.
PLAIN_BOUND = 64.0


def plan_round(
    settings: Federation,
    run: str,
    number: int,
    cohort: int,
    adapter: Adapter,
    adapter_sha256: str,
    simulated: bool,
    clip_norm: float | None = None,
    population: int | None = None,
) -> RoundTerms:
    """Return the terms of a round for a cohort of this size.

    Args:
        settings: of the federation.
        run: name of the run.
        number: of the round, from 1.
        cohort: devices to ask, at least 2.
        adapter: the newest version.
        adapter_sha256: its digest.
        simulated: whether all randomness is a simulation's.
        clip_norm: that an adaptive clip has come to; None for the settings' own.
        population: devices that answer now or were ever charged; None for the cohort alone.

    Raises:
        BadSettings: the settings are infeasible for this cohort, with the nearest feasible ones.
    """
    aggregation, privacy = settings.aggregation, settings.speaker_privacy
    if settings.private:
        check_population(privacy.delta_dp, max(cohort, population or 0))
    adaptive = privacy.adaptive_clip if settings.private else None
    clip = clip_norm if adaptive and clip_norm is not None else privacy.clip_norm
    plan = plan_cohort(cohort, aggregation.corrupt_fraction, aggregation.dropout_fraction)
    return plan_terms(
        plan,
        federation=settings.name,
        run=run,
        round_number=number,
        dimension=len(adapter.values),
        modulus_bits=aggregation.modulus_bits,
        clip_norm=clip if settings.private else PLAIN_BOUND,
        noise_multiplier=privacy.noise_multiplier if settings.private else 0.0,
        adapter=adapter_sha256,
        simulated=simulated,
        bit_share=adaptive.budget_share if adaptive else 0.0,
        rotation=aggregation.rotation,
    )


def total_noise_multiplier(terms: RoundTerms, survivors: int) -> float:
    """Return standard deviation over sensitivity of the noise that a sum of survivors holds."""
    return math.sqrt(terms.client_variance * survivors) / terms.sensitivity
