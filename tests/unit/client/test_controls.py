"""Controls: what is refused, what neutral means, and that each does what it says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from chorister.client.controls import LIMITS, NEUTRAL, Controls
from chorister.client.onnx_controls import (
    TimeMap,
    add_at_times,
    add_breathiness,
    add_formant_warp,
    add_pitch_at_times,
    add_time_map,
)
from chorister.client.onnx_graph import Graph
from chorister.client.voice import Voice
from chorister.shared.errors import UsageError
from chorister.shared.types import FloatArray
from chorister.shared.voice.features import mel_edges_hz

Speech = Callable[[float, int], FloatArray]
NAMES = [field.name for field in fields(Controls)]
FRAMES = 40


@pytest.fixture(scope="module")
def voice(voice_path: Path) -> Voice:
    return Voice(voice_path.read_bytes(), "v")


def values(graph: Graph, wanted: dict[str, type]) -> list[NDArray[np.generic]]:
    """What a graph without inputs computes."""
    for number, (name, kind) in enumerate(wanted.items()):
        graph.output(name, f"out{number}", kind, [None])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = graph.model({}).SerializeToString()
    found: list[NDArray[np.generic]] = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    ).run(None, {})
    return found


def time_map(graph: Graph, frames: int, rate: float, offset: float = 0.0) -> TimeMap:
    length = graph.ints(frames * 160 - 7)
    return add_time_map(graph, graph.ints(frames), length, graph.double(rate), graph.double(offset))


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_range_around_its_neutral_value(name: str) -> None:
    limits = LIMITS[name]
    assert limits.low < getattr(NEUTRAL, name) == limits.neutral < limits.high
    for value in (limits.low, limits.high):
        assert getattr(Controls(**{name: value}), name) == value
    for value in (limits.low - 0.01, limits.high + 0.01, math.nan, math.inf):
        with pytest.raises(UsageError, match=f"{limits.neutral:g} changes nothing"):
            Controls(**{name: value})


def test_neutral_controls_change_no_bit(voice: Voice, speech: Speech) -> None:
    """The parts that they add are the identity, exactly."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-12, 6, (1, FRAMES, 80)).astype(np.float32)
    noise = rng.uniform(-12, 6, (1, FRAMES, 80)).astype(np.float32)
    f0_hz = np.where(rng.random(FRAMES) > 0.3, rng.uniform(60, 400, FRAMES), 0).astype(np.float32)
    graph = Graph("part")
    at = time_map(graph, FRAMES, 1.0)
    timed = add_at_times(graph, graph.constant(rows), at)
    warped = graph("MatMul", timed, add_formant_warp(graph, graph.number(1.0)))
    pitch = add_pitch_at_times(graph, graph.constant(f0_hz), at)
    both = add_breathiness(graph, warped, graph.constant(noise), pitch, graph.number(0.0))
    wanted = {pitch: np.float32, both[0]: np.float32, both[1]: np.float32, at.samples: np.int64}
    found_hz, harmonic, breath, samples = values(graph, wanted)
    np.testing.assert_array_equal(found_hz, f0_hz)
    np.testing.assert_array_equal(harmonic, rows)
    np.testing.assert_array_equal(breath, noise)
    np.testing.assert_array_equal(samples, [FRAMES * 160 - 7])
    spoken = speech(1.0, 1)
    np.testing.assert_array_equal(
        voice.run(spoken, controls=NEUTRAL).samples, voice.run(spoken).samples
    )


@pytest.mark.parametrize(("rate", "offset"), itertools.product([0.5, 0.77, 1.0, 1.9], [0.0, 0.4]))
def test_a_ramp_is_read_where_it_should_be(rate: float, offset: float) -> None:
    graph = Graph("part")
    ramp = np.arange(FRAMES, dtype=np.float32)[None, :, None]
    at = time_map(graph, FRAMES, rate, offset)
    timed = add_at_times(graph, graph.constant(ramp), at)
    found, count, samples = values(
        graph, {timed: np.float32, at.count: np.int64, at.samples: np.int64}
    )
    wanted = np.arange(math.ceil((FRAMES - offset) / rate))
    assert count.item() == found.shape[1] == len(wanted)
    assert samples.item() == math.ceil((FRAMES * 160 - 7 - 160 * offset) / rate)
    places = np.clip((wanted + 0.5) * rate - 0.5 + offset, 0, FRAMES - 1)
    np.testing.assert_allclose(found[0, :, 0], places, rtol=1e-5, atol=1e-5)


