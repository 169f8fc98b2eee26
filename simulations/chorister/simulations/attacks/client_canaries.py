"""The speaker-level mechanism under audit: canary devices in sums of clip, rounding and noise.

A canary device holds an update that the auditor chose. What runs is `privatise`: clip, stochastic
rounding, a share of discrete Gaussian noise from each of `min_honest` devices, summed. Masks cancel
in that sum and are left out. Two audits read the same sums: a lower bound with confidence from coin
flips (`one_run`), and the estimate of Andrew et al. 2023, 'One-shot Empirical Privacy Estimation
for Federated Learning' (arXiv:2302.03098), from the cosines of canaries with the released sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from chorister.client.privatise import QuantisedDelta, add_noise, clip, quantise
from chorister.shared.privacy.charges import speaker_event
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.figures import PrivacyFigure
from chorister.shared.privacy.speaker_level import speaker_figure
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import AdapterDelta, ClippedDelta, NoisedDelta
from chorister.simulations.attacks.one_run import Guesses, epsilon_lower_bound, guess
from chorister.simulations.attacks.sgd_canaries import DELTA_DP, flip_coins
from chorister.simulations.secagg_rehearsal import rehearsal_terms

COHORT = 40
OVERSIZE = 10.0
_SEED = bytes(32)  # of the rotation, which these terms do without
Noise = Callable[[QuantisedDelta, RoundTerms, Randomness], NoisedDelta]


@dataclass(frozen=True, slots=True)
class Device:
    """The parts of a device's mechanism, honest unless a fault replaces one.

    Attributes:
        name: of the fault, 'none' for the honest mechanism.
        clip: `privatise.clip`, or one with a fault.
        quantise: `privatise.quantise`, or one with a fault.
        add_noise: `privatise.add_noise`, or one with a fault.
        fresh: whether each round draws its own noise.
    """

    name: str = "none"
    clip: Callable[[AdapterDelta, float], ClippedDelta] = clip
    quantise: Callable[[ClippedDelta, RoundTerms, bytes, Randomness], QuantisedDelta] = quantise
    add_noise: Noise = add_noise
    fresh: bool = True


def _halved(quantised: QuantisedDelta, terms: RoundTerms, randomness: Randomness) -> NoisedDelta:
    whole = add_noise(quantised, terms, randomness).values - quantised.values
    return NoisedDelta(quantised.values + whole // 2, quantised.modulus_bits)


def _unclipped(delta: AdapterDelta, clip_norm: float) -> ClippedDelta:
    return ClippedDelta(delta.values.astype(np.float64), clip_norm, True)


def _rounded_anyhow(
    clipped: ClippedDelta, terms: RoundTerms, seed: bytes, randomness: Randomness
) -> QuantisedDelta:
    """Round without the bound on the norm, at which `quantise` refuses an unclipped delta."""
    steps = np.rint(clipped.values * terms.scale).astype(np.int64)
    return QuantisedDelta(steps, terms.modulus_bits)


HONEST = Device()
HALVED_NOISE = Device("halved noise", add_noise=_halved)
MISSING_CLIP = Device("missing clip", clip=_unclipped, quantise=_rounded_anyhow)
REUSED_NOISE = Device("reused noise", fresh=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is claimed of some rounds.

    Attributes:
        terms: of each round.
        rounds: that every device is in.
    """

    terms: RoundTerms
    rounds: int

    def claim(self, delta: float = DELTA_DP) -> PrivacyFigure:
        """Return the accountants' figure for one speaker."""
        event = speaker_event(self.terms)
        steps = [] if event is None else [
            PrivacyEvent(event.mechanism, event.noise_multiplier, 1.0, self.rounds)
        ]  # fmt: skip
        return speaker_figure(steps, delta)


def setting(noise_multiplier: float, rounds: int, dimension: int = COHORT) -> Setting:
    """Return rounds of `COHORT` devices under planned terms."""
    return Setting(rehearsal_terms(COHORT, dimension, noise_multiplier=noise_multiplier), rounds)


