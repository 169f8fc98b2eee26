"""A live voice, opened: samples in as they come, samples out a fixed time later. No torch.

The voice file holds one step with explicit states (client/stream_export.py); a stream is its
states between two steps. The same stream in other chunks is the same speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chorister.client.voice import SourceStatistics, open_session, read_file
from chorister.client.voice_card import LIVE_FORMAT, LOOK_AHEAD_KEY, VoiceCard, read_card
from chorister.shared.errors import BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice.latency import Latency

_SPOKEN = ("converted", "spoken_hz")
_NEXT = "_next"


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one step gives.

    Attributes:
        samples: shape (160,), float32, 16 kHz.
        f0_hz: the pitch to speak with in the frame after them, 0 where unvoiced; a deep voice may
            begin in it all the same (`voicing.early_onsets`).
    """

    samples: FloatArray
    f0_hz: float


class LiveVoice:
    """A live voice, from which any number of streams can be started.

    Args:
        data: the content of a live voice file.
        name: what to call it in errors.
        threads: for onnxruntime.

    Attributes:
        card: where the file comes from.
        look_ahead_frames: of its model.

    Raises:
        BadWeights: no live voice, damaged, altered, or of a newer format.
    """

    card: VoiceCard
    look_ahead_frames: int

    def __init__(self, data: bytes, name: str, *, threads: int = 1) -> None:
        self.session = open_session(data, name, threads=threads)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.card = read_card(metadata, data, name, LIVE_FORMAT)
        look_ahead = metadata.get(LOOK_AHEAD_KEY, "")
        self.states = [o.name for o in self.session.get_outputs() if o.name.endswith(_NEXT)]
        if not look_ahead.isdecimal() or not self.states:
            raise BadWeights(
                "A live voice tells its look-ahead and has states.",
                f"{name} with look-ahead {look_ahead[:20]!r} and {len(self.states)} states",
                "Export it again.",
            )
        self.look_ahead_frames = int(look_ahead)

    def latency(self, chunk_frames: int) -> Latency:
        """The delay of a stream that is fed this many frames of 10 ms at once."""
        return Latency(self.look_ahead_frames, chunk_frames)


class LiveStream:
    """One stream through a live voice.

    Args:
        voice: to speak with.
        statistics: of the source speaker, from an enrolment or a calibration.
        pitch_st: semitones to move the pitch by.
    """

    def __init__(
        self, voice: LiveVoice, statistics: SourceStatistics, *, pitch_st: float = 0.0
    ) -> None:
        self._voice = voice
        self._constant: dict[str, NDArray[np.generic]] = {
            "source_mel_mean": statistics.mel_mean,
            "source_mel_std": statistics.mel_std,
            "source_log_f0": statistics.log_f0,
            "pitch_st": np.array(pitch_st, np.float32),
        }
        self._state: dict[str, NDArray[np.generic]] = {}

    def step(self, samples: FloatArray) -> Spoken:
        """Takes a hop of the source and gives a hop of speech, `shift_samples` later.

        Args:
            samples: shape (160,), float32, 16 kHz, finite.
        """
        feeds = {"wav": samples[None]} | self._constant | self._state
        outputs = [*_SPOKEN, *self._voice.states]
        speech, f0_hz, *after = self._voice.session.run(outputs, feeds)
        names = (name.removesuffix(_NEXT) for name in self._voice.states)
        self._state = dict(zip(names, after, strict=True))
        return Spoken(speech[0], float(f0_hz[0]))

    def reset(self) -> None:
        """Forgets everything: the next step is a stream's first."""
        self._state = {}


def open_live_voice(path: Path, *, threads: int = 1) -> LiveVoice:
    """Opens a live voice file.

    Raises:
        BadWeights: missing or unreadable file, or as `LiveVoice`.
    """
    return LiveVoice(read_file(path), path.name, threads=threads)
