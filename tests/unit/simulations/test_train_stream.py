"""Making a streaming model: where it starts from, what it learns, and a run that is killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.voice.base import save_base
from chorister.shared.voice.model import ModelSettings, VoiceModel
from chorister.shared.voice.stream_weights import load_stream
from chorister.simulations import train_stream
from chorister.simulations.stream_recipe import read_stream_recipe
from chorister.simulations.stream_steps import moved_to_base, streaming_form
from chorister.simulations.stream_training import StreamTraining
from chorister.simulations.train_stream import main

SMALL = ModelSettings(
    content=4, encoder_width=8, encoder_blocks=2, decoder_width=8, decoder_blocks=1
)
AHEAD = ((2, 1), (0,))
RECIPE = """
seed = 4
[data]
split_file = "splits.json"
split = "base"
held_out_split = "held_out"
speaker_folders = ["speech"]
[model]
encoder_ahead = [2, 1]
decoder_ahead = [0]
[content]
steps = 3
batch = 2
frames = 96
learning_rate = 1e-2
warm_up = 1
[envelopes]
steps = 2
batch = 2
frames = 96
learning_rate = 1e-2
warm_up = 1
"""


def a_base(seed: int) -> VoiceModel:
    torch.manual_seed(seed)
    model = VoiceModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_DIRECTION_BATCHES", "_HELD_OUT_BATCHES", "_HELD_OUT_EXAMPLES"):
        monkeypatch.setattr(train_stream, name, 2)
    for number, speaker in enumerate(("11", "12", "13", "14")):
        rng = np.random.default_rng(number)
        phase = 2.0 * np.pi * np.cumsum(np.full(20_000, 110.0 + 30.0 * number)) / 16_000.0
        buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
        path = tmp_path / "data" / "speech" / speaker / "1" / f"{speaker}-1-0000.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.05 * buzz + 0.002 * rng.normal(size=20_000), 16_000)
    splits = {"base": ["11", "12"], "held_out": ["13", "14"]}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(splits))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    save_base(a_base(1), tmp_path / "base.safetensors")
    return tmp_path


def run(root: Path, out: str, *more: str) -> int:
    arguments = [str(root / "recipe.toml"), "--data", str(root / "data"), "--out", str(root / out)]
    arguments += ["--base", str(root / "base.safetensors"), "--cache", str(root / "cache")]
    return main([*arguments, "--checkpoint-s", "0", *more])


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


def test_a_killed_run_resumes_with_the_same_weights(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(corpus, "whole") == 0
    honest = StreamTraining.one_step
    done: list[str] = []

    def fragile(self: StreamTraining, *arguments: object) -> dict[str, float]:
        if len(done) in (2, 4) and done[-1] != "killed":
            done.append("killed")
            raise Killed
        done.append("step")
        return honest(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StreamTraining, "one_step", fragile)
    with pytest.raises(Killed):
        run(corpus, "torn")
    with pytest.raises(Killed):
        run(corpus, "torn", "--resume")
    assert run(corpus, "torn", "--resume") == 0
    whole, torn = (load_file(corpus / out / "stream.safetensors") for out in ("whole", "torn"))
    assert whole.keys() == torn.keys()
    assert [name for name in whole if not torch.equal(whole[name], torn[name])] == []
    made = load_stream(corpus / "whole" / "stream.safetensors")
    assert made.settings == replace(SMALL, encoder_ahead=(2, 1), decoder_ahead=(0,))
    # Both parts learnt something.
    start = streaming_form(a_base(1), *AHEAD).state_dict()
    for name in ("encoder.leave.weight", "decoder.leave.weight"):
        assert not torch.allclose(made.state_dict()[name], start[name], atol=1e-3)


def test_another_recipe_or_start_cannot_resume_a_run(corpus: Path) -> None:
    assert run(corpus, "out") == 0
    start = str(corpus / "out" / "stream.safetensors")
    with pytest.raises(BadSettings, match="resumed"):
        run(corpus, "out", "--resume", "--start", start)
    with pytest.raises(BadWeights, match="checkpoint"):
        run(corpus, "elsewhere", "--resume")
    # It can be gone on from, and its encoder stays.
    assert run(corpus, "more", "--start", start) == 0
    before, after = (load_file(corpus / out / "stream.safetensors") for out in ("out", "more"))
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("encoder."))
    assert not torch.equal(before["decoder.leave.weight"], after["decoder.leave.weight"])


def test_a_form_that_may_see_as_much_is_the_model_itself() -> None:
    base = a_base(2)
    same = streaming_form(base, (3, 3), (3,))
    log_mel, mean = torch.randn(1, 30, 80), torch.ones(1, 80)
    wanted = base.encoder(log_mel, mean, mean)
    assert torch.allclose(wanted, same.encoder(log_mel, mean, mean), atol=1e-6)


def test_where_the_sound_stands_still_a_form_hears_what_the_model_hears() -> None:
    base = a_base(3)
    form = streaming_form(base, *AHEAD)
    log_mel, mean = torch.randn(1, 1, 80).expand(1, 40, 80), torch.ones(1, 80)
    wanted, found = (m.encoder(log_mel, mean, mean)[:, 20] for m in (base, form))
    assert torch.allclose(wanted, found, atol=1e-5)


def test_a_student_that_learnt_nothing_moves_to_the_form_of_the_new_base() -> None:
    old, new = a_base(4), a_base(5)
    new.encoder.load_state_dict(old.encoder.state_dict())
    moved = moved_to_base(streaming_form(old, *AHEAD), old, new)
    expected = streaming_form(new, *AHEAD).state_dict()
    for name, value in moved.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6)


def test_unknown_keys_and_look_ahead_that_does_not_fit_are_refused(corpus: Path) -> None:
    path = corpus / "recipe.toml"
    path.write_text(RECIPE.replace("seed = 4", "sed = 4"))
    with pytest.raises(BadSettings, match="sed"):
        read_stream_recipe(path)
    path.write_text(RECIPE.replace("decoder_ahead = [0]", "decoder_ahead = [0, 0]"))
    with pytest.raises(BadSettings, match="decoder_ahead"):
        run(corpus, "out")