def audit_clients(
    claimed: Setting, device: Device, canaries: int, randomness: Randomness
) -> Guesses:
    """Sum canary devices and guess which of them contributed, and which sent nothing.

    Every sum is over `min_honest` devices, the fewest that noise is sized for, each a canary with
    a direction of its own; in every other round its sign is turned.

    Args:
        claimed: terms and rounds.
        device: what runs.
        canaries: m, rounded up to whole sums.
        randomness: of coins, rounding and noise.
    """
    terms, coins, scores = claimed.terms, [], []
    for number in range(-(-canaries // terms.min_honest)):
        own = randomness.fork(f"sum {number}")
        present = flip_coins(terms.min_honest, own.fork("coins"))
        total = np.zeros(terms.min_honest)
        for turn in range(claimed.rounds):
            sign = 1.0 if turn % 2 == 0 else -1.0
            deltas = sign * OVERSIZE * terms.clip_norm * np.diag(present.astype(np.float32))
            added = sum_of(device, terms, _padded(deltas, terms.dimension), own, turn)
            total += sign * added[: terms.min_honest]
        coins.append(present)
        scores.append(total)
    return guess(np.concatenate(scores), np.concatenate(coins))


def exact_epsilon(claimed: Setting, delta: float = DELTA_DP) -> float:
    """Return what Gaussian noise of the stated size gives exactly; the accountants state more."""
    deviation = claimed.terms.noise_multiplier / math.sqrt(claimed.rounds)
    return epsilon_between_normals(0.0, deviation, 1.0, deviation, delta)


def violates(guesses: Guesses, claimed: Setting) -> bool:
    """Return whether the guesses show less noise than was stated."""
    return epsilon_lower_bound(guesses, DELTA_DP) > exact_epsilon(claimed)


def sum_of(
    device: Device, terms: RoundTerms, deltas: NDArray[np.float32], randomness: Randomness,
    turn: int,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the sum of devices' noised integers, shape (d,), in units of the clip.

    Args:
        device: what each of them runs.
        terms: of the round.
        deltas: shape (n, d), one row a device.
        randomness: of rounding and noise.
        turn: number of the round.
    """
    rounded = [
        device.quantise(
            device.clip(AdapterDelta(values), terms.clip_norm), terms, _SEED,
            randomness.fork(f"rounding {turn} of {i}"),
        ).values
        for i, values in enumerate(deltas)
    ]  # fmt: skip
    # Noise is drawn value by value, so one call for all devices is the same as a call for each.
    everybody = QuantisedDelta(np.concatenate(rounded), terms.modulus_bits)
    noise = randomness.fork(f"noise {turn}" if device.fresh else "noise")
    noised = device.add_noise(everybody, terms, noise).values.reshape(len(deltas), -1)
    total: NDArray[np.float64] = noised.sum(axis=0) / (terms.scale * terms.clip_norm)
    return total


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of Andrew et al.: no bound, and no confidence in the sense of a test.

    Attributes:
        epsilon: at the delta that was asked for.
        interval: 95 %, by drawing the canaries' cosines with replacement.
        canaries: how many cosines.
        mean: of the cosines.
        deviation: of the cosines.
    """

    epsilon: float
    interval: tuple[float, float]
    canaries: int
    mean: float
    deviation: float


def estimate_clients(
    claimed: Setting, device: Device, sums: int, together: int, randomness: Randomness
) -> Estimate:
    """Estimate epsilon of one round from canary devices in random directions.

    Args:
        claimed: terms; the rounds are taken as one.
        device: what runs.
        sums: how many sums, each with canaries of its own.
        together: canaries in a sum; few against d, since each is noise to the others.
        randomness: of everything.
    """
    terms, cosines = claimed.terms, []
    for number in range(sums):
        own = randomness.fork(f"sum {number}")
        directions = own.fork("directions").normal(together * terms.dimension)
        canaries = directions.reshape(together, terms.dimension)
        canaries /= np.linalg.norm(canaries, axis=1, keepdims=True)
        deltas = np.zeros((terms.min_honest, terms.dimension), np.float32)
        deltas[:together] = OVERSIZE * terms.clip_norm * canaries
        released = sum_of(device, terms, deltas, own, 0)[: terms.dimension]
        cosines.append(canaries @ released / np.linalg.norm(released))
    found = np.concatenate(cosines)
    generator = np.random.default_rng(int.from_bytes(randomness.fork("bootstrap").bytes(4), "big"))
    drawn = generator.choice(found, (200, len(found)))
    epsilons = [epsilon_of_cosines(one, terms.dimension, DELTA_DP) for one in drawn]
    low, high = np.quantile(epsilons, [0.025, 0.975])
    return Estimate(
        epsilon_of_cosines(found, terms.dimension, DELTA_DP), (float(low), float(high)),
        len(found), float(found.mean()), float(found.std(ddof=1)),
    )  # fmt: skip


def epsilon_of_cosines(cosines: NDArray[np.float64], dimension: int, delta: float) -> float:
    """Return the epsilon between canaries that were in, and ones that were not.

    A direction that nobody sent has a cosine of N(0, 1 / d) with anything; what was sent is fitted
    by a normal distribution (Andrew et al. 2023, section 3).

    Args:
        cosines: of canaries with the released sum.
        dimension: d.
        delta: in (0, 1).
    """
    return epsilon_between_normals(
        0.0, 1 / math.sqrt(dimension), float(np.mean(cosines)), float(np.std(cosines, ddof=1)),
        delta,
    )  # fmt: skip


def epsilon_between_normals(
    mean_a: float, deviation_a: float, mean_b: float, deviation_b: float, delta: float
) -> float:
    """Return the least epsilon at which two normal distributions are (epsilon, delta)-close.

    The loss is quadratic; its hockey-stick divergence is integrated on a grid, in both directions.
    """
    reach = 12.0
    low = min(mean_a - reach * deviation_a, mean_b - reach * deviation_b)
    high = max(mean_a + reach * deviation_a, mean_b + reach * deviation_b)
    at = np.linspace(low, high, 20_001)
    log_a, log_b = norm.logpdf(at, mean_a, deviation_a), norm.logpdf(at, mean_b, deviation_b)
    width = at[1] - at[0]

    def worst(epsilon: float) -> float:
        def over(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> float:
            excess = log_p > epsilon + log_q
            share = -np.expm1(epsilon + log_q[excess] - log_p[excess])
            return float(np.sum(np.exp(log_p[excess]) * share) * width)

        return max(over(log_a, log_b), over(log_b, log_a))

    if worst(0.0) <= delta:
        return 0.0
    bottom, top = 0.0, 200.0
    for _ in range(50):
        middle = (bottom + top) / 2
        if worst(middle) > delta:
            bottom = middle
        else:
            top = middle
    return top


def _padded(deltas: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    wide = np.zeros((len(deltas), dimension), np.float32)
    wide[:, : deltas.shape[1]] = deltas
    return wide


PLANTED = (
    (2.0, 1, HONEST), (2.0, 1, HALVED_NOISE), (2.0, 1, MISSING_CLIP),
    (2.0 * math.sqrt(2.0), 2, HONEST), (2.0 * math.sqrt(2.0), 2, REUSED_NOISE),
)  # fmt: skip
"""(noise multiplier, rounds, what runs), chosen before any was run."""
