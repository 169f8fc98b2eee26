"""Fundamental frequency by a normalised difference function and a Viterbi search.

The difference function is YIN's (de Cheveigne and Kawahara 2002); the search over log-spaced
states with an unvoiced state follows pYIN (Mauch and Dixon 2014) without its thresholds. All
steps are products with fixed matrices, running sums and minima, so they have ONNX forms.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.frames import frames_of

STATES = 128
LOWEST_HZ = 62.0
HIGHEST_HZ = 460.0
SPAN_SAMPLES = 512
LONGEST_LAG = 260
_FFT = 1024
_FRAMES_AT_ONCE = 2048
# Added to the difference per sample: what is quieter than this (about -74 dBFS) is unvoiced.
QUIET = 2.0 * 2e-4**2
UNVOICED_COST = 0.55
VOICING_CHANGE_COST = 0.25
STEP_COST = 0.02
WIDEST_STEP = 8
# A dip at the period comes back at each of its multiples: the shortest one is preferred.
OCTAVE_COST = 0.03


@cache
def state_hz() -> FloatArray:
    """Centre frequencies of the voiced states, shape (128,), log-spaced from 62 to 460 Hz."""
    return np.geomspace(LOWEST_HZ, HIGHEST_HZ, STATES).astype(np.float32)


@cache
def state_filters() -> FloatArray:
    """Matrix that reads the difference function at each state's lag, linear between samples.

    Returns:
        shape (261, 128), float32.
    """
    lags = SAMPLE_RATE_HZ / state_hz().astype(np.float64)
    below = np.floor(lags).astype(int)
    weights = np.zeros((LONGEST_LAG + 1, STATES))
    weights[below, np.arange(STATES)] = 1.0 - (lags - below)
    weights[below + 1, np.arange(STATES)] = lags - below
    return weights.astype(np.float32)


def normalised_difference(samples: FloatArray) -> FloatArray:
    """Cumulative-mean-normalised difference of every frame.

    Args:
        samples: shape (T,), float32, 16 kHz.

    Returns:
        shape (T // 160, 261), float32, at least 0: near 0 at multiples of the period, near 1 in
        noise and silence; column k is a lag of k samples, and column 0 is 1.
    """
    framed = frames_of(samples, SPAN_SAMPLES + LONGEST_LAG)
    out = np.ones((len(framed), LONGEST_LAG + 1), np.float32)
    lags = np.arange(1, LONGEST_LAG + 1)
    for start in range(0, len(framed), _FRAMES_AT_ONCE):
        part = framed[start : start + _FRAMES_AT_ONCE].astype(np.float64)
        power = np.cumsum(np.pad(part**2, ((0, 0), (1, 0))), axis=1)
        energy = power[:, SPAN_SAMPLES:] - power[:, : LONGEST_LAG + 1]
        spectrum = np.fft.rfft(part, _FFT) * np.conj(np.fft.rfft(part[:, :SPAN_SAMPLES], _FFT))
        product = np.fft.irfft(spectrum, _FFT)[:, : LONGEST_LAG + 1]
        difference = np.maximum(energy[:, :1] + energy - 2.0 * product, 0.0)[:, 1:]
        difference += QUIET * SPAN_SAMPLES
        mean = np.cumsum(difference, axis=1) / lags
        out[start : start + _FRAMES_AT_ONCE, 1:] = difference / mean
    return out


class _Search:
    """The forward half of a Viterbi search, frame by frame, from silence."""

    def __init__(self) -> None:
        width = 2 * WIDEST_STEP + 1
        self._steps = STEP_COST * np.abs(np.arange(width) - WIDEST_STEP).astype(np.float32)
        self._padded = np.full(STATES + 2 * WIDEST_STEP, np.inf, np.float32)
        self._windows = np.lib.stride_tricks.sliding_window_view(self._padded, width)
        self._index = np.arange(STATES)
        self._voiced = np.zeros(STATES, np.float32)
        self._unvoiced = np.float32(0.0)

    def step(self, costs: FloatArray) -> NDArray[np.int16]:
        """Takes a frame.

        Args:
            costs: shape (128,), cost of each voiced state in it.

        Returns:
            shape (129,), for each state in this frame the best one in the frame before.
        """
        self._padded[WIDEST_STEP:-WIDEST_STEP] = self._voiced
        reached = self._windows + self._steps
        step = reached.argmin(axis=1)
        best = reached[self._index, step]
        onset = self._unvoiced + np.float32(VOICING_CHANGE_COST)
        starts = onset < best
        came_from = np.empty(STATES + 1, np.int16)
        came_from[:STATES] = np.where(starts, STATES, self._index + step - WIDEST_STEP)
        loudest = int(self._voiced.argmin())
        ending = self._voiced[loudest] + np.float32(VOICING_CHANGE_COST)
        came_from[STATES] = STATES if self._unvoiced <= ending else loudest
        voiced = np.where(starts, onset, best) + costs
        unvoiced = min(self._unvoiced, ending) + np.float32(UNVOICED_COST)
        # Only differences count: rebasing keeps float32 exact over hours.
        base = min(unvoiced, voiced.min())
        self._voiced = voiced - base
        self._unvoiced = np.float32(unvoiced - base)
        return came_from

    def cheapest(self) -> int:
        """The state in which the cheapest walk so far ends."""
        return int(self._voiced.argmin()) if self._voiced.min() < self._unvoiced else STATES


def _best_path(costs: FloatArray, delay_frames: int | None) -> NDArray[np.int64]:
    """Cheapest walk through the states; `STATES` stands for unvoiced.

    Args:
        costs: shape (F, 128), cost of each voiced state in each frame.
        delay_frames: how many later frames decide about a frame; None for all.

    Returns:
        shape (F,), int64, in [0, 128].
    """
    search = _Search()
    came_from = np.empty((len(costs), STATES + 1), np.int16)
    path = np.empty(len(costs), np.int64)
    for t, cost in enumerate(costs):
        came_from[t] = search.step(cost)
        if delay_frames is not None and t >= delay_frames:
            path[t - delay_frames] = _walk_back(came_from, t, delay_frames, search.cheapest())[0]
    last = len(costs) - 1
    rest = last if delay_frames is None else min(delay_frames, last)
    path[last - rest :] = _walk_back(came_from, last, rest, search.cheapest())
    return path


def _walk_back(
    came_from: NDArray[np.int16], last: int, steps: int, state: int
) -> NDArray[np.int64]:
    """The states in frames `last - steps` to `last`, given the one in the last."""
    path = np.empty(steps + 1, np.int64)
    path[-1] = state
    for back in range(steps):
        path[steps - back - 1] = came_from[last - back, path[steps - back]]
    return path


def _refine(difference: FloatArray, path: NDArray[np.int64]) -> FloatArray:
    """Moves each voiced frame's lag to the bottom of the parabola around its nearest minimum."""
    frames = np.flatnonzero(path < STATES)
    f0_hz = np.zeros(len(path), np.float32)
    centre = np.rint(SAMPLE_RATE_HZ / state_hz()[path[frames]]).astype(int)
    reach = np.arange(-3, 4)
    near = np.clip(centre[:, None] + reach, 2, LONGEST_LAG - 1)
    lag = near[np.arange(len(frames)), difference[frames[:, None], near].argmin(axis=1)]
    before, here, after = (difference[frames, lag + offset] for offset in (-1, 0, 1))
    curve = np.maximum(before - 2.0 * here + after, 1e-9)
    shift = np.clip(0.5 * (before - after) / curve, -0.5, 0.5)
    f0_hz[frames] = np.clip(SAMPLE_RATE_HZ / (lag + shift), LOWEST_HZ, HIGHEST_HZ)
    return f0_hz


def estimate_f0(samples: FloatArray, delay_frames: int | None = None) -> FloatArray:
    """Fundamental frequency on the frames of `features.log_mel`.

    Args:
        samples: shape (T,), float32, 16 kHz, finite.
        delay_frames: how many later frames decide about a frame, as in a stream; None for all.

    Returns:
        shape (T // 160,), float32, Hz in [62, 460], 0 where unvoiced or quieter than -74 dBFS.
    """
    difference = normalised_difference(samples)
    if len(difference) == 0:
        return np.zeros(0, np.float32)
    octaves = np.log2(HIGHEST_HZ / state_hz())
    costs = difference @ state_filters() + np.float32(OCTAVE_COST) * octaves
    path = _best_path(costs, delay_frames)
    return _refine(difference, path)
