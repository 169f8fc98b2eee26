"""How much of each attack is run: a quick look, or the figures that documents quote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scale = Literal["quick", "full"]


PARTS = ("mechanisms", "training", "identification", "membership", "inversion")
"""What can be run by itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one run of all attacks.

    Attributes:
        scale: name of the plan.
        voices: at most, in the corpus's order.
        segments: of each voice, to train on.
        canaries: in each audit at mechanism level.
        sgd_repeats: audits of each claim and fault of DP-SGD.
        client_repeats: the same of the speaker-level mechanism.
        estimate_sums: sums behind the canary-client estimate.
        trainings: whole trainings that are audited.
        updates: of each device, to identify its speaker by.
        federations: shadow federations for membership.
        rounds: of each.
        inverted: segments whose gradients are inverted.
        iterations: of each inversion.
    """

    scale: Scale
    voices: int
    segments: int
    canaries: int
    sgd_repeats: int
    client_repeats: int
    estimate_sums: int
    trainings: int
    updates: int
    federations: int
    rounds: int
    inverted: int
    iterations: int


QUICK = Plan("quick", 8, 12, 20_000, 40, 3, 60, 40, 2, 12, 1, 2, 100)
FULL = Plan("full", 16, 24, 20_000, 100, 20, 400, 150, 6, 48, 2, 8, 200)