def test_pitch_is_not_drawn_out_into_unvoiced_frames() -> None:
    f0_hz = np.array([100, 120, 0, 0, 300, 300], np.float32)
    graph = Graph("part")
    pitch = add_pitch_at_times(graph, graph.constant(f0_hz), time_map(graph, 6, 0.5))
    (found,) = values(graph, {pitch: np.float32})
    assert set(found[found > 0]) <= {100.0, 105.0, 115.0, 120.0, 300.0}
    assert np.count_nonzero(found == 0) == 4


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.15, 1.4])
def test_a_peak_of_an_envelope_moves_by_the_factor(factor: float) -> None:
    centres = mel_edges_hz()[1:-1].astype(np.float64)
    graph = Graph("part")
    (warp,) = values(graph, {add_formant_warp(graph, graph.number(factor)): np.float32})
    np.testing.assert_allclose(warp.sum(axis=0), 1.0, rtol=1e-6)
    for formant_hz in (500.0, 1500.0, 2500.0, 4000.0):
        envelope = np.exp(-0.5 * ((centres - formant_hz) / (0.15 * formant_hz)) ** 2)
        moved = envelope @ warp
        weight = moved * np.gradient(centres)
        assert (weight @ centres) / weight.sum() == pytest.approx(factor * formant_hz, rel=0.03)


@pytest.mark.parametrize("share", [-1.0, -0.4, 0.3, 1.0])
def test_breathiness_hands_over_power_and_keeps_the_sum(share: float) -> None:
    rng = np.random.default_rng(1)
    harmonic, noise = rng.uniform(-8, 2, (2, 1, 6, 80)).astype(np.float32)
    f0_hz = np.array([100, 0, 100, 100, 0, 100], np.float32)
    graph = Graph("part")
    names = add_breathiness(
        graph, graph.constant(harmonic), graph.constant(noise), graph.constant(f0_hz),
        graph.number(share),
    )  # fmt: skip
    clearer, breathier = values(graph, dict.fromkeys(names, np.float32))
    power = [np.exp(2.0 * x.astype(np.float64)) for x in (harmonic, noise, clearer, breathier)]
    np.testing.assert_allclose(power[2] + power[3], power[0] + power[1], rtol=1e-4)
    np.testing.assert_array_equal(clearer[:, f0_hz == 0], harmonic[:, f0_hz == 0])
    np.testing.assert_array_equal(breathier[:, f0_hz == 0], noise[:, f0_hz == 0])
    gave, rest = (power[0], power[2]) if share > 0 else (power[1], power[3])
    voiced = f0_hz > 0
    np.testing.assert_allclose(rest[:, voiced], (1 - abs(share)) * gave[:, voiced], atol=1e-8,
                               rtol=1e-4)  # fmt: skip


def test_intonation_scales_the_pitch_about_its_median(voice: Voice, speech: Speech) -> None:
    samples = speech(3.0, 2)
    spoken = voice.run(samples).f0_hz
    voiced = spoken > 0
    height = np.log(spoken[voiced])
    flat = voice.run(samples, controls=Controls(intonation=0.0)).f0_hz
    assert np.ptp(flat[voiced]) < 1e-3
    assert np.log(flat[voiced][0]) == pytest.approx(np.median(height), abs=0.01)
    wide = np.log(voice.run(samples, controls=Controls(intonation=1.5)).f0_hz[voiced])
    centre = np.log(flat[voiced][0])
    np.testing.assert_allclose(wide - centre, 1.5 * (height - centre), atol=1e-4)


def test_the_pitch_moves_by_semitones(voice: Voice, speech: Speech) -> None:
    samples = speech(2.0, 4)
    level = voice.run(samples).f0_hz
    higher = voice.run(samples, controls=Controls(pitch_st=3.0)).f0_hz
    voiced = level > 0
    np.testing.assert_array_equal(voiced, higher > 0)
    np.testing.assert_allclose(higher[voiced] / level[voiced], 2 ** (3 / 12), rtol=1e-5)
