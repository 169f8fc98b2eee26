"""Are planted faults caught, and is the honest mechanism left alone? Power and false alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chorister.shared.console import Step
from chorister.simulations.attacks import client_canaries, sgd_canaries
from chorister.simulations.attacks.one_run import Guesses, epsilon_lower_bound
from chorister.simulations.attacks.rates import Measured, share
from chorister.simulations.randomness import SimulatedRandomness

WANTED_POWER = 0.9


@dataclass(frozen=True, slots=True)
class Detection:
    """How often an audit refuted a claim.

    Attributes:
        fault: 'none' for the honest mechanism.
        claim: what was claimed, in words.
        claimed: epsilon that a bound has to exceed.
        bounds: the largest and the smallest lower bound that was found.
        alarms: how often it was exceeded.
    """

    fault: str
    claim: str
    claimed: float
    bounds: tuple[float, float]
    alarms: Measured


def audit_sgd_faults(canaries: int, repeats: int, seed: int, step: Step) -> list[Detection]:
    """Audit every planted fault of DP-SGD, and the honest mechanism, several times over."""
    found = []
    for setting, mechanism in sgd_canaries.PLANTED:

        def audit(randomness: SimulatedRandomness, s=setting, m=mechanism) -> Guesses:  # type: ignore[no-untyped-def]
            return sgd_canaries.audit_sgd(s, m, canaries, randomness)

        claim = (
            f"noise {setting.noise_multiplier:.3g}, sampling {setting.sample_rate:g}, "
            f"{setting.steps} steps"
        )
        claimed = min(setting.claim().accountants.values())
        found.append(_repeat(mechanism.name, claim, claimed, audit, repeats, seed, step))
    return found


def audit_client_faults(canaries: int, repeats: int, seed: int, step: Step) -> list[Detection]:
    """Audit every planted fault of the speaker-level mechanism, and the honest one."""
    found = []
    for noise, rounds, device in client_canaries.PLANTED:
        claimed = client_canaries.setting(noise, rounds)

        def audit(randomness: SimulatedRandomness, c=claimed, d=device) -> Guesses:  # type: ignore[no-untyped-def]
            return client_canaries.audit_clients(c, d, canaries, randomness)

        claim = f"noise {noise:.3g}, {rounds} round{'s' if rounds > 1 else ''}"
        exact = client_canaries.exact_epsilon(claimed)
        found.append(_repeat(device.name, claim, exact, audit, repeats, seed, step))
    return found


def _repeat(
    fault: str, claim: str, claimed: float, audit: Callable[[SimulatedRandomness], Guesses],
    repeats: int, seed: int, step: Step,
) -> Detection:  # fmt: skip
    bounds = []
    for number in range(repeats):
        guesses = audit(SimulatedRandomness(seed, "planted", fault, claim, str(number)))
        bounds.append(epsilon_lower_bound(guesses, sgd_canaries.DELTA_DP))
        step()
    alarms = share(sum(b > claimed for b in bounds), repeats)
    return Detection(fault, claim, claimed, (min(bounds), max(bounds)), alarms)
