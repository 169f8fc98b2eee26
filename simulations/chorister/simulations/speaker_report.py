"""How well the speaker encoder tells voices apart, on speakers that it was never trained on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from chorister.shared.console import progress
from chorister.shared.types import FloatArray
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.metrics import equal_error_rate, unit_rows, voice_centroid
from chorister.shared.voice.speaker import WINDOW_FRAMES, SpeakerEncoder
from chorister.simulations.ge2e import Ge2e, find_ge2e_weights
from chorister.simulations.speaker_targets import list_recordings, read_librispeech_split

SPLITS = ("dev_test", "clients")
UTTERANCES = 24
MIN_S = 3.0
Similarity = NDArray[np.float64]


def _read_sexes(data: Path) -> dict[str, str]:
    with (data / "librispeech" / "speakers.csv").open(newline="") as file:
        return {row["speaker_id"]: row["sex"] for row in csv.DictReader(file)}


def _choose(data: Path) -> list[tuple[str, Path]]:
    """At most 24 recordings of 3 s or more of each speaker, spread over what there is."""
    speakers = [speaker for split in SPLITS for speaker in read_librispeech_split(data, split)]
    chosen: list[tuple[str, Path]] = []
    for speaker in speakers:
        usable = [
            item
            for item in list_recordings(data, [speaker])
            if soundfile.info(item[1]).duration >= MIN_S
        ]
        places = np.unique(np.linspace(0, len(usable) - 1, UTTERANCES).astype(int))
        chosen += [usable[int(place)] for place in places]
    return chosen


def trial_figures(
    vectors: Similarity, speakers: NDArray[np.str_], sexes: NDArray[np.str_]
) -> dict[str, float]:
    """Verification figures over all pairs of utterances.

    Args:
        vectors: shape (N, D), unit rows.
        speakers: shape (N,), each row's speaker.
        sexes: shape (N,), each row's sex.

    Returns:
        means of the cosine of one speaker and of two, equal error rates over all pairs and over
        pairs of one sex, and the cosine with the centroid of the own other utterances and with the
        centroids of the other speakers.
    """
    similarity = vectors @ vectors.T
    upper = np.triu(np.ones_like(similarity, bool), 1)
    same = speakers[:, None] == speakers[None, :]
    one_sex = sexes[:, None] == sexes[None, :]
    own: list[float] = []
    others: list[float] = []
    for row, speaker in enumerate(speakers):
        mine = speakers == speaker
        rest = mine & (np.arange(len(speakers)) != row)
        own.append(float(vectors[row] @ voice_centroid(vectors[rest])))
        others += [
            float(vectors[row] @ voice_centroid(vectors[speakers == other]))
            for other in np.unique(speakers[~mine])
        ]
    return {
        "pair_cosine_same": float(similarity[upper & same].mean()),
        "pair_cosine_different": float(similarity[upper & ~same].mean()),
        "centroid_cosine_same": float(np.mean(own)),
        "centroid_cosine_different": float(np.mean(others)),
        "eer": equal_error_rate(similarity[upper & same], similarity[upper & ~same]),
        "eer_one_sex": equal_error_rate(
            similarity[upper & same], similarity[upper & ~same & one_sex]
        ),
    }


def _middle(samples: FloatArray) -> FloatArray:
    size = WINDOW_FRAMES * HOP_SAMPLES
    start = max(0, (len(samples) - size) // 2)
    return samples[start : start + size]


def measure_encoder(encoder: SpeakerEncoder, data: Path) -> dict[str, Any]:
    """Verification figures of the encoder, and of its teacher where that is installed.

    Args:
        encoder: what to measure.
        data: folder that holds librispeech/ with splits.json.

    Returns:
        figures as plain values, for JSON.

    Raises:
        BadCorpus: the speakers of `dev_test` and `clients` are not there.
    """
    chosen = _choose(data)
    sex_of = _read_sexes(data)
    speakers = np.array([speaker for speaker, _ in chosen])
    sexes = np.array([sex_of.get(speaker, "?") for speaker, _ in chosen])
    weights = find_ge2e_weights()
    teacher = Ge2e(weights) if weights else None
    rows: dict[str, list[FloatArray]] = {"own": [], "own_1.6s": []}
    if teacher:
        rows |= {"teacher": [], "teacher_1.6s": []}
    with progress("Measuring", len(chosen)) as step:
        for _, path in chosen:
            samples, _ = soundfile.read(path, dtype="float32")
            middle = _middle(samples)
            rows["own"].append(encoder.embed(log_mel(samples)))
            rows["own_1.6s"].append(encoder.embed(log_mel(middle)))
            if teacher:
                rows["teacher"].append(teacher.embed(samples))
                rows["teacher_1.6s"].append(teacher.embed(middle))
            step()
    vectors = {name: unit_rows(np.stack(found)) for name, found in rows.items()}
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "speakers": len(set(speakers)),
        "utterances": len(chosen),
        "systems": {name: trial_figures(rows, speakers, sexes) for name, rows in vectors.items()},
    }
    if teacher:
        pairs = np.triu_indices(len(chosen), 1)
        own, taught = vectors["own"], vectors["teacher"]
        figures["cosine_with_teacher"] = float((own * taught).sum(1).mean())
        figures["correlation_with_teacher"] = float(
            np.corrcoef((own @ own.T)[pairs], (taught @ taught.T)[pairs])[0, 1]
        )
    return figures


def format_report(figures: dict[str, Any]) -> str:
    """Return the figures as a Markdown table with one line below."""
    lines = [
        f"{figures['utterances']} recordings of {figures['speakers']} speakers"
        f" ({' and '.join(SPLITS)}); {figures['parameters']} parameters",
        "",
        "| encoder | same, pair | different, pair | same, centroid | different, centroid |"
        " EER | EER, one sex |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["systems"].items():
        cells = " | ".join(
            [f"{value:.3f}" for value in list(row.values())[:4]]
            + [f"{100 * row['eer']:.1f} %", f"{100 * row['eer_one_sex']:.1f} %"]
        )
        lines.append(f"| {name} | {cells} |")
    if "cosine_with_teacher" in figures:
        lines += [
            "",
            f"Mean cosine with the teacher's vector {figures['cosine_with_teacher']:.3f};"
            f" correlation of the pair cosines {figures['correlation_with_teacher']:.3f}.",
        ]
    return "\n".join(lines)
