"""Voice model to one ONNX file: waveform in, waveform in the target's voice out.

The target is part of the file; the source's statistics are inputs that may be left out, and are
then taken from the waveform itself (docs/onnx.md lists inputs and outputs). No operator in it is
newer than opset 18, none is an FFT, and nothing in it is random.
"""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from chorister.client.consent import Permit, Purpose
from chorister.client.hiss import add_hiss
from chorister.client.onnx_controls import (
    add_at_times,
    add_breathiness,
    add_formant_warp,
    add_pitch_at_times,
    add_time_map,
)
from chorister.client.onnx_dft import add_dft, add_inverse_dft
from chorister.client.onnx_front import (
    add_early_onsets,
    add_given_or,
    add_log_mel,
    add_mel_statistics,
    add_moved_pitch,
    add_pitch_statistics,
)
from chorister.client.onnx_graph import OPSET, Graph
from chorister.client.onnx_pitch import add_f0
from chorister.client.precision import NETWORK, Precision, with_precision
from chorister.client.voice_card import VoiceCard, seal_digest
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.types import MEL_BANDS
from chorister.shared.voice.adapters import describe_personal, describe_shared, read_personal
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.model import VoiceModel, heard_envelopes
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.recall import foreignness
from chorister.shared.voice.vocoder import GRAIN_SAMPLES, Vocoder

