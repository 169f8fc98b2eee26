"""The vocoder's noise: a long loop of low-noise noise, read from some position on.

The level of white noise in a band is a matter of chance from frame to frame: by 4.5 dB in the
lowest mel bands, by 2 dB in the highest, which is heard as roughness and drowns what the envelopes
say. Noise whose short-time spectrum is made flat has phases as random and half as much of that
(low-noise noise: Pumplin 1985; Hartmann and Pumplin 1988). The loop is longer than anybody notices
(8.2 s) and small enough to lie in a voice file (131 kB).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chorister.shared.types import FloatArray
from chorister.shared.voice.features import FFT_SAMPLES, WINDOW_SAMPLES
from chorister.shared.voice.frames import hann

_STEP = 80
PERIOD = 1640 * _STEP
_ROUNDS = 12
_SEED = 0x4155
_SMALLEST = 1e-9
# A sample of the loop is an 8-bit integer times this; four standard deviations fit.
LOOP_SCALE = 4.0 / 127.0


@cache
def loop() -> NDArray[np.int8]:
    """The loop: shape (131 200,), int8, to be multiplied by `LOOP_SCALE`.

    White noise whose frames are brought to a flat magnitude spectrum, again and again, as
    overlapping frames undo each other's (Griffin and Lim 1984). The same on every call; on another
    machine single values may differ by 1.
    """
    samples = np.random.default_rng(_SEED).standard_normal(PERIOD)
    window = hann(WINDOW_SAMPLES).astype(np.float64)
    for _ in range(_ROUNDS):
        around = np.append(samples, samples[: WINDOW_SAMPLES - _STEP])
        framed = np.lib.stride_tricks.sliding_window_view(around, WINDOW_SAMPLES)[::_STEP]
        spectrum = np.fft.rfft(framed * window, FFT_SAMPLES)
        spectrum /= np.maximum(np.abs(spectrum), _SMALLEST)
        frames = np.fft.irfft(spectrum, FFT_SAMPLES)[:, :WINDOW_SAMPLES] * window
        # Squared windows add up to a constant, so dividing by it can wait until the end.
        parts = frames.reshape(len(frames), -1, _STEP)
        rolled = [np.roll(parts[:, k], k, axis=0) for k in range(parts.shape[1])]
        samples = np.sum(rolled, axis=0).ravel()
    samples /= samples.std()
    found = np.clip(np.rint(samples / LOOP_SCALE), -127, 127).astype(np.int8)
    found.flags.writeable = False
    return found


def hiss_at(position: int, count: int) -> FloatArray:
    """Noise of mean 0 and variance 1 as a function of the sample's position.

    Segments of a long file then share their noise where they overlap.

    Args:
        position: index of the first sample, at least 0.
        count: how many samples.

    Returns:
        shape (count,), float32, in [-4, 4].
    """
    return loop()[(position + np.arange(count)) % PERIOD] * np.float32(LOOP_SCALE)


def draw_hiss(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Noise for a batch, each row from a drawn position on.

    Args:
        shape: rows (B) and samples in each.
        generator: of the positions; torch's global one where None. One on the CPU draws the same
            for every device.

    Returns:
        that shape, float32, on the generator's device.
    """
    device = torch.device("cpu") if generator is None else generator.device
    rows, count = shape
    starts = torch.randint(PERIOD, (rows, 1), generator=generator, device=device)
    places = (starts + torch.arange(count, device=device)) % PERIOD
    return torch.tensor(loop(), device=device)[places].to(torch.float32) * LOOP_SCALE
