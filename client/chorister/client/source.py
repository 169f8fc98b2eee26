"""The speaker who is converted, as the vault knows them: statistics of their enrolment.

The model hears speech relative to its speaker's usual spectrum and pitch. Who enrolled, or made a
voice, need not be calibrated: the vault keeps those statistics, as recorded, with their loudness.
They are a use of the voice: its consent is asked, and the ledger says so.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chorister.client import home as homes
from chorister.client.home import SOURCE, Home
from chorister.client.sealed import is_sealed, read_head
from chorister.client.voice import SourceStatistics
from chorister.shared.errors import BadWeights, ConsentRefused, UsageError
from chorister.shared.types import MEL_BANDS, Recording
from chorister.shared.voice.loudness import loudness_lufs
from chorister.shared.voice.profile import SpeakerProfile

_SHAPES = {"mel_mean": (MEL_BANDS,), "mel_std": (MEL_BANDS,), "log_f0": (2,), "lufs": (1,)}
_NEPERS_A_DB = math.log(10.0) / 20.0


@dataclass(frozen=True, slots=True, repr=False)
class KnownSource:
    """An enrolled speaker as a source.

    Attributes:
        statistics: of the enrolment as it was recorded.
        lufs: its loudness (median of its recordings).
    """

    statistics: SourceStatistics
    lufs: float

    def __repr__(self) -> str:
        return "KnownSource()"

    def at(self, lufs: float) -> SourceStatistics:
        """The statistics for speech of another loudness, as from another distance or gain.

        Args:
            lufs: of the speech; minus infinity, where it cannot be measured, changes nothing.
        """
        known = self.statistics
        if not math.isfinite(lufs):
            return known
        shift = np.float32(_NEPERS_A_DB * (lufs - self.lufs))
        return SourceStatistics(known.mel_mean + shift, known.mel_std, known.log_f0)

    def to_bytes(self) -> bytes:
        """As safetensors, for the vault."""
        known = self.statistics
        arrays: dict[str, NDArray[Any]] = {
            "mel_mean": np.ascontiguousarray(known.mel_mean, np.float32),
            "mel_std": np.ascontiguousarray(known.mel_std, np.float32),
            "log_f0": np.ascontiguousarray(known.log_f0, np.float64),
            "lufs": np.array([self.lufs]),
        }
        return bytes(save(arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> KnownSource:
        """Read what `to_bytes` wrote.

        Raises:
            BadWeights: something else, or values that are not finite.
        """
        try:
            arrays = load(data)
        except SafetensorError as error:
            raise _bad(str(error)) from error
        if {name: array.shape for name, array in arrays.items()} != _SHAPES:
            raise _bad(", ".join(sorted(arrays)))
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise _bad("a value that is not finite")
        statistics = SourceStatistics(
            arrays["mel_mean"].astype(np.float32),
            arrays["mel_std"].astype(np.float32),
            arrays["log_f0"].astype(np.float64),
        )
        return cls(statistics, float(arrays["lufs"][0]))


def known_source(
    profile: SpeakerProfile, recordings: Sequence[Recording], gain: float
) -> KnownSource:
    """What is kept of a speaker as a source.

    Args:
        profile: of the recordings after the gain.
        recordings: as they were recorded, some of them audible.
        gain: linear, above 0, that they were levelled by.
    """
    levels = [loudness_lufs(recording.samples) for recording in recordings]
    statistics = SourceStatistics(
        (profile.mel_mean - np.float32(math.log(gain))).astype(np.float32),
        profile.mel_std,
        np.array([profile.log_f0_median, profile.log_f0_spread]),
    )
    return KnownSource(statistics, float(np.median([one for one in levels if math.isfinite(one)])))


def keep_source(home: Home, source: KnownSource) -> None:
    """Store a speaker's statistics as a source in their vault."""
    home.vault.put(SOURCE, source.to_bytes(), "features")


def read_source(home: Home) -> KnownSource:
    """Return the statistics that a vault keeps, with its owner's consent to a conversion.

    Raises:
        ConsentRefused: the consent does not cover it.
        UsageError: there are none.
    """
    home.permit("conversion")
    if not home.vault.has(SOURCE):
        raise UsageError(
            "A known source has enrolled, or made a voice.",
            f"no statistics in the vault {home.folder}",
            "Run `chorister enrol` or `chorister personalise` once more, or leave this out.",
        )
    return KnownSource.from_bytes(home.vault.get(SOURCE))


def open_source(path: Path, options: argparse.Namespace) -> tuple[KnownSource, Home]:
    """Return the speaker whom a command names as the source, and their home.

    Args:
        path: a vault, or a sealed voice of the vault that the options name.
        options: of a command with `home.add_vault_options`.

    Raises:
        ConsentRefused: the consent does not cover it, or the voice is another vault's.
        UsageError: neither a vault nor a sealed voice, or a vault without statistics.
        VaultError: the vault cannot be opened.
    """
    if path.is_dir():
        home = homes.open_from(argparse.Namespace(**vars(options) | {"vault": path}))
        return read_source(home), home
    if not is_sealed(path):
        raise UsageError(
            "A source is named by a vault's folder or by a sealed voice of their own.",
            str(path),
            "A plain file does not say how its speaker sounds as a source: leave it out, and the "
            "first two seconds of speech are listened to instead.",
        )
    home = homes.open_from(options)
    owner = read_head(path).vault
    if owner != home.vault.id:
        reason = f"a voice of the vault {owner}, not of {home.vault.id}"
        home.ledger.append("refusal", purpose="conversion", reason=reason)
        raise ConsentRefused(
            "A voice's statistics are in its own vault.", reason, "Name its vault with --vault."
        )
    return read_source(home), home


def _bad(found: str) -> BadWeights:
    return BadWeights(
        "A source's statistics are spectrum, pitch and loudness, all finite.",
        found[:200],
        "Run `chorister enrol` or `chorister personalise` once more.",
    )
