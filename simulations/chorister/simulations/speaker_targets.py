"""What the speaker encoder learns from: augmented chunks of speech and the teacher's vectors.

    recordings -> another voice, channel, noise, level -> chunks of 3.2 s -> GE2E of 1.6 s windows

Resampling by a factor shifts pitch and formants together, which gives the student voices that the
corpus does not have. Only the `base` speakers of splits.json and the spoken commands are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.fft import next_fast_len

from chorister.shared.console import progress
from chorister.shared.errors import BadCorpus
from chorister.shared.settings import NotNegative, Positive, Settings, Share
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.speaker import SPEAKER_SIZE, WINDOW_FRAMES
from chorister.simulations.corpus import read_split
from chorister.simulations.ge2e import Ge2e, ge2e_mel

_TEACHER_BATCH = 128
_KNOTS = 9
Count = Annotated[int, Field(ge=1)]


class SpeakerRecipe(Settings):
    """Settings of the distillation; recipes/speaker.toml says what each means."""

    seed: Annotated[int, Field(ge=0)]
    passes: Count
    speed_factors: tuple[Positive, ...]
    chunk_frames: Annotated[int, Field(ge=WINDOW_FRAMES, multiple_of=WINDOW_FRAMES)]
    snr_db: tuple[float, float]
    filter_db: NotNegative
    gain_db: tuple[float, float]
    steps: Count
    batch: Count
    learning_rate: Positive
    weight_decay: NotNegative
    crop_frames: tuple[Count, Count]
    whole_chunk_share: Share
    window_weight: Positive
    chunk_weight: NotNegative
    group_weight: NotNegative
    relation_weight: NotNegative


@dataclass(frozen=True, slots=True)
class Targets:
    """Chunks and what the teacher says of them.

    Attributes:
        log_mel: shape (N, chunk frames, 80), float16.
        windows: shape (N, W, 256), float32, the teacher's vector of each window of 1.6 s.
        group: shape (N,), int64; chunks of one speaker at one speed share a number.
    """

    log_mel: NDArray[np.float16]
    windows: FloatArray
    group: NDArray[np.int64]


def read_librispeech_split(data: Path, name: str) -> list[str]:
    """Return one list of speakers of librispeech/splits.json.

    Raises:
        BadCorpus: the file or the list is missing.
    """
    return list(read_split(data / "librispeech" / "splits.json", name))


def list_recordings(data: Path, speakers: list[str]) -> list[tuple[str, Path]]:
    """Return the LibriSpeech recordings of some speakers as (speaker, path), in a fixed order.

    Raises:
        BadCorpus: none of the speakers has a recording.
    """
    wanted = set(speakers)
    found = [
        (path.name.split("-")[0], path)
        for path in sorted((data / "librispeech").rglob("*-*.*"))
        if path.suffix in (".opus", ".flac", ".wav") and path.name.split("-")[0] in wanted
    ]
    if not found:
        raise BadCorpus("The speakers must have recordings.", f"none in {data}", "Check --data.")
    return found


def list_base(data: Path) -> list[tuple[str, Path]]:
    """Return what a base model may be trained on; a command's file name stands for its speaker.

    Args:
        data: folder with librispeech/splits.json, and picovoice-commands where present.

    Raises:
        BadCorpus: there is no splits.json or none of its base speakers.
    """
    commands = sorted((data / "picovoice-commands").glob("*.opus"))
    found = list_recordings(data, read_librispeech_split(data, "base"))
    return found + [(path.stem, path) for path in commands]


def augment(
    samples: FloatArray, recipe: SpeakerRecipe, draw: np.random.Generator
) -> tuple[FloatArray, float]:
    """Another voice, channel, noise and level for a recording.

    Args:
        samples: shape (T,), float32.
        recipe: its ranges.
        draw: where the choices come from.

    Returns:
        the samples, of another length, peak at most 1, and the speed factor.
    """
    speed = float(draw.choice(recipe.speed_factors))
    if speed != 1.0:
        samples = soxr.resample(samples, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ / speed)
    length = next_fast_len(len(samples), real=True)
    spectrum = np.fft.rfft(samples, length)
    bins = np.linspace(0.0, 1.0, len(spectrum))
    if draw.random() < 0.7:
        curve_db = draw.normal(0.0, recipe.filter_db / 2.0, _KNOTS)
        tilt_db = draw.normal(0.0, recipe.filter_db / 2.0) * (bins - 0.5)
        gain_db = np.interp(bins, np.linspace(0.0, 1.0, _KNOTS), curve_db) + tilt_db
        spectrum = spectrum * 10.0 ** (gain_db / 20.0)
    if draw.random() < 0.15:
        telephone = (bins > 300 / 8000) & (bins < 3400 / 8000)
        spectrum = spectrum * telephone
    voice = np.fft.irfft(spectrum, length)[: len(samples)]
    if draw.random() < 0.7:
        noise = np.fft.rfft(draw.normal(size=length)) * (bins + 0.01) ** -draw.uniform(0.0, 0.8)
        hiss = np.fft.irfft(noise, length)[: len(samples)]
        snr_db = draw.uniform(recipe.snr_db[0], recipe.snr_db[1])
        voice += hiss * np.sqrt(np.mean(voice**2) / np.mean(hiss**2)) * 10.0 ** (-snr_db / 20.0)
    voice *= 10.0 ** (draw.uniform(recipe.gain_db[0], recipe.gain_db[1]) / 20.0)
    return (voice / max(1.0, np.abs(voice).max())).astype(np.float32), speed


def cut_chunks(
    samples: FloatArray, chunk_frames: int, draw: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield adjoining chunks from a random start; mostly silent ones are left out.

    Args:
        samples: shape (T,), float32; nothing comes of less than one chunk.
        chunk_frames: length of a chunk, frames of 10 ms.
        draw: where the start comes from.
    """
    size = chunk_frames * HOP_SAMPLES
    whole = len(samples) // size
    if whole == 0:
        return
    start = int(draw.integers(len(samples) - whole * size + 1))
    loud = np.sqrt(np.mean(samples**2))
    for chunk in samples[start : start + whole * size].reshape(whole, size):
        rms = np.sqrt(np.mean(chunk.reshape(-1, HOP_SAMPLES) ** 2, axis=1))
        if np.mean(rms > 0.2 * loud) > 0.4:
            yield chunk


