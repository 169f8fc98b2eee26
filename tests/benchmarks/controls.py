"""Does each control of `chorister convert` do what it says? Measured on its results.

    python tests/benchmarks/controls.py voice.onnx me.wav

Every row sets one control and measures the result against the neutral one, from the samples alone:
the median and the spread of F0, the ratio by which the mean spectrum of voiced frames is moved
along frequency, the length, the loudness, and the harmonics-to-noise ratio (from the
autocorrelation at the period, Boersma 1993).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chorister.client.controls import NEUTRAL, Controls
from chorister.client.convert import convert_recording
from chorister.client.voice import open_voice
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import log_mel, mel_edges_hz
from chorister.shared.voice.loudness import loudness_lufs

LONGEST_S = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voice", type=Path)
    parser.add_argument("audio", type=Path)
    options = parser.parse_args()
    voice = open_voice(options.voice)
    samples = load_recording(options.audio).samples[: round(LONGEST_S * SAMPLE_RATE_HZ)]
    # Below full scale, so that more energy has room.
    recording = Recording(samples * np.float32(0.25 / np.abs(samples).max()), "x")
    plain = convert_recording(voice, recording)
    rows = [
        *(Controls(pitch_st=value) for value in (-4.0, 3.0)),
        *(Controls(formant=value) for value in (0.85, 1.15)),
        *(Controls(rate=value) for value in (0.7, 1.5)),
        *(Controls(energy_db=value) for value in (-6.0, 6.0)),
        *(Controls(intonation=value) for value in (0.0, 1.5)),
        *(Controls(breathiness=value) for value in (-1.0, 0.05, 0.2)),
    ]
    print(
        f"{'':22}{'F0 cents':>10}{'spread':>8}{'formants':>10}{'length':>8}{'LU':>7}{'HNR dB':>9}"
    )
    base = _pitch(plain)
    for controls in (NEUTRAL, *rows):
        made = convert_recording(voice, recording, controls=controls)
        pitch = _pitch(made)
        name = ", ".join(
            f"{field} {getattr(controls, field):g}"
            for field in Controls.__slots__
            if getattr(controls, field) != getattr(NEUTRAL, field)
        )
        print(
            f"{name or 'neutral':22}"
            f"{1200 / np.log(2) * (pitch[0] - base[0]):10.0f}"
            f"{pitch[1] / base[1]:8.2f}"
            f"{_warp(_spectrum(plain), _spectrum(made)):10.2f}"
            f"{len(made) / len(plain):8.3f}"
            f"{loudness_lufs(made) - loudness_lufs(plain):7.1f}"
            f"{_harmonicity_db(made):9.1f}",
            flush=True,
        )


def _pitch(samples: FloatArray) -> tuple[float, float]:
    """Median and interquartile range of log F0."""
    f0_hz = estimate_f0(samples)
    low, median, high = np.percentile(np.log(f0_hz[f0_hz > 0]), [25, 50, 75])
    return float(median), float(high - low)


def _spectrum(samples: FloatArray) -> NDArray[np.float64]:
    """Mean log-mel of voiced frames, the tilt taken out."""
    frames = log_mel(samples)[estimate_f0(samples)[: len(samples) // 160] > 0]
    mean = frames.mean(axis=0).astype(np.float64)
    return mean - np.polyval(np.polyfit(np.arange(len(mean)), mean, 2), np.arange(len(mean)))


def _warp(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """The factor on frequency at which the two correlate best, between 300 and 5 000 Hz."""
    centres = mel_edges_hz()[1:-1].astype(np.float64)
    heard = (centres > 300.0) & (centres < 5000.0)
    factors = np.arange(0.6, 1.6, 0.01)
    fits = [
        np.corrcoef(np.interp(centres[heard] / factor, centres, before), after[heard])[0, 1]
        for factor in factors
    ]
    return float(factors[int(np.argmax(fits))])


def _harmonicity_db(samples: FloatArray) -> float:
    """Median over voiced frames of periodic over other power, at most 25 dB."""
    found = []
    for frame, hz in enumerate(estimate_f0(samples)):
        start = frame * 160 - 320
        if hz <= 0 or start < 0 or start + 800 > len(samples):
            continue
        # Lags up to 400 are enough: the longest period has 260.
        window = samples[start : start + 800].astype(np.float64) * np.hanning(800)
        both = np.correlate(window, window, "full")[799:1199]
        taper = np.correlate(np.hanning(800), np.hanning(800), "full")[799:1199]
        period = round(SAMPLE_RATE_HZ / hz)
        share = (both / taper / (both[0] / taper[0] + 1e-12))[period - 2 : period + 3].max()
        found.append(10 * np.log10(np.clip(share / max(1 - share, 0.003), 1e-3, 330.0)))
    return float(np.median(found))


if __name__ == "__main__":
    main()
