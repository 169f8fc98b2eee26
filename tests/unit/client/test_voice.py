"""A voice file that is not one, is damaged, or comes from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from chorister.client.voice import Voice, open_voice
from chorister.client.voice_card import VoiceCard, read_card, seal_digest
from chorister.shared.errors import BadWeights

CARD = VoiceCard("a" * 64, "", "", "c" * 64, "conversion", "somebody")


def sealed(metadata: dict[str, str]) -> bytes:
    """A graph that does nothing, with the metadata of a voice."""
    wires = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "T"]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", *[[w] for w in wires]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    return seal_digest(model.SerializeToString())


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="No such file"):
        open_voice(tmp_path / "voice.onnx")


@pytest.mark.parametrize("data", [b"", b"RIFF not a voice", bytes(1000)])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadWeights, match=r"v\.onnx"):
        Voice(data, "v.onnx")


def test_another_onnx_file_is_refused() -> None:
    with pytest.raises(BadWeights, match="format 'none'"):
        Voice(sealed({}), "v.onnx")


def test_a_truncated_voice_is_refused(voice_path: Path) -> None:
    with pytest.raises(BadWeights):
        Voice(voice_path.read_bytes()[:-1000], "v.onnx")


def test_a_changed_weight_is_noticed(voice_path: Path) -> None:
    model = onnx.load(voice_path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32).copy()
    values[0] += 1e-3
    weight.raw_data = values.tobytes()
    with pytest.raises(BadWeights, match="wrong digest"):
        Voice(model.SerializeToString(), "v.onnx")


def test_a_changed_pseudonym_is_noticed(voice_path: Path) -> None:
    data = voice_path.read_bytes().replace(b"somebody", b"sombrero")
    with pytest.raises(BadWeights, match="wrong digest"):
        Voice(data, "v.onnx")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format_version", "3", "newer format 3"),
        ("format_version", "1", "older format 1"),
        ("format_version", "one", "damaged metadata"),
        ("sample_rate_hz", "24000", "24000 Hz"),
        ("consent_sha256", "", "wrong digest"),
        ("base_sha256", "A" * 64, "wrong digest"),
        ("format", "other-voice", "'other-voice'"),
    ],
)
def test_wrong_metadata_are_refused(key: str, value: str, expected: str) -> None:
    with pytest.raises(BadWeights, match=expected):
        Voice(sealed(CARD.to_metadata() | {key: value}), "v.onnx")


_ADDED_LATER = {"shared_adapter", "personal_adapter"}


@pytest.mark.parametrize("key", sorted(_ADDED_LATER))
def test_a_file_from_before_does_not_say_how_its_adapters_are_laid_out(key: str) -> None:
    metadata = CARD.to_metadata()
    del metadata[key]
    data = sealed(metadata)
    told = onnx.load_from_string(data).metadata_props
    assert getattr(read_card({m.key: m.value for m in told}, data, "v.onnx"), key) == ""


@pytest.mark.parametrize("key", sorted(set(CARD.to_metadata()) - {"format"} - _ADDED_LATER))
def test_missing_metadata_are_refused(key: str) -> None:
    metadata = CARD.to_metadata()
    del metadata[key]
    with pytest.raises(BadWeights, match="damaged metadata"):
        read_card(metadata, b"", "v.onnx")


def test_another_graph_under_a_voice_s_metadata_is_refused() -> None:
    with pytest.raises(BadWeights, match="without breathiness, converted"):
        Voice(sealed(CARD.to_metadata()), "v.onnx")


def test_what_was_sealed_is_read_back(voice_path: Path) -> None:
    data = voice_path.read_bytes()
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    card = read_card(metadata, data, "v.onnx")
    assert card.to_metadata() | {"sha256": metadata["sha256"]} == metadata
    assert Voice(data, "v.onnx").card == card
