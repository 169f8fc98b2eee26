"""What a device demands of a round before it takes part, and how it chooses its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chorister.shared.errors import ProtocolViolation
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import Advertisement, Roster
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.signing import VerifyKey
from chorister.shared.types import Adapter


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The limits that a device's owner pins; terms below them are refused.

    Attributes:
        federation: the one federation whose rounds the device joins.
        least_cohort: fewest devices in a roster.
        least_honest: smallest min_honest.
        least_gamma: smallest corrupt fraction that thresholds must be derived for.
        most_dropout: largest drop-out fraction.
        least_noise_multiplier: smallest speaker-level noise; 0 accepts a run without any.
        simulated: True only for a simulated device: it takes part in simulations and nothing else.
        least_clip: smallest clip norm; below it rounds would cost budget and move nothing.
        most_clip: largest clip norm.
        most_adapter_norm: largest L2 norm of a shared adapter that training may start from: a
            client that spoils a sum can push it far, and nothing that learnt from speech is there.
        least_segment_noise: smallest noise multiplier of DP-SGD.
    """

    federation: str
    least_cohort: int
    least_honest: int
    least_gamma: float
    most_dropout: float
    least_noise_multiplier: float
    simulated: bool = False
    least_clip: float = 1e-6
    most_clip: float = 1e6
    most_adapter_norm: float = 100.0
    least_segment_noise: float = 0.0

    def check_adapter(self, adapter: Adapter) -> None:
        """Return if a shared adapter may be used on this device.

        It depends on the adapter alone, so a refusal tells the server nothing about the speaker.

        Raises:
            ProtocolViolation: its norm is out of bounds.
        """
        norm = float(np.linalg.norm(adapter.values.astype(np.float64)))
        if not norm <= self.most_adapter_norm:
            raise ProtocolViolation(
                f"This device takes adapters of a norm of at most {self.most_adapter_norm:g}.",
                f"{norm:.3g}",
                "Ask the operator to roll the adapter back.",
            )

    def check(self, terms: RoundTerms, randomness: Randomness) -> None:
        """Return if the terms are acceptable and the randomness is of the kind that they state.

        Raises:
            ProtocolViolation: they are not.
        """
        limits: list[tuple[bool, str, object]] = [
            (terms.federation == self.federation, f"of '{self.federation}'", terms.federation),
            (terms.cohort >= self.least_cohort, f"of {self.least_cohort} devices", terms.cohort),
            (
                terms.min_honest >= self.least_honest,
                f"whose sums cover {self.least_honest} honest devices",
                terms.min_honest,
            ),
            (
                terms.gamma >= self.least_gamma,
                f"that withstands a corrupt fraction of {self.least_gamma}",
                terms.gamma,
            ),
            (
                terms.dropout <= self.most_dropout,
                f"planned for a drop-out fraction of at most {self.most_dropout}",
                terms.dropout,
            ),
            (
                terms.noise_multiplier >= self.least_noise_multiplier,
                f"with a noise multiplier of {self.least_noise_multiplier}",
                terms.noise_multiplier,
            ),
            (
                self.least_clip <= terms.clip_norm <= self.most_clip,
                f"that clip to a norm of {self.least_clip:g} to {self.most_clip:g}",
                terms.clip_norm,
            ),
            (
                terms.simulated == self.simulated and (self.simulated or randomness.private),
                "whose randomness is " + ("simulated" if self.simulated else "the system's"),
                "simulated randomness" if terms.simulated else randomness.statement,
            ),
        ]
        for holds, rule, found in limits:
            if not holds:
                raise ProtocolViolation(
                    f"This device joins rounds {rule}.", str(found),
                    "Ask the operator for other terms, or the owner for other limits.",
                )  # fmt: skip


def check_roster(
    roster: Roster,
    terms: RoundTerms,
    own: Advertisement,
    authority: VerifyKey,
    acceptance: Acceptance,
    now_s: int,
) -> int:
    """Return this device's index in the roster, after checking everybody in it.

    Raises:
        ProtocolViolation: other terms, a size out of bounds, or without this device's own keys.
        BadMessage: a device that is not certified, accepted other terms, or did not sign.
    """
    digest = terms.sha256()
    if roster.terms != digest:
        raise ProtocolViolation(
            "A roster is of the terms that this device accepted.",
            "another digest",
            "Leave the round.",
        )
    if not acceptance.least_cohort <= len(roster) <= terms.cohort:
        raise ProtocolViolation(
            f"A roster has {acceptance.least_cohort} to {terms.cohort} devices.", str(len(roster)),
            "Wait for a round with more devices.",
        )  # fmt: skip
    if own not in roster.advertisements:
        raise ProtocolViolation(
            "A roster holds this device's own keys, unchanged.",
            "other keys or none",
            "Leave the round.",
        )
    for advertisement in roster.advertisements:
        advertisement.check(authority, terms.federation, digest, now_s)
    return roster.advertisements.index(own)


def choose_neighbours(own: int, n: int, k: int, randomness: Randomness) -> Members:
    """Return k devices other than this one, uniformly at random.

    The device chooses after the server has committed to everybody's keys, so neither the server nor
    corrupt devices have a say in it. Source: Bell et al. 2020, section 4.

    Args:
        own: this device's index, below n.
        n: devices in the roster.
        k: neighbours, at most n - 1.
        randomness: of the choice.
    """
    others = [i for i in range(n) if i != own]
    # Fisher and Yates, from the front, until k are drawn.
    for position in range(k if k < n - 1 else 0):
        pick = position + _below(n - 1 - position, randomness)
        others[position], others[pick] = others[pick], others[position]
    return Members.of(others[:k])


def _below(bound: int, randomness: Randomness) -> int:
    """Return a uniform integer in [0, bound), by rejection."""
    limit = 2**32 - 2**32 % bound
    while True:
        value = int.from_bytes(randomness.bytes(4), "big")
        if value < limit:
            return value % bound