_VOCODER = "vocoder"
_EXAMPLE_FRAMES = 32
_NETWORK_INPUTS = ("log_mel", "f0_hz", "mel_mean", "mel_std")
_VOCODER_INPUTS = ("f0_hz", "hiss", "phase_frame", "phase_cycles")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a voice was made from, for its metadata.

    Attributes:
        base_sha256: digest of the base model's weights.
        shared_adapter_sha256: digest of the shared adapter, '' for none.
        target: pseudonym of the speaker; no name.
    """

    base_sha256: str
    shared_adapter_sha256: str
    target: str


def build_voice(
    model: VoiceModel,
    target: SpeakerProfile,
    permit: Permit,
    origin: Origin,
    *,
    now_s: int,
    precision: Precision = "fp32",
) -> bytes:
    """The voice file's content, to be kept in memory or in the vault.

    Args:
        model: the base with its adapters attached; it is not changed.
        target: the speaker whose voice it shall be.
        permit: for 'conversion'.
        origin: digests and pseudonym.
        now_s: Unix time.
        precision: in which its weights are stored.

    Returns:
        the file: the same bytes for the same model, target, permit and versions.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
    """
    return _build(model, target, permit, "conversion", origin, now_s, precision)


def export_voice(
    model: VoiceModel,
    target: SpeakerProfile,
    permit: Permit,
    origin: Origin,
    path: Path,
    *,
    now_s: int,
    precision: Precision = "fp32",
) -> str:
    """Writes the voice as a plain file. Whoever has a copy can use it: it cannot be recalled.

    Args:
        model: the base with its adapters attached; it is not changed.
        target: the speaker whose voice it shall be.
        permit: for 'plain_export'.
        origin: digests and pseudonym.
        path: where to; replaced if it exists.
        now_s: Unix time.
        precision: in which its weights are stored.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
        UsageError: the file cannot be written.
    """
    permit.require("plain_export", now_s)
    if not path.parent.is_dir():
        raise _unwritable(path, "no such folder")
    data = _build(model, target, permit, "plain_export", origin, now_s, precision)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return hashlib.sha256(data).hexdigest()


def _unwritable(path: Path, why: str) -> UsageError:
    return UsageError(
        "The voice file must be writable.",
        f"{path}: {why}",
        "Create the folder, free some space or choose another place.",
    )


def _build(
    model: VoiceModel,
    target: SpeakerProfile,
    permit: Permit,
    purpose: Purpose,
    origin: Origin,
    now_s: int,
    precision: Precision,
) -> bytes:
    permit.require(purpose, now_s)
    card = VoiceCard(
        base_sha256=origin.base_sha256,
        shared_adapter_sha256=origin.shared_adapter_sha256,
        personal_adapter_sha256=personal_sha256(model),
        consent_sha256=permit.consent_sha256,
        purpose=purpose,
        target=origin.target,
        shared_adapter=describe_shared(model),
        personal_adapter=describe_personal(model),
    )
    graph = _voice_graph(model, target).model(card.to_metadata())
    return seal_digest(with_precision(graph, precision).SerializeToString(deterministic=True))


def _voice_graph(model: VoiceModel, target: SpeakerProfile) -> Graph:
    """The whole graph, from `wav` to `converted`."""
    graph = Graph("voice")
    wav = graph.input("wav", np.float32, [1, "T"])
    unknown = np.full(MEL_BANDS, np.nan)
    given_mean = graph.input("source_mel_mean", np.float32, [MEL_BANDS], unknown)
    given_std = graph.input("source_mel_std", np.float32, [MEL_BANDS], unknown)
    given_pitch = graph.input("source_log_f0", np.float64, [2], np.full(2, np.nan))
    pitch_st = graph.input("pitch_st", np.float32, [], np.zeros(()))
    intonation = graph.input("intonation", np.float32, [], np.ones(()))
    formant = graph.input("formant", np.float32, [], np.ones(()))
    breathiness = graph.input("breathiness", np.float32, [], np.zeros(()))
    rate = graph.input("rate", np.float64, [], np.ones(()))
    frame_offset = graph.input("frame_offset", np.float64, [], np.zeros(()))
    position = graph.input("position", np.int64, [], np.zeros(()))
    phase_frame = graph.input("phase_frame", np.int64, [], np.zeros(()))
    phase_cycles = graph.input("phase_cycles", np.float64, [], np.zeros(()))

    length = graph("Shape", wav, start=1, end=2)
    missing = graph("Mod", graph("Neg", length), graph.ints(HOP_SAMPLES))
    # The search for F0 is a loop over the frames after the first: there is always one.
    missing = graph("Max", missing, graph("Sub", graph.ints(2 * HOP_SAMPLES), length))
    samples = graph("Squeeze", wav, graph.ints(0))
    samples = graph("Pad", samples, graph("Concat", graph.ints(0), missing, axis=0))
    log_mel = add_log_mel(graph, samples)
    f0_hz = add_f0(graph, samples)
    mel_mean, mel_std = add_mel_statistics(graph, log_mel)
    mel_mean = add_given_or(graph, given_mean, mel_mean)
    mel_std = add_given_or(graph, given_std, mel_std)
    log_f0 = add_given_or(graph, given_pitch, add_pitch_statistics(graph, f0_hz, target))
    moved = add_moved_pitch(graph, f0_hz, log_f0, target, pitch_st, intonation)
    moved = add_early_onsets(graph, moved)

    rows = (log_mel, moved, mel_mean, mel_std)
    (envelopes,) = graph.include(
        _traced_network(model, target), _feeds(graph, _NETWORK_INPUTS, rows), NETWORK
    )
    at = add_time_map(graph, graph("Shape", f0_hz), length, rate, frame_offset)
    spoken_hz = add_pitch_at_times(graph, moved, at)
    envelopes = add_at_times(graph, envelopes, at)
    warp = add_formant_warp(graph, formant)
    harmonic, noise = (
        graph("MatMul", envelope, warp)
        for envelope in graph.several("Split", 2, envelopes, axis=2, num_outputs=2)
    )
    harmonic, noise = add_breathiness(graph, harmonic, noise, spoken_hz, breathiness)
    count = graph("Mul", graph("Squeeze", at.count, graph.ints(0)), graph.ints(HOP_SAMPLES))
    hiss = add_hiss(graph, position, graph("Squeeze", count, graph.ints(0)))
    rows = (spoken_hz, hiss, phase_frame, phase_cycles)
    feeds = _feeds(graph, _VOCODER_INPUTS, rows) | {"harmonic": harmonic, "noise": noise}
    module = _Vocoder()
    known = (
        (module.vocoder.forward_dft.numpy(), graph.cast(add_dft(graph, GRAIN_SAMPLES), np.float32)),
        (module.vocoder.inverse_dft.numpy(), add_inverse_dft(graph)),
    )
    speech, cycles = graph.include(_traced_vocoder(module), feeds, _VOCODER, known)
    speech = graph("Slice", speech, graph.ints(0), at.samples, graph.ints(1))
    graph.output(speech, "converted", np.float32, [1, "T'"])
    graph.output(feeds["f0_hz"], "f0_hz", np.float32, [1, "F'"])
    graph.output(cycles, "cycles", np.float64, [1, "F'"])
    graph.output(mel_mean, "used_mel_mean", np.float32, [MEL_BANDS])
    graph.output(mel_std, "used_mel_std", np.float32, [MEL_BANDS])
    graph.output(log_f0, "used_log_f0", np.float64, [2])
    return graph


def _feeds(graph: Graph, names: Sequence[str], rows: Sequence[str]) -> dict[str, str]:
    """A batch of one for each input."""
    first = graph.ints(0)
    return {name: graph("Unsqueeze", row, first) for name, row in zip(names, rows, strict=True)}


class _Network(nn.Module):
    """Encoder and decoder with the target's condition as a constant."""

    condition: Tensor
    sounds_content: Tensor
    sounds_log_mel: Tensor
    target_mel_mean: Tensor

    def __init__(self, model: VoiceModel, target: SpeakerProfile) -> None:
        super().__init__()
        own = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        rows = (target.vector, target.mel_mean, target.mel_std)
        vectors = (torch.from_numpy(np.array(row, np.float32))[None] for row in rows)
        self.register_buffer("condition", own.decoder.condition(*vectors))
        for name in ("sounds_content", "sounds_log_mel", "mel_mean"):
            value = torch.from_numpy(np.array(getattr(target, name), np.float32))
            self.register_buffer(name.replace("mel_mean", "target_mel_mean"), value[None])
        self.encoder = own.encoder
        self.decoder = own.decoder
        for block in own.decoder.blocks:
            block.film = _Constant(block.get_submodule("film")(self.condition))

    def forward(self, log_mel: Tensor, f0_hz: Tensor, mel_mean: Tensor, mel_std: Tensor) -> Tensor:
        """Both envelopes side by side, harmonic first, shape (1, F, 160)."""
        content = self.encoder(log_mel, mel_mean, mel_std)
        foreign = foreignness(mel_mean, self.target_mel_mean)
        content, recalled = self.decoder.recall(
            content, self.sounds_content, self.sounds_log_mel, foreign
        )
        harmonic, noise = self.decoder(content, f0_hz, self.condition, recalled)
        return torch.cat(heard_envelopes(self.decoder, harmonic, noise, f0_hz), dim=2)


