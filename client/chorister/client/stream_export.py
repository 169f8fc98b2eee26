"""A streaming model to one ONNX file: one step on a stream, every state an input and an output.

A step takes 160 samples and gives as many, `Latency.shift_samples` later. States have zeros as
defaults, so the first step is fed none; each comes out as NAME_next (docs/streaming.md has them).
Everything has a fixed shape: a runtime then spends its time on the numbers.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chorister.client.consent import Permit, Purpose
from chorister.client.export import Origin, personal_sha256, traced
from chorister.client.hiss import add_hiss
from chorister.client.onnx_front import add_moved_pitch, add_window_log_mel
from chorister.client.onnx_graph import Graph
from chorister.client.onnx_pitch import (
    SHARED_BLOCKS,
    add_cheapest,
    add_costs,
    add_forward_step,
    add_hop_squares,
    add_normalised,
    add_refined,
)
from chorister.client.voice_card import LIVE_FORMAT, LOOK_AHEAD_KEY, VoiceCard, seal_digest
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.types import MEL_BANDS
from chorister.shared.voice import f0
from chorister.shared.voice.adapters import describe_personal, describe_shared
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.latency import F0_REACH_SAMPLES, MEL_REACH_SAMPLES, Latency
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.stream import StreamNetwork, StreamState

_STATE = tuple(StreamState.__slots__)
_NETWORK = "live_network"


def build_live_voice(
    model: VoiceModel, target: SpeakerProfile, permit: Permit, origin: Origin, *, now_s: int
) -> bytes:
    """The live voice's content, to be kept in memory or in the vault.

    Args:
        model: a streaming model with its adapters attached; it is not changed.
        target: the speaker whose voice it shall be.
        permit: for 'conversion'.
        origin: digests and pseudonym.
        now_s: Unix time.

    Returns:
        the file: the same bytes for the same model, target, permit and versions.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
        BadWeights: the model is no streaming model.
    """
    return _build(model, target, permit, "conversion", origin, now_s)


def export_live_voice(
    model: VoiceModel,
    target: SpeakerProfile,
    permit: Permit,
    origin: Origin,
    path: Path,
    *,
    now_s: int,
) -> str:
    """Writes the live voice as a plain file, which cannot be recalled.

    Args:
        model: a streaming model with its adapters attached; it is not changed.
        target: the speaker whose voice it shall be.
        permit: for 'plain_export'.
        origin: digests and pseudonym.
        path: where to; replaced if it exists.
        now_s: Unix time.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
        BadWeights: the model is no streaming model.
        UsageError: the file cannot be written.
    """
    data = _build(model, target, permit, "plain_export", origin, now_s)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(
            "The voice file must be writable.",
            f"{path}: {error.strerror or error}",
            "Create the folder, free some space or choose another place.",
        ) from error
    return hashlib.sha256(data).hexdigest()


def _build(
    model: VoiceModel,
    target: SpeakerProfile,
    permit: Permit,
    purpose: Purpose,
    origin: Origin,
    now_s: int,
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
    network = _Step(model, target)
    graph = _step_graph(network, target)
    look_ahead = {LOOK_AHEAD_KEY: str(network.look_ahead_frames)}
    file = graph.model(card.to_metadata(LIVE_FORMAT) | look_ahead)
    return seal_digest(file.SerializeToString(deterministic=True))


def _step_graph(network: _Step, target: SpeakerProfile) -> Graph:
    """The whole graph, from `wav` to `converted`."""
    latency = Latency(network.look_ahead_frames, 1)
    graph = Graph("live")
    wav = graph.input("wav", np.float32, [1, HOP_SAMPLES])
    mel_mean = graph.input("source_mel_mean", np.float32, [MEL_BANDS])
    mel_std = graph.input("source_mel_std", np.float32, [MEL_BANDS])
    log_f0 = graph.input("source_log_f0", np.float64, [2])
    pitch_st = graph.input("pitch_st", np.float32, [], np.zeros(()))
    intonation = graph.input("intonation", np.float32, [], np.ones(()))
    frame = graph.input("frame", np.int64, [1], np.array([-latency.look_ahead_frames]))
    graph.output(graph("Add", frame, graph.ints(1)), "frame_next", np.int64, [1])

    mel_window, f0_samples = _samples(graph, wav, latency)
    log_mel = add_window_log_mel(graph, mel_window)
    decided = _add_f0(graph, f0_samples, frame, latency)
    moved = add_moved_pitch(graph, decided, log_f0, target, pitch_st, intonation)
    graph.output(moved, "spoken_hz", np.float32, [1])
    before = _remembered(graph, "f0_hz", moved, np.zeros(1, np.float32))

    first = graph.ints(0)
    feeds = {"frame": frame}
    rows = {"log_mel": log_mel, "mel_mean": mel_mean, "mel_std": mel_std}
    rows["f0_hz"] = graph("Concat", before, moved, axis=0)
    rows["fresh_hiss"] = _add_hiss(graph, frame)
    for name, row in rows.items():
        feeds[name] = graph("Unsqueeze", row, first)
    start = network.network.start()
    for name in _STATE:
        value = getattr(start, name).numpy()
        feeds[name] = graph.input(name, value.dtype.type, value.shape, value)
    speech, *after = graph.include(_network_model(network), feeds, _NETWORK)
    graph.output(speech, "converted", np.float32, [1, HOP_SAMPLES])
    for name, value in zip(_STATE, after, strict=True):
        initial = getattr(start, name).numpy()
        graph.output(value, f"{name}_next", initial.dtype.type, initial.shape)
    return graph


def _remembered(graph: Graph, name: str, value: str, start: NDArray[Any]) -> str:
    """What `value` was in the step before, `start` in the first one."""
    graph.output(value, f"{name}_next", start.dtype.type, start.shape)
    return graph.input(name, start.dtype.type, start.shape, start)


def _queue(graph: Graph, name: str, fresh: str, start: NDArray[Any], axis: int) -> str:
    """What was remembered, and the fresh part behind it; as much is remembered again."""
    kept = start.shape[axis]
    past = graph.input(name, start.dtype.type, start.shape, start)
    joined = graph("Concat", past, fresh, axis=axis)
    newest = graph.part(joined, -kept, np.iinfo(np.int64).max, axis)
    graph.output(newest, f"{name}_next", start.dtype.type, start.shape)
    return joined


def _samples(graph: Graph, wav: str, latency: Latency) -> tuple[str, str]:
    """What is analysed now, of the remembered and the new samples.

    Shape (1, 160) to the window of a mel frame, (400,), and the newest hop of a frame of F0 with
    what its lags reach, (420,).
    """
    # Both begin so many samples before the end of the new ones.
    end = HOP_SAMPLES + latency.wait_samples
    mel = end - latency.look_ahead_frames * HOP_SAMPLES + MEL_REACH_SAMPLES
    f0_frames = latency.f0_delay_frames + 1
    # Of a frame's 512 samples all but the last 160 were compared for the frames before it.
    pitch = end - f0_frames * HOP_SAMPLES + F0_REACH_SAMPLES - (f0.SPAN_SAMPLES - HOP_SAMPLES)
    kept = max(mel, pitch) - HOP_SAMPLES
    fresh = graph("Squeeze", wav, graph.ints(0))
    joined = _queue(graph, "samples", fresh, np.zeros(kept, np.float32), 0)
    total = kept + HOP_SAMPLES
    window, hop = (
        graph.part(joined, total - begins, total - begins + length, 0)
        for begins, length in (
            (mel, HOP_SAMPLES + 2 * MEL_REACH_SAMPLES),
            (pitch, HOP_SAMPLES + f0.LONGEST_LAG),
        )
    )
    return window, hop


def _add_f0(graph: Graph, samples: str, frame: str, latency: Latency) -> str:
    """F0 of the frame after `frame`, decided `f0_delay_frames` later.

    Args:
        graph: changed in place.
        samples: value of shape (420,), the newest of the frame that is analysed now.
        frame: value of shape (1,), int64, index of the frame that is spoken now.
        latency: of the stream.

    Returns:
        value of shape (1,), float32, Hz, 0 where unvoiced.
    """
    delay = latency.f0_delay_frames
    shared = np.zeros((f0.LONGEST_LAG, SHARED_BLOCKS), np.float32)
    squares = _queue(graph, "f0_squares", add_hop_squares(graph, samples), shared, 1)
    difference = add_normalised(graph, squares)
    cost = graph("Squeeze", add_costs(graph, difference), graph.ints(0))
    # A frame before the stream's first changes nothing.
    analysed = graph("Add", frame, graph.ints(delay + 1))
    begun = graph.cast(graph("GreaterOrEqual", analysed, graph.ints(0)), np.float32)
    start = np.zeros(f0.STATES, np.float32)
    costs = [
        graph.input(name, np.float32, value.shape, value)
        for name, value in (("f0_voiced", start), ("f0_unvoiced", start[:1]))
    ]
    voiced, unvoiced, came_from = add_forward_step(graph, costs[0], costs[1], cost)
    voiced, unvoiced = graph("Mul", voiced, begun), graph("Mul", unvoiced, begun)
    graph.output(voiced, "f0_voiced_next", np.float32, [f0.STATES])
    graph.output(unvoiced, "f0_unvoiced_next", np.float32, [1])

    states = np.zeros((delay, f0.STATES + 1), np.int64)
    row = graph("Unsqueeze", came_from, graph.ints(0))
    pointers = _queue(graph, "f0_came_from", row, states, 0)
    path = add_cheapest(graph, voiced, unvoiced)
    for back in range(delay):
        row = graph("Squeeze", graph.part(pointers, delay - back, delay - back + 1, 0),
                    graph.ints(0))  # fmt: skip
        path = graph("Gather", row, path)
    lags = np.zeros((delay, f0.LONGEST_LAG + 1), np.float32)
    seen = _queue(graph, "f0_difference", difference, lags, 0)
    found = add_refined(graph, graph.part(seen, 0, 1, 0), path)
    known = graph("GreaterOrEqual", graph("Add", frame, graph.ints(1)), graph.ints(0))
    return graph("Where", known, found, graph.number(0.0))


def _add_hiss(graph: Graph, frame: str) -> str:
    """Noise from the centre of a frame to that of the next, 0 before the stream: (160,)."""
    first = graph("Mul", frame, graph.ints(HOP_SAMPLES))
    first = graph("Add", first, graph.ints(HOP_SAMPLES // 2))
    hop = graph.constant(np.array(HOP_SAMPLES, np.int64))
    hiss = add_hiss(graph, graph("Squeeze", first, graph.ints(0)), hop)
    place = graph("Add", first, graph.constant(np.arange(HOP_SAMPLES)))
    heard = graph("GreaterOrEqual", place, graph.ints(0))
    return graph("Where", heard, hiss, graph.number(0.0))


class _Step(nn.Module):
    """`StreamNetwork` with the state as single tensors, as the exporter needs them."""

    def __init__(self, model: VoiceModel, target: SpeakerProfile) -> None:
        super().__init__()
        own = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        self.network = StreamNetwork(own, target, as_products=True)
        self.look_ahead_frames = self.network.look_ahead_frames

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """`StreamNetwork.forward` with the state's tensors one by one."""
        given = len(values) - len(_STATE)
        speech, after = self.network(*values[:given], StreamState(*values[given:]))
        return (speech, *(getattr(after, name) for name in _STATE))


def _network_model(network: _Step) -> onnx.ModelProto:
    start = network.network.start()
    example = {
        "log_mel": torch.zeros(1, 1, MEL_BANDS),
        "f0_hz": torch.full((1, 2), 150.0),
        "fresh_hiss": torch.zeros(1, HOP_SAMPLES),
        "mel_mean": torch.zeros(1, MEL_BANDS),
        "mel_std": torch.ones(1, MEL_BANDS),
        "frame": torch.zeros(1, dtype=torch.int64),
    }
    example |= {name: getattr(start, name) for name in _STATE}
    outputs = ["speech", *(f"{name}_next" for name in _STATE)]
    return traced(network, example, outputs, ())