def compute_targets(
    recordings: list[tuple[str, Path]], recipe: SpeakerRecipe, teacher: Ge2e
) -> Targets:
    """Cut, augment and label recordings with the teacher's vectors.

    Args:
        recordings: (speaker, path) pairs, files at 16 kHz.
        recipe: passes over them (the first one plain) and ranges of the augmentation.
        teacher: gives the vector of each window of 1.6 s.
    """
    mels: list[NDArray[np.float16]] = []
    pending: list[FloatArray] = []
    vectors: list[FloatArray] = []
    group: list[int] = []
    groups: dict[tuple[str, float], int] = {}
    per_chunk = recipe.chunk_frames // WINDOW_FRAMES

    def flush() -> None:
        with torch.inference_mode():
            vectors.append(teacher(torch.from_numpy(np.stack(pending))).numpy())
        pending.clear()

    with progress("Teacher's vectors", len(recordings)) as step:
        for index, (speaker, path) in enumerate(recordings):
            recorded, _ = soundfile.read(path, dtype="float32")
            for number in range(recipe.passes):
                draw = np.random.default_rng((recipe.seed, number, index))
                samples, speed = augment(recorded, recipe, draw) if number else (recorded, 1.0)
                for chunk in cut_chunks(samples, recipe.chunk_frames, draw):
                    mels.append(log_mel(chunk).astype(np.float16))
                    group.append(groups.setdefault((speaker, speed), len(groups)))
                    power = ge2e_mel(chunk)[: per_chunk * WINDOW_FRAMES]
                    pending.extend(np.split(power, per_chunk))
                    if len(pending) >= _TEACHER_BATCH:
                        flush()
            step()
    if pending:
        flush()
    windows = np.concatenate(vectors).reshape(-1, per_chunk, SPEAKER_SIZE)
    return Targets(np.stack(mels), windows, np.asarray(group, np.int64))
