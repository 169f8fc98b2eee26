"""How different the voices of a corpus are: a federation of look-alikes would show nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.shared.console import progress
from chorister.shared.errors import BadCorpus
from chorister.shared.types import FloatArray, Recording
from chorister.simulations.speakers import Piece, Skipped, Speaker

UTTERANCES = 12

Embed = Callable[[Recording], FloatArray]


@dataclass(frozen=True, slots=True)
class Separation:
    """Cosines between single utterances and the centroids of other utterances.

    Attributes:
        same: mean cosine with the own voice's centroid.
        different: mean cosine with the other voices' centroids.
        identified: share of utterances whose nearest centroid is their own.
        closest: the two voices whose centroids are most alike, and their cosine.
        speakers: how many were compared.
        utterances: how many were identified.
    """

    same: float
    different: float
    identified: float
    closest: tuple[str, str, float]
    speakers: int
    utterances: int


def shipped_embed() -> Embed:
    """Return the shipped speaker encoder as a function of a recording.

    Raises:
        BadWeights: its file is missing or not the one of this version.
    """
    from chorister.shared.voice.features import log_mel
    from chorister.shared.voice.speaker import load_speaker_encoder

    encoder = load_speaker_encoder()
    return lambda recording: encoder.embed(log_mel(recording.samples))


def measure_separation(speakers: Sequence[Speaker], embed: Embed) -> Separation:
    """Compare voices by a speaker encoder.

    Of each speaker at most 12 recordings are read; every second one makes the centroid, the others
    are compared with all centroids. Speakers with fewer than two usable recordings are left out.

    Args:
        speakers: two or more.
        embed: a recording to a unit vector of any size.

    Raises:
        BadCorpus: fewer than two speakers have two usable recordings.
    """
    names: list[str] = []
    centroids: list[FloatArray] = []
    probes: list[NDArray[np.float32]] = []
    with progress("Comparing voices", len(speakers)) as step:
        for speaker in speakers:
            pieces = [Piece(utterance) for utterance in speaker.utterances[:UTTERANCES]]
            vectors = np.stack([embed(one) for one in speaker.read_all(pieces, Skipped())])
            if len(vectors) >= 2:
                names.append(speaker.name)
                centroids.append(_unit(vectors[::2].mean(axis=0)))
                probes.append(vectors[1::2])
            step()
    if len(names) < 2:
        raise BadCorpus(
            "Voices are compared between two speakers with two recordings each.",
            f"{len(names)} such speaker(s)",
            "Name a corpus with more recordings for each speaker.",
        )
    centre = np.stack(centroids)
    owner = np.repeat(np.arange(len(names)), [len(rows) for rows in probes])
    cosine = np.concatenate(probes) @ centre.T
    own = owner[:, None] == np.arange(len(names))
    between = centre @ centre.T - 2.0 * np.eye(len(names), dtype=np.float32)
    first, second = np.unravel_index(int(between.argmax()), between.shape)
    return Separation(
        same=float(cosine[own].mean()),
        different=float(cosine[~own].mean()),
        identified=float((cosine.argmax(axis=1) == owner).mean()),
        closest=(names[first], names[second], float(between[first, second])),
        speakers=len(names),
        utterances=len(owner),
    )


def _unit(vector: FloatArray) -> FloatArray:
    unit: FloatArray = vector / np.linalg.norm(vector)
    return unit
