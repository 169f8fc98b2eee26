"""The layout of the shared adapter, apart from the model: whoever signs it needs no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from chorister.shared.errors import BadSettings
from chorister.shared.types import MEL_BANDS

# How many principal directions of its last hidden layer the decoder holds.
DIRECTIONS = 8
# Values of the two envelopes that the decoder predicts.
ENVELOPES = 2 * MEL_BANDS


@dataclass(frozen=True, slots=True)
class SharedAdapterSpec:
    """Layout of the shared adapter.

    160 values shift the two envelopes that the decoder predicts; each further 160 let that shift
    follow one principal direction of its last hidden layer (level and voicing come first). That is
    what a microphone, a room or a telephone line does to all speakers alike.

    Attributes:
        rank: directions to follow, 0 to 8.
    """

    rank: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= DIRECTIONS:
            raise BadSettings(
                f"A shared adapter's rank lies in 0 to {DIRECTIONS}.",
                str(self.rank),
                "Choose a rank in that range.",
            )

    @property
    def size(self) -> int:
        """d, the number of values."""
        return ENVELOPES * (1 + self.rank)

    @property
    def digest(self) -> str:
        """Names the layout: 64 hexadecimal digits."""
        return layout_digest("shared-output-shift-1", asdict(self))


def layout_digest(kind: str, values: dict[str, int]) -> str:
    """Return the name of a layout: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([kind, values], sort_keys=True).encode()).hexdigest()
