"""A voice file, opened: numpy in, numpy out, onnxruntime between.

This module and what it imports need no torch, so a device that only converts installs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from chorister.client.controls import NEUTRAL, Controls
from chorister.client.voice_card import VoiceCard, read_card
from chorister.shared.errors import BadWeights
from chorister.shared.types import FloatArray

_ERRORS_ONLY = 3
_UNREADABLE = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)
_INPUTS = {
    "wav", "source_mel_mean", "source_mel_std", "source_log_f0", "pitch_st", "formant",
    "intonation", "breathiness", "rate", "frame_offset", "position", "phase_frame", "phase_cycles",
}  # fmt: skip
_OUTPUTS = ["converted", "f0_hz", "cycles", "used_mel_mean", "used_mel_std", "used_log_f0"]


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What the conversion knows of the source speaker.

    Attributes:
        mel_mean: shape (80,), float32.
        mel_std: shape (80,), float32.
        log_f0: shape (2,), float64, median and spread of the logarithm of F0 in Hz.
    """

    mel_mean: FloatArray
    mel_std: FloatArray
    log_f0: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Converted:
    """What one run of a voice gives.

    Attributes:
        samples: shape (T',), float32, 16 kHz; T' is T over the rate.
        f0_hz: shape (F',), the pitch spoken with, 0 where unvoiced; F' is T' / 160, rounded up.
        cycles: shape (F',), float64, the pulses' phase at the end of each frame.
        statistics: the source's, as they were used.
    """

    samples: FloatArray
    f0_hz: FloatArray
    cycles: NDArray[np.float64]
    statistics: SourceStatistics


class Voice:
    """A voice ready to speak with.

    Args:
        data: the content of a voice file.
        name: what to call it in errors.
        threads: for onnxruntime; the result is the same, at any number, to float32 rounding.

    Raises:
        BadWeights: no voice file, damaged, altered, or of a newer format.
    """

    card: VoiceCard

    def __init__(self, data: bytes, name: str, *, threads: int = 1) -> None:
        self._session = open_session(data, name, threads=threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.card = read_card(metadata, data, name)
        given = {value.name for value in self._session.get_inputs()}
        given |= {value.name for value in self._session.get_overridable_initializers()}
        made = {value.name for value in self._session.get_outputs()}
        if lacking := sorted((_INPUTS - given) | (set(_OUTPUTS) - made)):
            raise BadWeights(
                "A voice file has the inputs and outputs that docs/onnx.md lists.",
                f"{name} without {', '.join(lacking)}",
                "Export it again.",
            )

    def run(
        self,
        samples: FloatArray,
        statistics: SourceStatistics | None = None,
        *,
        controls: Controls = NEUTRAL,
        frame_offset: float = 0.0,
        position: int = 0,
        phase_frame: int = 0,
        phase_cycles: float = 0.0,
    ) -> Converted:
        """Converts one stretch of speech at once.

        Args:
            samples: shape (T,), float32, 16 kHz, T at least 1.
            statistics: the source speaker's; None takes them from these samples.
            controls: all but the energy, which is no part of the voice.
            frame_offset: where in the samples the result begins, in frames of 160, at least 0.
            position: index of its first sample in a longer result; it chooses the noise.
            phase_frame: index of a frame of the result whose phase is known, 0 to F'.
            phase_cycles: the pulses' phase where that frame begins.
        """
        feeds: dict[str, NDArray[np.generic]] = {
            "wav": samples[None],
            "pitch_st": np.array(controls.pitch_st, np.float32),
            "formant": np.array(controls.formant, np.float32),
            "intonation": np.array(controls.intonation, np.float32),
            "breathiness": np.array(controls.breathiness, np.float32),
            "rate": np.array(controls.rate, np.float64),
            "frame_offset": np.array(frame_offset, np.float64),
            "position": np.array(position, np.int64),
            "phase_frame": np.array(phase_frame, np.int64),
            "phase_cycles": np.array(phase_cycles, np.float64),
        }
        if statistics is not None:
            feeds["source_mel_mean"] = statistics.mel_mean
            feeds["source_mel_std"] = statistics.mel_std
            feeds["source_log_f0"] = statistics.log_f0
        speech, f0_hz, cycles, *used = self._session.run(_OUTPUTS, feeds)
        return Converted(speech[0], f0_hz[0], cycles[0], SourceStatistics(*used))


def open_session(data: bytes, name: str, *, threads: int) -> onnxruntime.InferenceSession:
    """onnxruntime on a voice file of any kind.

    Args:
        data: its content.
        name: what to call it in errors.
        threads: for onnxruntime.

    Raises:
        BadWeights: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _UNREADABLE as error:
        raise BadWeights(
            "A voice is a file that `chorister` exported.",
            f"{name}, which onnxruntime cannot load ({_first_line(error)})",
            "Export it again, or copy it again from where it came.",
        ) from error


def open_voice(path: Path, *, threads: int = 1) -> Voice:
    """Opens a voice file.

    Args:
        path: a voice.onnx.
        threads: for onnxruntime.

    Raises:
        BadWeights: missing or unreadable file, or as `Voice`.
    """
    return Voice(read_file(path), path.name, threads=threads)


def read_file(path: Path) -> bytes:
    """The content of a voice file of any kind.

    Raises:
        BadWeights: missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadWeights(
            "The voice file must exist and be readable.",
            f"{path}, {error.strerror or error}",
            "Check the path; `chorister personalise` writes one.",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
