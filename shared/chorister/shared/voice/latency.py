"""How long a stream waits before it can speak: every term in samples, from the model's settings.

For a frame of output the encoder needs mel frames that lie ahead, the last of them half a window
more; F0 is analysed over a longer window, decides a frame later and is interpolated to the next
frame. Whichever waits longer sets the delay; the overlap of the vocoder's grains comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from chorister.shared.errors import BadSettings
from chorister.shared.types import SAMPLE_RATE_HZ
from chorister.shared.voice.f0 import LONGEST_LAG, SPAN_SAMPLES
from chorister.shared.voice.features import WINDOW_SAMPLES
from chorister.shared.voice.frames import HOP_SAMPLES

GRAIN_OVERLAP_SAMPLES = HOP_SAMPLES // 2
# How far the windows of mel and F0 reach beyond the frame that they describe.
MEL_REACH_SAMPLES = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
F0_REACH_SAMPLES = (SPAN_SAMPLES + LONGEST_LAG - HOP_SAMPLES) // 2
# F0 of the next frame, from which the pitch glides, and at least one frame to decide about it.
_LEAST_F0_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Where the delay of a stream comes from; computing comes on top.

    Attributes:
        look_ahead_frames: frames that all blocks together see ahead, at least 3.
        chunk_frames: frames that are gathered before a step.
    """

    look_ahead_frames: int
    chunk_frames: int

    def __post_init__(self) -> None:
        # Below three F0 alone decides, and looking ahead less would save nothing.
        if self.look_ahead_frames < 3 or self.chunk_frames < 1:
            raise BadSettings(
                "A stream looks at least 3 frames ahead and gathers at least 1 frame.",
                f"{self.look_ahead_frames} and {self.chunk_frames}",
                "Use such a model or chunk.",
            )

    @property
    def wait_samples(self) -> int:
        """Samples beyond the end of a frame that must have come before its grain is computed."""
        mel = self.look_ahead_frames * HOP_SAMPLES + MEL_REACH_SAMPLES
        return max(mel, _LEAST_F0_FRAMES * HOP_SAMPLES + F0_REACH_SAMPLES)

    @property
    def f0_delay_frames(self) -> int:
        """How many later frames decide about the pitch of a frame."""
        return (self.wait_samples - F0_REACH_SAMPLES) // HOP_SAMPLES - 1

    @property
    def shift_samples(self) -> int:
        """By how much the output lags behind the input, counted in samples of both."""
        return self.wait_samples + GRAIN_OVERLAP_SAMPLES

    @property
    def total_samples(self) -> int:
        """From a sample's arrival until its place in the output is given out, at worst."""
        return self.shift_samples + self.chunk_frames * HOP_SAMPLES

    def terms_ms(self) -> dict[str, float]:
        """Every term by name, in milliseconds; their sum is `total_samples`."""
        look_ahead = self.look_ahead_frames * HOP_SAMPLES
        samples = {
            "window": MEL_REACH_SAMPLES,
            "look-ahead": look_ahead,
            "chunk": self.chunk_frames * HOP_SAMPLES,
            "F0": self.wait_samples - look_ahead - MEL_REACH_SAMPLES,
            "overlap-add": GRAIN_OVERLAP_SAMPLES,
        }
        return {name: 1000.0 * count / SAMPLE_RATE_HZ for name, count in samples.items()}
