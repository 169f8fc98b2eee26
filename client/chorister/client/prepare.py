"""Recordings to what the device learns from: protected segments, and a clean enrolment set.

What is done to a protected segment depends on that segment and on constants alone; the one figure
from outside is the gain that enrolment stored. Its place depends on the sample count of its
recording alone, and it does not overlap another. So adding or removing one segment changes no other
one, which is what segment-level privacy counts on. (Removing the whole file's mean when it is read
does not break this: each segment loses its own mean here, whatever was taken off before.)

The enrolment set is not protected segment by segment, so it may be cleaned by looking at all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.signal import istft, stft

from chorister.shared.errors import BadAudio
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.loudness import loudness_lufs

SEGMENT_S = 1.28
SHORTEST_SEGMENT_S = 0.6
GUARD_SAMPLES = 320
SILENT_SEGMENT_DBFS = -50.0
TARGET_LUFS = -27.0
LARGEST_GAIN_DB = 20.0

# Enrolment, training, held out: which part the files of each six in turn belong to.
_TURNS = (0, 1, 1, 0, 1, 2)
_WHOLE_FILES = len(_TURNS)
_GAP_SAMPLES = SAMPLE_RATE_HZ // 4
_FFT = 512
_NOISE_QUANTILE = 0.1
_OVERSUBTRACTION = 2.0
_FLOOR = 10.0 ** (-15.0 / 20.0)
_TRIM_WINDOW_SAMPLES = 320
_TRIM_DB = -35.0
_TRIM_MARGIN_SAMPLES = 1600


def segments(
    recordings: Iterable[Recording], *, segment_s: float = SEGMENT_S, gain: float = 1.0
) -> tuple[Recording, ...]:
    """Cut recordings into fixed segments: the units that segment-level privacy protects.

    Segment k of a recording starts at k x (segment + 20 ms). The 20 ms between two segments go
    unused: they are longer than the reach of the resampler and of a lossy codec's frame, so no
    sample of one segment is heard in the next. What remains at the end is dropped, except that a
    recording of 0.6 s or more that is shorter than one segment gives one, padded with zeros.

    A segment whose own level after the gain is below -50 dB of full scale is dropped as silent.
    This is decided by the segment alone: a rule relative to its recording (its peak, its noise
    floor) would let one segment decide about another.

    Args:
        recordings: of the training set, none of them in the enrolment set.
        segment_s: length, 0.6 to 10 s, rounded to whole frames of 10 ms.
        gain: linear, above 0, from `enrolment_gain`.

    Returns:
        segments of one length, named RECORDING#K, in the order of the recordings.

    Raises:
        BadAudio: `segment_s` or `gain` is out of range.
    """
    if not SHORTEST_SEGMENT_S <= segment_s <= 10.0 or not 0.0 < gain < np.inf:
        raise BadAudio(
            "A segment lasts 0.6 to 10 s and its gain is above 0.",
            f"{segment_s} s and gain {gain}",
            "Correct the settings.",
        )
    length = round(segment_s * SAMPLE_RATE_HZ / HOP_SAMPLES) * HOP_SAMPLES
    found: list[Recording] = []
    for recording in recordings:
        for number, start in enumerate(_starts(len(recording.samples), length)):
            own = recording.samples[start : start + length].astype(np.float64)
            own = gain * (own - own.mean())
            if _level_dbfs(own) < SILENT_SEGMENT_DBFS:
                continue
            own = np.pad(own, (0, length - len(own)))
            found.append(Recording(own.astype(np.float32), f"{recording.name}#{number}"))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Divided:
    """A speaker's recordings by what they are for; no sample is in two parts.

    Attributes:
        enrolment: conditions the model; protected as a whole, not segment by segment.
        training: cut into protected segments.
        held_out: judges what was learnt.
    """

    enrolment: tuple[Recording, ...]
    training: tuple[Recording, ...]
    held_out: tuple[Recording, ...]


def divide(recordings: Sequence[Recording]) -> Divided:
    """Divide a speaker's recordings: a third for enrolment, half to train on, a sixth held out.

    Six files or more are divided as whole files, in turn; of fewer, each is cut into contiguous
    stretches with 0.25 s between them. It follows from order, count and lengths alone.

    Args:
        recordings: of one speaker.
    """
    if len(recordings) >= _WHOLE_FILES:
        part = [_TURNS[at % len(_TURNS)] for at in range(len(recordings))]
        chosen = [
            tuple(one for one, own in zip(recordings, part, strict=True) if own == wanted)
            for wanted in range(3)
        ]
        return Divided(*chosen)
    cuts = [_cut(one) for one in recordings]
    return Divided(*(tuple(one[at] for one in cuts if len(one[at].samples)) for at in range(3)))


def enrolment_gain(recordings: Sequence[Recording]) -> float:
    """The one gain that brings a speaker's enrolment set to the level that the base model knows.

    Args:
        recordings: the enrolment set.

    Returns:
        linear gain between -20 and 20 dB; to be stored and applied to everything of this speaker.

    Raises:
        BadAudio: the set is empty or silent.
    """
    levels = [loudness_lufs(recording.samples) for recording in recordings]
    audible = [level for level in levels if np.isfinite(level)]
    if not audible:
        raise BadAudio(
            "The enrolment set must hold speech.",
            f"{len(levels)} recordings, none audible",
            "Record the enrolment sentences again.",
        )
    gain_db = np.clip(TARGET_LUFS - np.median(audible), -LARGEST_GAIN_DB, LARGEST_GAIN_DB)
    return float(10.0 ** (gain_db / 20.0))


def level_by(recording: Recording, gain: float) -> Recording:
    """Return the recording with a stored gain applied."""
    return Recording((recording.samples * np.float32(gain)).astype(np.float32), recording.name)


def clean_enrolment(recording: Recording, *, denoise: bool = True, trim: bool = True) -> Recording:
    """Make an enrolment recording cleaner. Never for protected segments: it looks at all samples.

    Args:
        recording: of the enrolment set.
        denoise: lower what is near the steady noise floor, by at most 15 dB.
        trim: cut silence off both ends, leaving 0.1 s.

    Returns:
        the recording, shorter where it was trimmed.
    """
    samples = recording.samples
    if denoise:
        samples = _gate(samples)
    if trim:
        samples = _trim(samples)
    return Recording(samples, recording.name)


def _cut(recording: Recording) -> tuple[Recording, Recording, Recording]:
    count, gap = len(recording.samples), _GAP_SAMPLES
    first, second = count // 3, count * 5 // 6
    stretches = ((0, first), (first + gap, second), (second + gap, count))
    parts = [recording.samples[start : max(start, stop)].copy() for start, stop in stretches]
    names = [f"{recording.name}/{name}" for name in ("enrolment", "training", "held out")]
    one, two, three = (Recording(p, n) for p, n in zip(parts, names, strict=True))
    return one, two, three


def _starts(available: int, length: int) -> range:
    if available >= length:
        return range(0, available - length + 1, length + GUARD_SAMPLES)
    return range(0, int(available >= SHORTEST_SEGMENT_S * SAMPLE_RATE_HZ))


def _level_dbfs(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return 10.0 * float(np.log10(np.mean(np.square(samples)) + 1e-20))


def _gate(samples: FloatArray) -> FloatArray:
    """Spectral gate: a gain for each frequency against its own noise floor, smoothed.

    Source: spectral subtraction with a floor, Berouti, Schwartz and Makhoul, ICASSP 1979; the
    noise estimate is a low quantile over time (Stahl, Fischer and Bippus, ICASSP 2000).
    """
    _, _, spectrum = stft(samples, SAMPLE_RATE_HZ, nperseg=min(_FFT, len(samples)))
    magnitude = np.abs(spectrum)
    noise = np.quantile(magnitude, _NOISE_QUANTILE, axis=1, keepdims=True)
    wanted = 1.0 - _OVERSUBTRACTION * noise / np.maximum(magnitude, 1e-9)
    smooth = uniform_filter(np.clip(wanted, _FLOOR, 1.0), size=(3, 3), mode="nearest")
    _, gated = istft(spectrum * smooth, SAMPLE_RATE_HZ, nperseg=min(_FFT, len(samples)))
    result: FloatArray = gated[: len(samples)].astype(np.float32)
    return result


def _trim(samples: FloatArray) -> FloatArray:
    whole = len(samples) // _TRIM_WINDOW_SAMPLES * _TRIM_WINDOW_SAMPLES
    if not whole:
        return samples
    power = np.square(samples[:whole].reshape(-1, _TRIM_WINDOW_SAMPLES)).mean(axis=1)
    loud = np.flatnonzero(power > np.max(power) * 10.0 ** (_TRIM_DB / 10.0))
    if not len(loud):
        return samples
    start = max(0, loud[0] * _TRIM_WINDOW_SAMPLES - _TRIM_MARGIN_SAMPLES)
    stop = (loud[-1] + 1) * _TRIM_WINDOW_SAMPLES + _TRIM_MARGIN_SAMPLES
    return samples[start:stop].copy()
