"""What every converted file must fulfil, and the levels that the product gives it before."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from chorister.client.level import LevelFollower, frame_levels, limit
from chorister.shared.types import FloatArray
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.loudness import loudness_lufs
from chorister.shared.voice.metrics import voicing_error

LOUDNESS_DB = 1.0
FULL_SCALE = 32767.0 / 32768.0
# A pause: 50 ms around it are 35 dB below the loud frames, or below -60 dBFS.
PAUSE_DB = 35.0
SILENCE_DBFS = -60.0
PAUSE_RISE_DB = 3.0
LARGEST_VOICING_ERROR = 0.05
_HOLD_FRAMES = 5
_PASSES = 2
_FEWEST_PAUSE_FRAMES = 10
_LOUD_PERCENTILE = 95.0
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Gates:
    """Which gates a file passes.

    Attributes:
        loudness: within 1 dB of its source's, as `chorister convert` promises.
        unclipped: no sample reaches full scale.
        silence: the source's pauses are at most 3 dB louder on average, or below -60 dBFS; None
            where the source has less than 0.1 s of them.
        voicing: at most 5 % of the frames are voiced where they should not be, or the reverse.
    """

    loudness: bool
    unclipped: bool
    silence: bool | None
    voicing: bool

    def to_plain(self) -> dict[str, bool | None]:
        """The gates by name."""
        return asdict(self)


def deliver(source: FloatArray, speech: FloatArray) -> FloatArray:
    """Level converted speech as `chorister convert` does before it writes a file.

    Args:
        source: shape (T,).
        speech: shape (F * 160,), F = T // 160.

    Returns:
        shape (F * 160,), float32: as loud as the source, pauses no louder, at most 0.98.
    """
    wanted_lufs = loudness_lufs(source)
    followed = LevelFollower(wanted_lufs).follow(source[: len(speech)], speech)
    delivered = limit(followed)
    gain_db = 0.0
    # What limiting takes away is made up for.
    for _ in range(_PASSES):
        found_lufs = loudness_lufs(delivered)
        if not (np.isfinite(wanted_lufs) and np.isfinite(found_lufs)):
            break
        gain_db += wanted_lufs - found_lufs
        delivered = limit((followed * np.float32(10.0 ** (gain_db / 20.0))).astype(np.float32))
    return delivered


def check_gates(
    source: FloatArray, delivered: FloatArray, wanted_hz: FloatArray, spoken_hz: FloatArray
) -> Gates:
    """Check one converted file.

    Args:
        source: shape (T,).
        delivered: shape (F * 160,), F = T // 160.
        wanted_hz: shape (F,), the pitch that was asked for, 0 where unvoiced.
        spoken_hz: shape (F,), the pitch found in the file.
    """
    wanted_lufs, found_lufs = loudness_lufs(source), loudness_lufs(delivered)
    both_silent = not np.isfinite(wanted_lufs) and not np.isfinite(found_lufs)
    return Gates(
        loudness=both_silent or abs(found_lufs - wanted_lufs) <= LOUDNESS_DB,
        unclipped=bool(np.abs(delivered).max(initial=0.0) < FULL_SCALE),
        silence=_stays_silent(source[: len(delivered)], delivered),
        voicing=voicing_error(wanted_hz, spoken_hz) <= LARGEST_VOICING_ERROR,
    )


def _stays_silent(source: FloatArray, delivered: FloatArray) -> bool | None:
    levels = frame_levels(source)[: len(delivered) // HOP_SAMPLES]
    near = np.pad(levels, _HOLD_FRAMES, mode="edge")
    held = np.lib.stride_tricks.sliding_window_view(near, 2 * _HOLD_FRAMES + 1).max(axis=1)
    loud = float(np.percentile(levels, _LOUD_PERCENTILE))
    pause = held < max(10.0 ** (SILENCE_DBFS / 20.0), loud * 10.0 ** (-PAUSE_DB / 20.0))
    if np.count_nonzero(pause) < _FEWEST_PAUSE_FRAMES:
        return None
    before_db, after_db = (
        10.0 * np.log10(np.square(each[pause]).mean() + _TINY**2)
        for each in (levels, frame_levels(delivered)[: len(levels)])
    )
    return bool(after_db <= max(before_db + PAUSE_RISE_DB, SILENCE_DBFS))
