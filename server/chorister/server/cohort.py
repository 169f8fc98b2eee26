"""Which devices there are, and which of them a round asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from chorister.shared.randomness import Randomness
from chorister.shared.signing import Certificate


class Network(Protocol):
    """The devices as the server can reach them."""

    def discover(self) -> Mapping[str, Certificate]:
        """Return the certificates of all devices that answer, by device id."""

    def exchange(
        self, exchange: str, round_id: str, requests: Mapping[str, bytes]
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        """Send each device its message and wait, at most as long as a stage may take.

        Args:
            exchange: one of `chorister.shared.records.ROUND`.
            round_id: the round.
            requests: device id to message.

        Returns:
            Answers by device id; and for each device without one the reason, as far as it is known.
        """


def choose_cohort(devices: list[str], share: float, randomness: Randomness) -> list[str]:
    """Return the devices that a round asks, sorted.

    No privacy amplification is claimed for this choice: the server knows it.

    Args:
        devices: ids of all that may take part.
        share: which part of them, in (0, 1].
        randomness: of the choice.
    """
    wanted = max(1, round(share * len(devices)))
    drawn = randomness.uint64(len(devices))
    order = sorted(range(len(devices)), key=lambda i: (int(drawn[i]), devices[i]))
    return sorted(devices[i] for i in order[:wanted])