class _Constant(nn.Module):
    """Stands for a layer whose input never changes."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _: Tensor) -> Tensor:
        return self.value


class _Vocoder(nn.Module):
    """The vocoder, told the pulses' phase at some frame."""

    def __init__(self) -> None:
        super().__init__()
        self.vocoder = Vocoder(as_products=True)

    def forward(
        self,
        harmonic: Tensor,
        noise: Tensor,
        f0_hz: Tensor,
        hiss: Tensor,
        phase_frame: Tensor,
        phase_cycles: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Speech, shape (1, F * 160), and the pulses' phase at the end of each frame, (1, F).

        The phase is `phase_cycles` where frame `phase_frame` begins, shape (1,) each.
        """
        _, cycles = self.vocoder.pulse_train.cycles(f0_hz)
        cycles = cycles.reshape(1, -1, HOP_SAMPLES)[:, :, -1]
        begins = nn.functional.pad(cycles, (1, 0))
        start_cycles = phase_cycles - begins[0].index_select(0, phase_frame)
        speech = self.vocoder(harmonic, noise, f0_hz, hiss, start_cycles)
        return speech, cycles + start_cycles


def _traced_network(model: VoiceModel, target: SpeakerProfile) -> onnx.ModelProto:
    frames = _EXAMPLE_FRAMES
    example = {
        "log_mel": torch.zeros(1, frames, MEL_BANDS),
        "f0_hz": torch.full((1, frames), 150.0),
        "mel_mean": torch.zeros(1, MEL_BANDS),
        "mel_std": torch.ones(1, MEL_BANDS),
    }
    return traced(_Network(model, target), example, ["envelopes"], ("log_mel", "f0_hz"))


def _traced_vocoder(module: _Vocoder) -> onnx.ModelProto:
    frames = _EXAMPLE_FRAMES
    example = {
        "harmonic": torch.zeros(1, frames, MEL_BANDS),
        "noise": torch.zeros(1, frames, MEL_BANDS),
        "f0_hz": torch.full((1, frames), 150.0),
        "hiss": torch.zeros(1, frames * HOP_SAMPLES),
        "phase_frame": torch.zeros(1, dtype=torch.int64),
        "phase_cycles": torch.zeros(1, dtype=torch.float64),
    }
    moving = ("harmonic", "noise", "f0_hz", "hiss")
    return traced(module, example, ["speech", "cycles"], moving)


def traced(
    module: nn.Module, example: Mapping[str, Tensor], outputs: list[str], moving: Sequence[str]
) -> onnx.ModelProto:
    """A module as ONNX; the inputs named in `moving` may have any number of frames."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter: in a twentieth of the newer one's time, and without its packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            written,  # type: ignore[arg-type]  # a buffer will do, whatever its annotation says
            input_names=list(example),
            output_names=outputs,
            dynamic_axes={name: {1: name} for name in moving},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(written.getvalue())


def personal_sha256(model: VoiceModel) -> str:
    """Digest of the attached personal adapter, '' where none is."""
    if model.decoder.condition.offset is None:
        return ""
    digest = hashlib.sha256(b"chorister/1 personal adapter\x00")
    for name, value in sorted(read_personal(model).items()):
        digest.update(name.encode() + b"\x00")
        digest.update(value.numpy().astype("<f4").tobytes())
    return digest.hexdigest()
