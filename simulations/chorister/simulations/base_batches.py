"""Training examples: random crops, each with references from other material of its speaker.

Every draw comes from a generator seeded by (seed, stage, step): the data order of a step does not
depend on the steps before it, so a killed run resumes with the order that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from chorister.shared.types import MEL_BANDS, FloatArray
from chorister.shared.voice.features import hz_to_mel, log_mel, mel_edges_hz
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.profile import speech_frames
from chorister.simulations.augment import AugmentSettings, heard_features
from chorister.simulations.voice_change import came_from_hz

_WARP_STEPS = 41
_MOST_REFERENCES = 8
_MEAN_JITTER = 0.1
_SPREAD_JITTER = 0.05
_SMALLEST_SPREAD = 0.02
# An utterance that has to be its own table leaves out what surrounds the example.
_TABLE_MARGIN_FRAMES = 16
_SMALLEST_TABLE = 60
_AUGMENT = 0xA6


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over the speech frames of one utterance, to be pooled over utterances."""

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Speech:
    """One utterance in memory.

    Attributes:
        speaker: index of its speaker.
        samples: shape (F * 160,), int16.
        log_mel: shape (F, 80), float16.
        f0_hz: shape (F,), float32.
        phones: shape (F,), int8, -1 where unknown.
        statistics: of its log-mel.
        weight: how often it is drawn, relative to the others.
    """

    speaker: int
    samples: NDArray[np.int16]
    log_mel: NDArray[np.float16]
    f0_hz: FloatArray
    phones: NDArray[np.int8]
    statistics: Statistics
    weight: float


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's examples, B of them.

    Attributes:
        wav: shape (B, F * 160).
        log_mel: shape (B, F, 80), the content encoder's input, augmented and warped.
        plain_log_mel: shape (B, F, 80), of `wav` as it is.
        f0_hz: shape (B, F).
        phones: shape (B, F), int64, -1 where unknown.
        source_mean: shape (B, 80), statistics for `log_mel`, warped alike.
        source_std: shape (B, 80).
        vector: shape (B, 256), of references of the same speaker.
        centroid: shape (B, 256), mean of the speaker's vectors.
        teacher_centroid: shape (B, 256), the same by GE2E; zeros where it does not judge.
        target_mean: shape (B, 80), statistics from other references.
        target_std: shape (B, 80).
        log_f0: shape (B, 2), median and spread of the speaker's log F0.
        sounds_content: shape (B, K, C), what other frames of the speaker say; K is 0 in stages
            that do without.
        sounds_log_mel: shape (B, K, 80), how they sound.
    """

    wav: Tensor
    log_mel: Tensor
    plain_log_mel: Tensor
    f0_hz: Tensor
    phones: Tensor
    source_mean: Tensor
    source_std: Tensor
    vector: Tensor
    centroid: Tensor
    teacher_centroid: Tensor
    target_mean: Tensor
    target_std: Tensor
    log_f0: Tensor
    sounds_content: Tensor
    sounds_log_mel: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device; itself where it is there already."""
        if self.wav.device == device:
            return self
        return Batch(*(getattr(self, one.name).to(device) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class _Source:
    """How the source side of one example is changed."""

    settings: AugmentSettings
    draw: np.random.Generator


def statistics_of(mel: FloatArray) -> Statistics:
    """Sums over the speech frames of a log-mel, shape (F, 80)."""
    frames = speech_frames(mel).astype(np.float64)
    return Statistics(len(frames), frames.sum(axis=0), (frames**2).sum(axis=0))


def pool(parts: list[Statistics]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation over all parts, shape (80,) each."""
    count = sum(part.count for part in parts)
    mean = np.sum([part.total for part in parts], axis=0) / count
    square = np.sum([part.squares for part in parts], axis=0) / count
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    return mean.astype(np.float32), std.astype(np.float32)


def warp_matrix(factor: float) -> FloatArray:
    """Matrix that stretches a log-mel along frequency, shape (80, 80); rows are the old bands.

    Args:
        factor: a formant at f Hz moves to f * factor, up to about 4.8 kHz; above, the axis is bent
            so that 8 kHz stays (vocal tract length perturbation, Jaitly and Hinton 2013).
    """
    centres = mel_edges_hz()[1:-1]
    source_hz = came_from_hz(centres, factor)
    bands = hz_to_mel(centres)
    rows = [np.interp(hz_to_mel(source_hz), bands, row) for row in np.eye(MEL_BANDS)]
    return np.stack(rows).astype(np.float32)


class Batches:
    """Draws batches.

    Args:
        speech: all utterances.
        vectors: by speaker index, shape (N, 256), vectors of windows of the speaker's speech.
        teacher_vectors: the same by GE2E, where it judges.
        seed: of the data order.
    """

    def __init__(
        self,
        speech: list[Speech],
        vectors: list[FloatArray],
        teacher_vectors: list[FloatArray] | None,
        seed: int,
    ) -> None:
        self._speech = speech
        self._vectors = vectors
        self._seed = seed
        self._of_speaker: list[list[int]] = [[] for _ in vectors]
        for index, one in enumerate(speech):
            self._of_speaker[one.speaker].append(index)
        weights = np.array([one.weight * len(one.f0_hz) for one in speech])
        self._chances = weights / weights.sum()
        self._centroids = _centroids(vectors)
        self._teacher_centroids = [np.zeros_like(row) for row in self._centroids]
        if teacher_vectors is not None:
            self._teacher_centroids = _centroids(teacher_vectors)
        self._log_f0 = [self._pitch(indices) for indices in self._of_speaker]
        self._content: list[NDArray[np.float16]] | None = None

    def _pitch(self, indices: list[int]) -> tuple[float, float]:
        f0_hz = np.concatenate([self._speech[i].f0_hz for i in indices])
        voiced = f0_hz[f0_hz > 0]
        if len(voiced) == 0:
            return 5.0, 0.2
        low, median, high = np.percentile(np.log(voiced), [25.0, 50.0, 75.0])
        return float(median), max(float(high - low) / 1.349, _SMALLEST_SPREAD)

    def speaker_statistics(self) -> FloatArray:
        """Mel mean and spread of every speaker, shape (speakers, 160)."""
        rows = [
            np.concatenate(pool([self._speech[i].statistics for i in indices]))
            for indices in self._of_speaker
        ]
        return np.stack(rows)

    def draw(
        self,
        stage: int,
        step: int,
        size: int,
        frames: int,
        largest_warp: float,
        augmentation: AugmentSettings | None = None,
        rank: int = 0,
        tables: tuple[int, ...] = (1000,),
    ) -> Batch:
        """The batch of one step, or a process's part of it.

        Args:
            stage: index of the stage.
            step: step within the stage.
            size: examples.
            frames: length of each; shorter utterances are followed by digital silence.
            largest_warp: at least 1.
            augmentation: of what the content encoder hears; None for nothing.
            rank: which of several processes draws; each draws examples of its own.
            tables: frames in the tables, where there are any; one of these sizes is drawn.
        """
        place = [self._seed, stage, step, *([rank] if rank else [])]
        rng = np.random.default_rng(place)
        chosen = rng.choice(len(self._speech), size, p=self._chances)
        table = int(rng.choice(tables)) if self._content is not None else 0
        sources = augmentation if augmentation is not None and augmentation.active else None
        rows = [
            self._example(
                self._speech[i],
                i,
                frames,
                largest_warp,
                rng,
                table,
                # Draws of their own: without augmentation the data are the same as ever.
                None
                if sources is None
                else _Source(sources, np.random.default_rng([*place, _AUGMENT, row])),
            )
            for row, i in enumerate(chosen)
        ]
        columns = zip(*rows, strict=True)
        return Batch(*(torch.from_numpy(np.stack(column)) for column in columns))

    def _example(
        self,
        one: Speech,
        index: int,
        frames: int,
        largest_warp: float,
        rng: np.random.Generator,
        table: int,
        source: _Source | None,
    ) -> tuple[NDArray[np.generic], ...]:
        start = int(rng.integers(max(len(one.f0_hz) - frames, 0) + 1))
        kept = slice(start, start + frames)
        short = max(frames - len(one.f0_hz), 0)
        cut = one.samples[start * HOP_SAMPLES : (start + frames) * HOP_SAMPLES]
        wav = np.pad(cut, (0, short * HOP_SAMPLES)).astype(np.float32) / np.float32(32768.0)
        # The edge frames of a crop see its neighbours here and zeros at conversion: no matter.
        mel = one.log_mel[kept].astype(np.float32)
        if short:
            mel = log_mel(wav)
        warp = _WARPS[largest_warp][int(rng.integers(_WARP_STEPS))]
        source_mean, source_std = self._reference_statistics(one.speaker, index, rng)
        target_mean, target_std = self._reference_statistics(one.speaker, index, rng)
        heard = mel
        if source is not None:
            heard, (source_mean, source_std) = heard_features(
                wav, mel, (source_mean, source_std), source.settings, source.draw
            )
        vectors = self._vectors[one.speaker]
        count = int(rng.integers(1, _MOST_REFERENCES + 1))
        mixed = rng.dirichlet(np.ones(count)) @ vectors[rng.integers(len(vectors), size=count)]
        phones = np.full(frames, -1, np.int64)
        phones[: frames - short] = one.phones[kept]
        return (
            wav,
            heard @ warp,
            mel,
            np.pad(one.f0_hz[kept], (0, short)),
            phones,
            (source_mean @ warp).astype(np.float32),
            (source_std @ warp).astype(np.float32),
            (mixed / np.linalg.norm(mixed)).astype(np.float32),
            self._centroids[one.speaker],
            self._teacher_centroids[one.speaker],
            target_mean,
            target_std,
            np.array(self._log_f0[one.speaker], np.float32),
            *self._table(index, start, frames, table, rng),
        )

    def listen(
        self, content_of: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    ) -> None:
        """Gives every example a table of its speaker's other frames, from now on.

        Args:
            content_of: log-mel (F, 80) and its speaker's mean and spread (80,) to content (F, C);
                it must not change any more.
        """
        statistics = self.speaker_statistics()
        self._content = []
        for one in track(self._speech, description="contents", transient=True):
            mean, std = np.split(statistics[one.speaker], 2)
            content = content_of(one.log_mel.astype(np.float32), mean, std)
            self._content.append(content.astype(np.float16))

    def _table(
        self, index: int, start: int, frames: int, size: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Content (K, C) and log-mel (K, 80) of frames drawn from one to eight other utterances."""
        if self._content is None:
            return np.zeros((0, 0), np.float32), np.zeros((0, MEL_BANDS), np.float32)
        others = [i for i in self._of_speaker[self._speech[index].speaker] if i != index]
        if others:
            count = min(int(rng.integers(1, _MOST_REFERENCES + 1)), len(others))
            parts = [(int(i), slice(None)) for i in rng.choice(others, count, replace=False)]
        else:
            before = max(start - _TABLE_MARGIN_FRAMES, 0)
            after = start + frames + _TABLE_MARGIN_FRAMES
            parts = [(index, slice(0, before)), (index, slice(after, None))]
            if before + max(len(self._content[index]) - after, 0) < _SMALLEST_TABLE:
                parts = [(index, slice(None))]
        content = np.concatenate([self._content[i][kept] for i, kept in parts])
        mel = np.concatenate([self._speech[i].log_mel[kept] for i, kept in parts])
        rows = rng.choice(len(content), size, replace=len(content) < size)
        return content[rows].astype(np.float32), mel[rows].astype(np.float32)

    def _reference_statistics(
        self, speaker: int, index: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Pooled over one to eight utterances of the speaker, others than the example if any."""
        others = [i for i in self._of_speaker[speaker] if i != index] or [index]
        count = int(rng.integers(1, _MOST_REFERENCES + 1))
        picked = rng.choice(others, min(count, len(others)), replace=False)
        mean, std = pool([self._speech[i].statistics for i in picked])
        mean = mean + rng.normal(0.0, _MEAN_JITTER, MEL_BANDS).astype(np.float32)
        std = std * np.exp(rng.normal(0.0, _SPREAD_JITTER, MEL_BANDS)).astype(np.float32)
        return mean, std


def _centroids(vectors: list[FloatArray]) -> list[FloatArray]:
    """Normalised mean of each speaker's vectors."""
    means = [rows.mean(axis=0) for rows in vectors]
    return [np.asarray(mean / np.linalg.norm(mean), np.float32) for mean in means]


class _WarpTable(dict[float, list[FloatArray]]):
    """Matrices by largest warp, made when first asked for."""

    def __missing__(self, largest: float) -> list[FloatArray]:
        factors = np.geomspace(1.0 / largest, largest, _WARP_STEPS)
        self[largest] = [warp_matrix(float(factor)) for factor in factors]
        return self[largest]


_WARPS = _WarpTable()
