"""What has to be accounted for: one use of noise, and what its mechanism protects.

Events say what was executed, figures (`figures.py`) what it cost, and the mechanisms themselves are
elsewhere (`chorister.client.train`, `chorister.client.privatise`). After dp-accounting's split of
event, cost and algorithm: only events are stored, so that a better accountant may read them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chorister.shared.errors import BadLedger
from chorister.shared.privacy.ledger import Json

Unit = Literal["segment", "speaker"]

SEGMENT_MECHANISM = "gaussian"
PERSONAL_MECHANISM = "gaussian, personal adapter"
SPEAKER_MECHANISM = "distributed discrete gaussian"

ONE_SEGMENT = "one training segment added or removed"
ONE_SPEAKER = "one speaker's contribution to a round replaced by zero, participation public"
POISSON = "Poisson: each segment joins each step by its own secret draw on the device"
NOT_SAMPLED = "none claimed: the server knows who takes part"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What the events of one name mean.

    Attributes:
        name: as events carry it.
        unit: the privacy unit that it protects.
        relation: which two inputs count as neighbours.
        sampling: as it is executed.
        description: what it is, in one line.
    """

    name: str
    unit: Unit
    relation: str
    sampling: str
    description: str


MECHANISMS = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism(
            SEGMENT_MECHANISM, "segment", ONE_SEGMENT, POISSON,
            "DP-SGD of the shared adapter on the device (floating-point Gaussian noise)",
        ),
        Mechanism(
            PERSONAL_MECHANISM, "segment", ONE_SEGMENT, POISSON,
            "DP-SGD of a personal adapter on the device (local, released or not)",
        ),
        Mechanism(
            SPEAKER_MECHANISM, "speaker", ONE_SPEAKER, NOT_SAMPLED,
            "discrete Gaussian noise, a share from every device, inside the secure sum",
        ),
    )
}  # fmt: skip
"""Every mechanism that an accountant here can read; the cost of any other is infinite."""


@dataclass(frozen=True, slots=True)
class PrivacyEvent:
    """One use of noise that has to be accounted for.

    Attributes:
        mechanism: the noise, one of `MECHANISMS`; what is not known costs infinitely much.
        noise_multiplier: standard deviation over sensitivity, above 0.
        sample_rate: chance of each protected unit to take part in a step, in (0, 1]; 1 if
            nothing was sampled in secret.
        steps: how often, at least 1.
    """

    mechanism: str
    noise_multiplier: float
    sample_rate: float
    steps: int

    def to_plain(self) -> dict[str, Json]:
        """Return the event as plain JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Any) -> PrivacyEvent:
        """Return the event in plain JSON.

        Raises:
            BadLedger: other fields, other types, or values out of range.
        """
        names = ("mechanism", "noise_multiplier", "sample_rate", "steps")
        if isinstance(plain, dict) and set(plain) == set(names):
            event = cls(*(plain[name] for name in names))
            if event.is_valid():
                return event
        raise BadLedger(
            "A booked event has mechanism, noise_multiplier, sample_rate and steps in range.",
            repr(plain)[:200], "Restore the budget's journal from a backup.",
        )  # fmt: skip

    def is_valid(self) -> bool:
        """Return whether every field has its type and range."""
        return (
            isinstance(self.mechanism, str)
            and all(
                type(number) in (int, float) and math.isfinite(number)
                for number in (self.noise_multiplier, self.sample_rate)
            )
            and type(self.steps) is int
            and self.noise_multiplier > 0
            and 0 < self.sample_rate <= 1
            and self.steps >= 1
        )

    def protects(self, unit: Unit) -> bool:
        """Return whether the mechanism is known and protects this unit."""
        known = MECHANISMS.get(self.mechanism)
        return known is not None and known.unit == unit


Epsilon = Callable[[Sequence[PrivacyEvent]], float]
"""An accountant at one delta: from all booked events to epsilon, infinity allowed."""
