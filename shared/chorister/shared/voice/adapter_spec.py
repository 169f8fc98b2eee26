"""The layout of the shared adapter, apart from the model: whoever signs it needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from chorister.shared.errors import BadSettings
from chorister.shared.types import MEL_BANDS

# How many principal directions of its last hidden layer the decoder holds.
DIRECTIONS = 8


# Which envelopes the shared adapter shifts.
SharedPlacement = Literal["both", "harmonic", "noise"]


@dataclass(frozen=True, slots=True)
class SharedAdapterSpec:
    """Layout of the shared adapter.

    80 values shift each envelope that the decoder predicts; 80 more for each principal direction of
    its last hidden layer (level and voicing come first) let that shift follow it. That is what a
    microphone, a room or a telephone line does to all speakers alike.

    Attributes:
        rank: directions to follow, 0 to 8.
        placement: which envelopes it shifts: 'both', the 'harmonic' one or that of the 'noise'.
    """

    rank: int = 2
    placement: SharedPlacement = "both"

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= DIRECTIONS:
            raise BadSettings(
                f"A shared adapter's rank lies in 0 to {DIRECTIONS}.",
                str(self.rank),
                "Choose a rank in that range.",
            )
        check_placement("shared", self.placement, get_args(SharedPlacement))

    @property
    def width(self) -> int:
        """Values for each direction: 160 for both envelopes, else 80."""
        return MEL_BANDS * (2 if self.placement == "both" else 1)

    @property
    def size(self) -> int:
        """d, the number of values."""
        return self.width * (1 + self.rank)

    @property
    def digest(self) -> str:
        """Names the layout: 64 hexadecimal digits."""
        values: dict[str, int | str] = {"rank": self.rank}
        if self.placement != "both":  # the layout that there was before has kept its name
            values["placement"] = self.placement
        return layout_digest("shared-output-shift-1", values)


def shared_layouts() -> dict[str, SharedAdapterSpec]:
    """Every layout of a shared adapter that this version knows, by its digest."""
    specs = (
        SharedAdapterSpec(rank, placement)
        for rank in range(DIRECTIONS + 1)
        for placement in get_args(SharedPlacement)
    )
    return {spec.digest: spec for spec in specs}


def check_placement(kind: str, placement: str, known: tuple[str, ...]) -> None:
    """Return if an adapter can be placed there.

    Raises:
        BadSettings: it is no placement of this kind of adapter.
    """
    if placement not in known:
        raise BadSettings(
            f"A {kind} adapter is placed at {', '.join(known)}.", repr(placement), "Choose one."
        )


def layout_digest(kind: str, values: Mapping[str, int | str]) -> str:
    """Return the name of a layout: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([kind, dict(values)], sort_keys=True).encode()).hexdigest()
