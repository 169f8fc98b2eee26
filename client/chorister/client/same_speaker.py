"""Is it one and the same speaker: in the statement, in every recording, and all through each?

The shipped encoder names a voice by a unit vector; two stretches of speech are compared by the
cosine of theirs. The limits were set on speakers that the encoder never saw, at a stated rate of
false acceptance (docs/enrolment.md has the table and the command that makes it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chorister.client.voice_activity import speech_frames
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.speaker import SpeakerEncoder

# Statement against the whole enrolment set.
STATEMENT_LIMIT = 0.933
# One recording against statement and all other recordings: shorter speech, so a lower limit. It
# finds the stray file; who the speaker is was settled by the statement.
RECORDING_LIMIT = 0.88
# The two halves into which all speech falls apart most clearly: one speaker's are still alike.
CONSISTENCY_LIMIT = 0.86
# The digits alone against the whole enrolment set: three seconds, so a lower limit again. Without
# it an old statement of the speaker could be lengthened by anybody's digits.
DIGITS_LIMIT = 0.86
_BLOCK_WINDOWS = 2
# About 10 s: in less, the two most different stretches of one speaker differ by what they say.
_FEWEST_BLOCKS = 6
_ROUNDS = 8
# A smaller part than this is an odd noise, not a second speaker.
_SMALLEST_SHARE = 0.15


@dataclass(frozen=True, slots=True, repr=False)
class VoicePrint:
    """What the encoder makes of one recording: biometric data that never leaves the device.

    Attributes:
        windows: shape (N, 256), unit rows, one every 0.8 s of speech.
    """

    windows: FloatArray

    def __repr__(self) -> str:
        return f"VoicePrint({len(self.windows)} windows)"

    @property
    def vector(self) -> FloatArray:
        """Unit vector of the whole recording, shape (256,)."""
        return _unit(self.windows.mean(axis=0))


def take_print(recording: Recording, encoder: SpeakerEncoder) -> VoicePrint:
    """Return the voice print of a recording.

    Raises:
        BadAudio: it is shorter than 0.2 s.
    """
    return VoicePrint(encoder.embed_windows(log_mel(recording.samples)))


def centroid(prints: Sequence[VoicePrint]) -> FloatArray:
    """Return the unit vector of several recordings, each by its length.

    Args:
        prints: at least one.

    Returns:
        shape (256,), float32.
    """
    weights = np.array([len(one.windows) for one in prints], np.float32)
    return _unit(weights @ np.stack([one.vector for one in prints]))


def speech_from(recording: Recording, begin_s: float) -> Recording:
    """Return what is said from a moment on, without the pauses: digits are said one by one.

    Args:
        recording: of speech.
        begin_s: seconds from its beginning.
    """
    rest = recording.samples[round(begin_s * SAMPLE_RATE_HZ) :]
    spoken = np.repeat(speech_frames(rest, silero=False), HOP_SAMPLES)
    return Recording(rest[: len(spoken)][spoken], recording.name)


def likeness(one: VoicePrint, others: Sequence[VoicePrint]) -> float:
    """Return the cosine of one recording with several others, -1 to 1."""
    return float(one.vector @ centroid(others))


def stray_likenesses(statement: VoicePrint, recordings: Sequence[VoicePrint]) -> list[float]:
    """Return the cosine of each recording with the statement and all other recordings."""
    return [
        likeness(one, [statement, *recordings[:at], *recordings[at + 1 :]])
        for at, one in enumerate(recordings)
    ]


def consistency(prints: Sequence[VoicePrint]) -> float:
    """Return how alike the two most different parts of some speech are.

    Stretches of 2.4 s are parted into the two groups that fit best (spherical
    two-means from the most different pair); two speakers in turn end up in one group each.

    Args:
        prints: of one recording or of several.

    Returns:
        cosine of the groups' vectors; 1 where the speech is too short to part, or where one group
        is too small to be a second speaker.
    """
    blocks = np.concatenate([_blocks(one.windows) for one in prints])
    if len(blocks) < _FEWEST_BLOCKS:
        return 1.0
    alike = blocks @ blocks.T
    first, second = np.unravel_index(int(alike.argmin()), alike.shape)
    one, other = blocks[first], blocks[second]
    nearer = np.zeros(len(blocks), bool)
    for _ in range(_ROUNDS):
        nearer = blocks @ one >= blocks @ other
        if nearer.all() or not nearer.any():
            return 1.0
        one, other = _unit(blocks[nearer].mean(axis=0)), _unit(blocks[~nearer].mean(axis=0))
    share = float(nearer.mean())
    return float(one @ other) if _SMALLEST_SHARE <= share <= 1 - _SMALLEST_SHARE else 1.0


def _blocks(windows: FloatArray) -> FloatArray:
    starts = range(0, max(len(windows) - _BLOCK_WINDOWS + 1, 1), _BLOCK_WINDOWS)
    return np.stack([_unit(windows[at : at + _BLOCK_WINDOWS].mean(axis=0)) for at in starts])


def _unit(vector: FloatArray) -> FloatArray:
    unit: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit
