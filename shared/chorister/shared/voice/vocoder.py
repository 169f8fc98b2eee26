"""A source-filter vocoder without learnt parameters: two spectral envelopes and F0 to samples.

A band-limited pulse train passes a minimum-phase filter, noise (`hiss.py`) a zero-phase one, both
frame by frame in the STFT domain (after Agrawal et al., Ultra-lightweight neural differential DSP
vocoder, ICASSP 2024). Both filters are given as log magnitudes of 80 mel bands.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.types import MEL_BANDS, SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.features import FFT_BINS, FFT_SAMPLES, mel_edges_hz
from chorister.shared.voice.frames import HOP_SAMPLES, hann

GRAIN_SAMPLES = 320
LOUDEST_LOG = 6.0
QUIETEST_LOG = -12.0
OVERLAP_HOPS = -(-FFT_SAMPLES // HOP_SAMPLES)
_TOP_OF_BAND = 0.48
_SMALLEST_SINE = 1e-4


def band_to_bin() -> FloatArray:
    """Matrix from 80 values at the mel centres to 257 bins, linear in Hz, flat at both ends.

    Returns:
        shape (80, 257), float32.
    """
    centres = mel_edges_hz()[1:-1]
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2.0, FFT_BINS)
    rows = [np.interp(bins_hz, centres, row) for row in np.eye(MEL_BANDS)]
    return np.stack(rows).astype(np.float32)


def minimum_phase() -> FloatArray:
    """Matrix from a log magnitude to the phase of the minimum-phase filter that has it.

    The phase is the imaginary part of the transform of the folded real cepstrum (Oppenheim and
    Schafer, Discrete-Time Signal Processing, section 12.5); every step is linear.

    Returns:
        shape (257, 257), float32, radians a neper.
    """
    cepstra = np.fft.irfft(np.eye(FFT_BINS), FFT_SAMPLES)
    fold = np.zeros(FFT_SAMPLES)
    fold[0] = fold[FFT_SAMPLES // 2] = 1.0
    fold[1 : FFT_SAMPLES // 2] = 2.0
    return np.fft.rfft(cepstra * fold, axis=1).imag.astype(np.float32)


def _dft_matrix() -> FloatArray:
    """Real and imaginary parts of the transform of a grain: shape (320, 514)."""
    spectrum = np.fft.rfft(np.eye(FFT_SAMPLES)[:GRAIN_SAMPLES], FFT_SAMPLES)
    return np.concatenate([spectrum.real, spectrum.imag], axis=1).astype(np.float32)


def _inverse_dft_matrix() -> FloatArray:
    """From 257 real and 257 imaginary parts to a frame: shape (514, 512)."""
    eye = np.eye(FFT_BINS)
    frames = np.concatenate([np.fft.irfft(eye, FFT_SAMPLES), np.fft.irfft(1j * eye, FFT_SAMPLES)])
    return frames.astype(np.float32)


class PulseTrain(nn.Module):
    """Pulses at F0, band-limited to 7.68 kHz, of unit power; silent where unvoiced."""

    def forward(
        self,
        f0_hz: Tensor,
        start_cycles: Tensor | None = None,
        arriving_hz: Tensor | None = None,
    ) -> Tensor:
        """Places the pulses.

        Args:
            f0_hz: shape (B, F), 0 where unvoiced.
            start_cycles: shape (B,), float64, the phase before the first sample; 0 where None.
            arriving_hz: shape (B, F), the pitch with which pulses come to each frame's centre;
                they leave it with `f0_hz`, which is both where None.

        Returns:
            shape (B, F * 160).
        """
        return self.pulses(*self.cycles(f0_hz, start_cycles, arriving_hz))

    def pulses(self, f0: Tensor, cycles: Tensor) -> Tensor:
        """Pulses from F0 and phase at every sample.

        Args:
            f0: shape (B, T), 0 where unvoiced.
            cycles: shape (B, T), float64.

        Returns:
            shape (B, T).
        """
        phase = (cycles - torch.round(cycles)).to(f0.dtype)
        harmonics = torch.floor(_TOP_OF_BAND * SAMPLE_RATE_HZ / f0.clamp(min=1.0))
        sine = torch.sin(torch.pi * phase)
        flat = sine.abs() < _SMALLEST_SINE
        count = 2.0 * harmonics + 1.0
        ratio = torch.sin(torch.pi * count * phase) / torch.where(flat, 1.0, sine)
        pulses = (torch.where(flat, count, ratio) - 1.0) / torch.sqrt(2.0 * harmonics)
        return torch.where(f0 > 0, pulses, torch.zeros_like(pulses))

    def cycles(
        self,
        f0_hz: Tensor,
        start_cycles: Tensor | None = None,
        arriving_hz: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """F0 and phase at every sample.

        Args:
            f0_hz: shape (B, F), 0 where unvoiced.
            start_cycles: shape (B,), float64, as in `forward`.
            arriving_hz: shape (B, F), as in `forward`.

        Returns:
            F0 between the frames' centres, shape (B, F * 160), and the phase in cycles, likewise,
            float64: summed in float32 it drifts within seconds.
        """
        there, here = (f0_hz if arriving_hz is None else arriving_hz)[:, 1:], f0_hz[:, :-1]
        both = (there > 0) & (here > 0)
        step = torch.where(both, there - here, torch.zeros_like(there))
        before = nn.functional.pad(step, (1, 0)).unsqueeze(2)
        after = nn.functional.pad(step, (0, 1)).unsqueeze(2)
        offset = (torch.arange(HOP_SAMPLES, device=f0_hz.device) + 0.5) / HOP_SAMPLES - 0.5
        offset = offset.to(f0_hz.dtype)
        at_centre = f0_hz.unsqueeze(2)
        if arriving_hz is not None:
            at_centre = torch.where(offset < 0, arriving_hz.unsqueeze(2), at_centre)
        at_samples = at_centre + before * offset.clamp(max=0.0) + after * offset.clamp(min=0.0)
        f0 = at_samples.flatten(1)
        cycles = torch.cumsum(f0.double() / SAMPLE_RATE_HZ, dim=1)
        if start_cycles is not None:
            cycles = cycles + start_cycles.unsqueeze(1)
        return f0, cycles


class Vocoder(nn.Module):
    """Envelopes and F0 to a waveform.

    Args:
        as_products: compute the transforms as products with fixed matrices instead of by FFT: the
            same numbers from operators that every ONNX runtime has.
    """

    window: Tensor
    to_bins: Tensor
    to_phase: Tensor
    forward_dft: Tensor
    inverse_dft: Tensor

    def __init__(self, *, as_products: bool = False) -> None:
        super().__init__()
        self.as_products = as_products
        self.pulse_train = PulseTrain()
        to_bins = band_to_bin()
        fixed = {
            "window": hann(GRAIN_SAMPLES),
            "to_bins": to_bins,
            "to_phase": to_bins @ minimum_phase(),
            "forward_dft": _dft_matrix(),
            "inverse_dft": _inverse_dft_matrix(),
        }
        for name, value in fixed.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(
        self,
        harmonic: Tensor,
        noise: Tensor,
        f0_hz: Tensor,
        hiss: Tensor,
        start_cycles: Tensor | None = None,
        arriving_hz: Tensor | None = None,
    ) -> Tensor:
        """Renders a batch.

        Args:
            harmonic: shape (B, F, 80), log magnitude of the pulses' filter, clamped to [-12, 6].
            noise: shape (B, F, 80), log magnitude of the noise's filter, likewise.
            f0_hz: shape (B, F), 0 where unvoiced.
            hiss: shape (B, F * 160), noise of unit variance (`hiss.py`).
            start_cycles: shape (B,), float64, the pulses' phase before the first sample.
            arriving_hz: shape (B, F), as in `PulseTrain`.

        Returns:
            shape (B, F * 160), 16 kHz.
        """
        with torch.no_grad():
            pulses = self._grains(self.pulse_train(f0_hz, start_cycles, arriving_hz))
            hisses = self._grains(hiss)
        return self._overlap_add(self.grain_frames(harmonic, noise, pulses, hisses))

    def grain_frames(self, harmonic: Tensor, noise: Tensor, pulses: Tensor, hiss: Tensor) -> Tensor:
        """Each frame's grains, filtered, to be overlapped and added.

        Args:
            harmonic: shape (B, F, 80), as in `forward`.
            noise: shape (B, F, 80), as in `forward`.
            pulses: shape (B, F, 320), 80 samples before each frame to 80 after it.
            hiss: shape (B, F, 320), likewise.

        Returns:
            shape (B, F, 512), from 80 samples before each frame on.
        """
        harmonic = harmonic.clamp(QUIETEST_LOG, LOUDEST_LOG)
        noise = noise.clamp(QUIETEST_LOG, LOUDEST_LOG)
        with torch.no_grad():
            # Side by side: a product then reads its matrix once.
            real, imaginary = self._spectrum(torch.cat([pulses, hiss], dim=1))
            pulse_re, hiss_re = real.chunk(2, dim=1)
            pulse_im, hiss_im = imaginary.chunk(2, dim=1)
        size = torch.exp(harmonic @ self.to_bins)
        angle = harmonic @ self.to_phase
        filter_re, filter_im = size * torch.cos(angle), size * torch.sin(angle)
        breath = torch.exp(noise @ self.to_bins)
        real = filter_re * pulse_re - filter_im * pulse_im + breath * hiss_re
        imaginary = filter_re * pulse_im + filter_im * pulse_re + breath * hiss_im
        if self.as_products:
            frames: Tensor = torch.cat([real, imaginary], dim=2) @ self.inverse_dft
        else:
            frames = torch.fft.irfft(torch.complex(real, imaginary), FFT_SAMPLES)
        return frames

    def _grains(self, samples: Tensor) -> Tensor:
        """Grains on the frame grid: shape (B, F * 160) to (B, F, 320)."""
        edge = (GRAIN_SAMPLES - HOP_SAMPLES) // 2
        padded = nn.functional.pad(samples, (edge, edge))
        if not self.as_products:
            return padded.unfold(1, GRAIN_SAMPLES, HOP_SAMPLES)
        blocks = padded.reshape(padded.shape[0], -1, HOP_SAMPLES)
        return torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=2)

    def _spectrum(self, grains: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms of windowed grains, shape (B, F, 257) each."""
        if not self.as_products:
            spectrum = torch.fft.rfft(grains * self.window, FFT_SAMPLES)
            return spectrum.real, spectrum.imag
        parts = (grains * self.window) @ self.forward_dft
        return parts[..., :FFT_BINS], parts[..., FFT_BINS:]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        edge = (GRAIN_SAMPLES - HOP_SAMPLES) // 2
        count = frames.shape[1] * HOP_SAMPLES
        return overlapped(frames).flatten(1)[:, edge : edge + count]


def overlapped(frames: Tensor) -> Tensor:
    """Frames laid on top of each other, a hop apart.

    Args:
        frames: shape (B, F, 512).

    Returns:
        shape (B, F + 4, 160), hop by hop from the first frame's first sample on.
    """
    frames = nn.functional.pad(frames, (0, OVERLAP_HOPS * HOP_SAMPLES - FFT_SAMPLES))
    total = frames.new_zeros(())
    for hop in range(OVERLAP_HOPS):
        part = frames[:, :, hop * HOP_SAMPLES : (hop + 1) * HOP_SAMPLES]
        total = total + nn.functional.pad(part, (0, 0, hop, OVERLAP_HOPS - hop))
    return total
