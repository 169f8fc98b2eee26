"""Reading the base: a round trip, and every way in which a weights file can be wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chorister.shared.errors import BadWeights
from chorister.shared.voice import base
from chorister.shared.voice.adapters import (
    PersonalAdapterSpec,
    SharedAdapterSpec,
    attach_personal,
    attach_shared,
)
from chorister.shared.voice.base import BASE_FORMAT_VERSION, load_base, save_base
from chorister.shared.voice.model import ModelSettings, VoiceModel

SMALL = ModelSettings(
    content=4, encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_blocks=1
)
HEADER = asdict(SMALL) | {"format_version": BASE_FORMAT_VERSION}


def write(path: Path, state: dict[str, torch.Tensor], header: dict[str, object]) -> None:
    save_file(state, path, {"chorister-base": json.dumps(header)})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    save_base(VoiceModel(SMALL), path)
    return path


def test_a_model_comes_back_as_it_was_and_frozen(tmp_path: Path) -> None:
    model, path = VoiceModel(SMALL), tmp_path / "base.safetensors"
    digest = save_base(model, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    again = load_base(path)
    assert again.settings == SMALL
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_adapters_are_not_written_into_the_base(tmp_path: Path, weights: Path) -> None:
    model = load_base(weights)
    attach_shared(model, SharedAdapterSpec())
    attach_personal(model, PersonalAdapterSpec())
    save_base(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_another_file_in_place_of_the_shipped_one_is_refused(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BASE_WEIGHTS", weights)
    with pytest.raises(BadWeights, match="digest"):
        load_base()


def test_missing_cut_and_foreign_files_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(BadWeights):
        load_base(tmp_path / "none.safetensors")
    for name, content in (("cut", weights.read_bytes()[:-10]), ("foreign", b"RIFF0000WAVE")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadWeights):
            load_base(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": BASE_FORMAT_VERSION + 1},
        {"format_version": BASE_FORMAT_VERSION - 1},
        {"format_version": "one"},
        {"content": 5},
        {"content": None},
        {"decoder_blocks": 2},
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, weights: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "changed.safetensors"
    write(path, load_file(weights), HEADER | change)
    with pytest.raises(BadWeights):
        load_base(path)


def test_a_file_without_the_header_is_refused(tmp_path: Path, weights: Path) -> None:
    for metadata in ({}, {"chorister-base": "{"}, {"other": "{}"}):
        path = tmp_path / "changed.safetensors"
        save_file(load_file(weights), path, metadata)
        with pytest.raises(BadWeights):
            load_base(path)


def test_a_missing_header_entry_is_refused(tmp_path: Path, weights: Path) -> None:
    header = {name: value for name, value in HEADER.items() if name != "kernel"}
    path = tmp_path / "changed.safetensors"
    write(path, load_file(weights), header)
    with pytest.raises(BadWeights):
        load_base(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, weights: Path) -> None:
    state = load_file(weights)
    state["decoder.leave.bias"][0] = float("nan")
    path = tmp_path / "changed.safetensors"
    write(path, state, HEADER)
    with pytest.raises(BadWeights, match="finite"):
        load_base(path)


def test_how_far_each_block_sees_ahead_comes_back(tmp_path: Path) -> None:
    settings = replace(SMALL, encoder_ahead=(2,), decoder_ahead=(0,))
    save_base(VoiceModel(settings), tmp_path / "stream.safetensors")
    assert load_base(tmp_path / "stream.safetensors").settings == settings


@pytest.mark.parametrize("ahead", [[7], [1, 1], "x", [-1], 3])
def test_a_look_ahead_that_no_block_can_have_is_refused(
    tmp_path: Path, weights: Path, ahead: object
) -> None:
    path = tmp_path / "changed.safetensors"
    write(path, load_file(weights), HEADER | {"encoder_ahead": ahead})
    with pytest.raises(BadWeights, match="header"):
        load_base(path)
