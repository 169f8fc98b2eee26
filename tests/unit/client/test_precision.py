"""Voice files in fewer bits: what is rounded, what never is, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import numpy_helper

from chorister.client import voice_cli
from chorister.client.export import Origin, build_voice
from chorister.client.precision import NETWORK, Precision, reduced
from chorister.client.voice import Voice
from chorister.shared.errors import BadAudio, BadWeights, UsageError
from chorister.shared.types import FloatArray

RATE = 16_000
NOW_S = 1_800_000_000
Speech = Callable[[float, int], FloatArray]
SMALLER: tuple[Precision, ...] = ("fp16", "int8")


@pytest.fixture(scope="module")
def full(voice_path: Path) -> bytes:
    return voice_path.read_bytes()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    path = tmp_path_factory.mktemp("spoken") / "me.wav"
    soundfile.write(path, speech(2.0, 1), RATE)
    return path


def tables(data: bytes) -> dict[str, NDArray[Any]]:
    model = onnx.load_from_string(data)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", SMALLER)
def test_only_large_tables_of_the_network_are_rounded(full: bytes, precision: Precision) -> None:
    before, after = tables(full), tables(reduced(full, precision, "v"))
    rounded = set(before) - set(after)
    assert rounded
    assert all(name.startswith(f"{NETWORK}/") for name in rounded)
    for name in rounded:
        assert before[name].size >= 1024
        stored = after[f"{name}/stored"]
        if f"{name}/scales" in after:
            assert precision == "int8"
            assert (before[name].ndim, stored.dtype) == (2, np.int8)
            error = np.abs(stored * after[f"{name}/scales"] - before[name])
            assert np.all(error <= 0.5001 * after[f"{name}/scales"])
        else:
            assert stored.dtype == np.float16
            np.testing.assert_allclose(stored, before[name], rtol=1e-3, atol=1e-7)
    for name in set(before) - rounded:
        np.testing.assert_array_equal(before[name], after[name])
    # The target's sounds are looked up, not multiplied by: they stay in half precision.
    assert after[f"{NETWORK}/sounds_log_mel/stored"].dtype == np.float16


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 50.0), ("int8", 25.0)])
def test_a_smaller_file_says_nearly_the_same_in_step(
    full: bytes, speech: Speech, precision: Precision, least_db: float
) -> None:
    samples = speech(3.0, 2)
    smaller = reduced(full, precision, "v")
    assert len(smaller) < len(full)
    wanted, found = Voice(full, "v").run(samples), Voice(smaller, "v").run(samples)
    error = np.square(wanted.samples - found.samples, dtype=np.float64).sum()
    level = np.square(wanted.samples, dtype=np.float64).sum()
    assert 0.0 < error < level * 10.0 ** (-least_db / 10.0)
    # Pitch, phase and statistics are computed as before, to the last bit.
    np.testing.assert_array_equal(wanted.f0_hz, found.f0_hz)
    np.testing.assert_array_equal(wanted.cycles, found.cycles)
    np.testing.assert_array_equal(wanted.statistics.mel_mean, found.statistics.mel_mean)


@pytest.mark.parametrize("precision", SMALLER)
def test_it_can_be_exported_so_and_says_so(
    full: bytes, precision: Precision, permits: Any, target: Any, make_model: Any
) -> None:
    origin = Origin("a" * 64, "b" * 64, "somebody")
    made = build_voice(
        make_model(), target, permits("conversion"), origin, now_s=NOW_S, precision=precision
    )
    assert Voice(made, "v").card.precision == precision
    wanted = tables(reduced(full, precision, "v"))
    found = tables(made)
    assert set(wanted) == set(found)
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, found[name])


def test_what_was_made_smaller_is_not_made_smaller_again(full: bytes) -> None:
    with pytest.raises(UsageError, match="v in int8"):
        reduced(reduced(full, "int8", "v"), "fp16", "v")


def test_the_command_measures_and_writes(
    voice_path: Path, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["variants", str(voice_path), "--audio", str(spoken), "--out", str(tmp_path)]
    assert voice_cli.main([*arguments, "--json"]) == 0
    rows = {row.pop("precision"): row for row in json.loads(capsys.readouterr().out)}
    assert rows["fp32"]["snr_db"] is None
    assert rows["fp32"]["log_mel_distance_db"] == 0.0
    assert rows["fp16"]["snr_db"] > rows["int8"]["snr_db"] > 20.0
    assert rows["fp32"]["bytes"] > rows["fp16"]["bytes"] > rows["int8"]["bytes"]
    written = tmp_path / f"{voice_path.stem}.int8.onnx"
    assert written.stat().st_size == rows["int8"]["bytes"]
    with pytest.raises(UsageError, match="not overwritten"):
        voice_cli.main(arguments)
    assert voice_cli.main(["show", str(written)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert ["precision", "int8"] in [line.split() for line in shown]
    assert ["target", "somebody"] in [line.split() for line in shown]


def test_what_cannot_be_measured_is_refused(voice_path: Path, spoken: Path, tmp_path: Path) -> None:
    for voice, audio, expected in (
        (tmp_path / "none.onnx", spoken, BadWeights),
        (spoken, spoken, BadWeights),
        (voice_path, tmp_path / "none.wav", BadAudio),
    ):
        with pytest.raises(expected):
            voice_cli.main(["variants", str(voice), "--audio", str(audio), "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
