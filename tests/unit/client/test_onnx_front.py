"""Each part of the graph before the network against its numpy twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from chorister.client.hiss import add_hiss
from chorister.client.onnx_front import add_log_mel, add_mel_statistics, add_pitch_statistics
from chorister.client.onnx_graph import Graph
from chorister.client.onnx_pitch import add_f0
from chorister.shared.types import FloatArray
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.hiss import hiss_at
from chorister.shared.voice.profile import SpeakerProfile, speech_frames

RATE = 16_000
Speech = Callable[[float, int], FloatArray]
Adds = Callable[[Graph, str], str]


def run(add: Adds, value: NDArray[np.generic], made: type = np.float32) -> NDArray[np.generic]:
    graph = Graph("part")
    name = graph.input("x", value.dtype.type, [None] * value.ndim)
    graph.output(add(graph, name), "y", made, [None])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = graph.model({}).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: NDArray[np.generic] = session.run(None, {"x": value})[0]
    return found


def signals(speech: Speech) -> dict[str, FloatArray]:
    rng = np.random.default_rng(1)
    t = np.arange(RATE) / RATE
    sweep = np.sin(2 * np.pi * (70 * t + 180 * t**2))
    return {
        "speech": speech(3.0, 1),
        "noise": rng.normal(0, 0.1, RATE).astype(np.float32),
        "silence": np.zeros(RATE, np.float32),
        "sweep": (0.3 * sweep).astype(np.float32),
        "two frames": speech(1.0, 2)[3200:3520],
        "very quiet": speech(1.0, 3) * np.float32(1e-3),
        "with an offset": speech(1.0, 4) + np.float32(0.2),
    }


@pytest.mark.parametrize("name", list(signals(lambda s, _: np.zeros(round(s * RATE), np.float32))))
def test_f0_is_the_one_of_numpy(name: str, speech: Speech) -> None:
    samples = signals(speech)[name]
    wanted = estimate_f0(samples)
    found = run(add_f0, samples)
    np.testing.assert_array_equal(found > 0, wanted > 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["speech", "noise", "silence", "very quiet"])
def test_log_mel_is_the_one_of_numpy(name: str, speech: Speech) -> None:
    samples = signals(speech)[name]
    found, wanted = np.exp(run(add_log_mel, samples)), np.exp(log_mel(samples))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_statistics_are_those_of_an_enrolment(speech: Speech, target: SpeakerProfile) -> None:
    samples = np.concatenate([speech(3.0, 1), np.zeros(RATE, np.float32)])
    mel = log_mel(samples)
    frames = speech_frames(mel)
    assert 0 < len(frames) < len(mel)
    mean = run(lambda graph, x: add_mel_statistics(graph, x)[0], mel)
    std = run(lambda graph, x: add_mel_statistics(graph, x)[1], mel)
    np.testing.assert_allclose(mean, frames.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(std, frames.std(axis=0), atol=1e-5)
    f0_hz = estimate_f0(samples)
    log_f0 = np.log(f0_hz[f0_hz > 0].astype(np.float64))
    low, median, high = np.percentile(log_f0, [25, 50, 75])
    found = run(lambda graph, x: add_pitch_statistics(graph, x, target), f0_hz, np.float64)
    np.testing.assert_allclose(found, [median, (high - low) / 1.349], rtol=1e-12)


def test_without_voiced_frames_the_pitch_is_left_alone(target: SpeakerProfile) -> None:
    unvoiced = np.zeros(50, np.float32)
    found = run(lambda graph, x: add_pitch_statistics(graph, x, target), unvoiced, np.float64)
    np.testing.assert_array_equal(found, [target.log_f0_median, target.log_f0_spread])


@pytest.mark.parametrize("position", [0, 1, 16_000 * 3600 * 10, 2**40])
def test_hiss_is_the_one_of_numpy(position: int) -> None:
    def add(graph: Graph, x: str) -> str:
        return add_hiss(graph, x, graph.constant(np.array(4000, np.int64)))

    found = run(add, np.array(position, np.int64))
    np.testing.assert_array_equal(found, hiss_at(position, 4000))
