"""Training the base: a killed run resumes bit for bit; unusable input stops it before it starts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from chorister.shared.errors import BadCorpus, BadSettings, BadWeights, UsageError
from chorister.shared.voice.base import load_base, trained_on
from chorister.shared.voice.contrast import ripples_of
from chorister.simulations import base_state, train_base
from chorister.simulations.augment import AugmentSettings
from chorister.simulations.base_batches import Batches, warp_matrix
from chorister.simulations.base_data import (
    Corpus,
    cache_name,
    known_speakers,
    list_utterances,
    prepare,
    write_cache,
)
from chorister.simulations.base_load import load_batches
from chorister.simulations.base_recipe import read_recipe
from chorister.simulations.base_state import Training, learning_rate, load_judges
from chorister.simulations.base_steps import Trainee, set_contrast
from chorister.simulations.parallel import Processes
from chorister.simulations.train_base import main

RECIPE = """
seed = 4
[data]
split_file = "splits.json"
split = "base"
held_out_split = "held_out"
speaker_folders = ["speech"]
[model]
content = 4
encoder_width = 8
encoder_blocks = 1
decoder_width = 8
decoder_blocks = 1
[[stages]]
kind = "reconstruction"
steps = 4
batch = 2
frames = 32
learning_rate = 1e-3
warm_up = 2
[[stages]]
kind = "adversarial"
steps = 2
batch = 2
frames = 32
learning_rate = 1e-3
speaker_weight = 1.0
cycle_weight = 0.2
fooling_weight = 0.1
matching_weight = 0.1
"""


def tone(f0_hz: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = 2.0 * np.pi * np.cumsum(np.full(16_000, f0_hz)) / 16_000.0
    buzz = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 12))
    return (0.05 * buzz + 0.002 * rng.normal(size=16_000)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(base_state, "_DIRECTION_BATCHES", 2)
    data = tmp_path / "data"
    for speaker, f0_hz in (("11", 110.0), ("12", 210.0), ("13", 150.0), ("14", 180.0)):
        for index in range(2):
            path = data / "speech" / speaker / "1" / f"{speaker}-1-{index:04d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone(f0_hz * (1 + 0.05 * index), index), 16_000)
    splits = {"base": ["11", "12"], "held_out": ["13", "14"]}
    (data / "splits.json").write_text(json.dumps(splits))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def run(root: Path, out: str, *more: str) -> int:
    arguments = [str(root / "recipe.toml"), "--data", str(root / "data"), "--out", str(root / out)]
    return main([*arguments, "--cache", str(root / "cache"), "--checkpoint-s", "0", *more])


def batches_of(root: Path) -> Batches:
    recipe = read_recipe(root / "recipe.toml")
    return load_batches(
        root / "data", recipe.data.corpus(), root / "cache", weights={}, seed=4, namer="speaker"
    )


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


def test_a_killed_run_resumes_with_the_same_result(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights after kill and resume equal those of a run that was left alone, bit for bit."""
    assert run(corpus, "whole") == 0
    honest = Training.one_step
    done = []

    def fragile(self: Training, *arguments: object) -> dict[str, float]:
        if len(done) in (3, 5) and done[-1] != "killed":
            done.append("killed")
            raise Killed
        done.append("step")
        return honest(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "one_step", fragile)
    with pytest.raises(Killed):
        run(corpus, "torn")
    with pytest.raises(Killed):
        run(corpus, "torn", "--resume")
    assert run(corpus, "torn", "--resume") == 0
    for stage in ("stage1", "stage2"):
        whole = load_file(corpus / "whole" / f"{stage}.safetensors")
        torn = load_file(corpus / "torn" / f"{stage}.safetensors")
        assert whole.keys() == torn.keys()
        assert all(torch.equal(whole[name], torn[name]) for name in whole)
    load_base(corpus / "torn" / "stage2.safetensors")


def test_a_diverged_adversarial_stage_gives_its_weights_up(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([1.0, 1.0, 1.0, 1.0, 1.0, 1.3])
    monkeypatch.setattr(train_base, "_VALIDATE_EVERY", 1)
    monkeypatch.setattr(train_base, "validation_loss", lambda *_: next(losses))
    assert run(corpus, "out") == 0
    assert "stage 2 diverged" in capsys.readouterr().out
    kept = load_base(corpus / "out" / "stage1.safetensors").encoder.state_dict()
    ended = load_base(corpus / "out" / "stage2.safetensors").encoder.state_dict()
    assert all(torch.equal(kept[name], ended[name]) for name in kept)


def test_a_step_draws_the_same_batch_whatever_came_before(corpus: Path) -> None:
    batches, again = batches_of(corpus), batches_of(corpus)
    for step in range(3):
        again.draw(0, step, 2, 40, 1.2)
    first, second = batches.draw(1, 7, 3, 40, 1.2), again.draw(1, 7, 3, 40, 1.2)
    for name in first.__slots__:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    other = batches.draw(1, 8, 3, 40, 1.2)
    assert not torch.equal(first.wav, other.wav)


def test_augmentation_changes_the_source_side_alone(corpus: Path) -> None:
    """The clean batch is the one of a stage without it; each process has examples of its own."""
    batches = batches_of(corpus)
    noisy = AugmentSettings(noise_chance=1.0, microphone_chance=1.0)
    clean = batches.draw(1, 7, 3, 40, 1.2)
    heard, again = (batches.draw(1, 7, 3, 40, 1.2, noisy) for _ in range(2))
    changed = {"log_mel", "source_mean", "source_std"}
    for name in clean.__slots__:
        assert torch.equal(getattr(heard, name), getattr(again, name)), name
        assert torch.equal(getattr(heard, name), getattr(clean, name)) == (name not in changed)
    off = batches.draw(1, 7, 3, 40, 1.2, AugmentSettings())
    assert torch.equal(off.log_mel, clean.log_mel)
    other = batches.draw(1, 7, 3, 40, 1.2, noisy, rank=1)
    assert not torch.equal(other.wav, heard.wav)


def test_a_stage_with_augmentation_trains(corpus: Path) -> None:
    plain = RECIPE[: RECIPE.rindex("[[stages]]")]
    (corpus / "recipe.toml").write_text(plain)
    assert run(corpus, "plain") == 0
    augmented = plain + "[stages.augment]\nnoise_chance = 0.9\nformant_chance = 0.5\n"
    (corpus / "recipe.toml").write_text(augmented)
    assert run(corpus, "augmented") == 0
    one, other = (
        load_file(corpus / name / "stage1.safetensors") for name in ("augmented", "plain")
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_held_out_speakers_are_not_drawn(corpus: Path) -> None:
    """The training speakers speak at 110 and 210 Hz, the held-out ones between."""
    medians = {
        round(float(np.exp(pitch[0])), -1)
        for step in range(20)
        for pitch in batches_of(corpus).draw(0, step, 2, 40, 1.0).log_f0
    }
    assert medians == {110.0, 220.0}


def test_no_warp_is_the_identity_and_a_warp_moves_formants_up() -> None:
    assert np.allclose(warp_matrix(1.0), np.eye(80), atol=1e-5)
    peak = np.zeros(80, np.float32)
    peak[30] = 1.0
    assert (peak @ warp_matrix(1.2)).argmax() > 30
    assert np.allclose(np.full(80, -3.0) @ warp_matrix(0.85), -3.0, atol=1e-4)


def test_the_rate_warms_up_and_ends_at_a_twentieth(corpus: Path) -> None:
    stage = read_recipe(corpus / "recipe.toml").stages[0]
    rates = [learning_rate(stage, step) for step in range(5)]
    assert rates[0] == pytest.approx(0.5e-3)
    assert rates[2] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(0.05e-3)


@pytest.mark.parametrize(
    "change",
    [
        ("seed = 4", "sede = 4"),
        ("frames = 32", "frames = 3"),
        ('"adversarial"', '"wishful"'),
        ("warm_up = 2", "warmup = 2"),
        ("encoder_width = 8", "width = 8"),
    ],
)
def test_a_recipe_with_an_unknown_key_or_value_is_refused(
    corpus: Path, change: tuple[str, str]
) -> None:
    (corpus / "recipe.toml").write_text(RECIPE.replace(*change))
    with pytest.raises(BadSettings):
        run(corpus, "out")
    assert not (corpus / "out").exists()


def test_a_missing_split_or_folder_is_refused(corpus: Path) -> None:
    for change in (('split = "base"', 'split = "bass"'), ('["speech"]', '["music"]')):
        (corpus / "recipe.toml").write_text(RECIPE.replace(*change))
        with pytest.raises(BadCorpus):
            run(corpus, "out")


def spoil(kind: str, path: Path) -> None:
    """Puts something that is no usable speech in place of a file."""
    samples = tone(120.0, 5)
    if kind == "text":
        path.write_text("no audio")
    elif kind == "empty":
        path.touch()
    elif kind == "not finite":
        samples[100] = np.nan
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    elif kind == "0.2 s":
        soundfile.write(path, samples[:3200], 16_000)
    elif kind == "silence":
        soundfile.write(path, np.zeros(16_000), 16_000)
    elif kind == "clipped":
        soundfile.write(path, np.clip(100 * samples, -1, 1), 16_000)
    else:
        raise ValueError(kind)


@pytest.mark.parametrize("kind", ["text", "empty", "not finite", "0.2 s", "silence", "clipped"])
def test_a_file_that_is_no_speech_is_left_out_and_said(
    corpus: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = batches_of(corpus).draw(0, 0, 4, 40, 1.0)
    spoil(kind, corpus / "data" / "speech" / "11" / "1" / "11-1-0009.wav")
    assert torch.equal(batches_of(corpus).draw(0, 0, 4, 40, 1.0).wav, whole.wav)
    printed = capsys.readouterr()
    assert "left out 1 of 5 files" in printed.out + printed.err


def test_a_speaker_without_a_usable_file_is_no_speaker(corpus: Path) -> None:
    for index in range(2):
        spoil("text", corpus / "data" / "speech" / "11" / "1" / f"11-1-{index:04d}.wav")
    with pytest.raises(BadCorpus, match="1 with usable recordings"):
        batches_of(corpus)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 1), (16_000, 2), (44_100, 2)])
def test_any_rate_and_stereo_are_read(corpus: Path, rate: int, channels: int) -> None:
    path = corpus / "data" / "speech" / "11" / "1" / "11-1-0009.wav"
    t = np.arange(2 * rate) / rate
    wave = 0.1 * np.sin(2 * np.pi * 200 * t) + 0.2
    soundfile.write(path, np.stack([wave] * channels, 1), rate)
    (found,) = [
        one
        for one in list_utterances(
            corpus / "data", read_recipe(corpus / "recipe.toml").data.corpus()
        )
        if one.path == path
    ]
    ready = prepare(found, corpus)
    assert len(ready.f0_hz) == 200
    assert np.median(ready.f0_hz) == pytest.approx(200, rel=0.01)
    assert abs(ready.samples.mean()) < 20


def test_resuming_needs_a_checkpoint_of_the_same_recipe(corpus: Path) -> None:
    with pytest.raises(BadWeights):
        run(corpus, "none", "--resume")
    assert run(corpus, "whole") == 0
    (corpus / "recipe.toml").write_text(RECIPE.replace("seed = 4", "seed = 5"))
    with pytest.raises(BadSettings):
        run(corpus, "whole", "--resume")


def test_the_shipped_recipe_reads() -> None:
    path = Path(train_base.__file__).parent / "recipes" / "base.toml"
    recipe = read_recipe(path)
    assert recipe.data.split == "base"
    assert recipe.data.held_out_split == "base_held_out"


DECODER_STAGE = """
[[stages]]
kind = "swapped"
learn = "decoder"
synthetic_speeds = [0.9]
steps = 3
batch = 3
frames = 32
learning_rate = 1e-2
warm_up = 0
speaker_weight = 1.0
cycle_weight = 0.2
"""


def test_a_stage_for_the_decoder_leaves_the_content_as_it_was(corpus: Path) -> None:
    first = RECIPE.split("[[stages]]")
    recipe = "[[stages]]".join(first[:2]) + DECODER_STAGE
    (corpus / "recipe.toml").write_text(recipe)
    assert run(corpus, "out") == 0
    before, after = (load_file(corpus / "out" / f"stage{n}.safetensors") for n in (1, 2))
    for name, value in before.items():
        if name.startswith("encoder."):
            assert torch.equal(value, after[name])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"decoder.enter.weight", "decoder.recall.share", "decoder.recall.sharpness"} <= moved
    assert trained_on(corpus / "out" / "stage2.safetensors") == {"11", "12"}


def test_the_share_is_multiplied_once_at_the_end_of_its_stage(corpus: Path) -> None:
    first = RECIPE.split("[[stages]]")
    shares = []
    for gain in (1.0, 1.5):
        more = DECODER_STAGE + f"recall_gain = {gain}\n"
        (corpus / "recipe.toml").write_text("[[stages]]".join(first[:2]) + more)
        assert run(corpus, f"out{gain}") == 0
        weights = load_file(corpus / f"out{gain}" / "stage2.safetensors")
        shares.append(weights["decoder.recall.share"])
    assert torch.allclose(1.5 * shares[0], shares[1])


def test_weights_to_begin_with_stand_for_the_stages_that_made_them(corpus: Path) -> None:
    """Beginning at the second stage gives, bit for bit, what the whole run gives."""
    assert run(corpus, "whole") == 0
    first = corpus / "whole" / "stage1.safetensors"
    assert run(corpus, "later", "--begin", f"{first}:2") == 0
    whole, later = (load_file(corpus / out / "stage2.safetensors") for out in ("whole", "later"))
    assert all(torch.equal(whole[name], later[name]) for name in whole)
    assert (corpus / "later" / "stage1.safetensors").read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("begin", "error"),
    [
        ("{first}", UsageError),
        ("{first}:0", BadSettings),
        ("{first}:1", BadSettings),
        ("{first}:3", BadSettings),
        ("{first}.none:2", BadWeights),
    ],
)
def test_what_cannot_be_begun_with_is_refused(
    corpus: Path, begin: str, error: type[Exception]
) -> None:
    assert run(corpus, "whole") == 0
    first = corpus / "whole" / "stage1.safetensors"
    with pytest.raises(error):
        run(corpus, "later", "--begin", begin.format(first=first))
    (corpus / "recipe.toml").write_text(RECIPE.replace("decoder_width = 8", "decoder_width = 16"))
    with pytest.raises(BadSettings):
        run(corpus, "later", "--begin", f"{first}:2")


HEARING_STAGE = """
[[stages]]
kind = "hearing"
steps = 40
batch = 2
frames = 32
learning_rate = 3e-3
warm_up = 0
[stages.augment]
noise_chance = 1.0
"""


def test_a_hearing_stage_moves_the_encoder_alone_towards_what_the_clean_one_heard(
    corpus: Path,
) -> None:
    first = RECIPE.split("[[stages]]")
    (corpus / "recipe.toml").write_text("[[stages]]".join(first[:2]) + HEARING_STAGE)
    assert run(corpus, "out") == 0
    noisy = AugmentSettings(noise_chance=1.0)
    batch = batches_of(corpus).draw(9, 0, 8, 32, 1.0, noisy)
    models = [load_base(corpus / "out" / f"stage{n}.safetensors") for n in (1, 2)]
    deaf, trained = (Trainee(one).hear(batch, models[0].encoder).total for one in models)
    # The weights are a running average that reaches back beyond these steps.
    assert trained < deaf
    before, after = (load_file(corpus / "out" / f"stage{n}.safetensors") for n in (1, 2))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "encoder.enter.weight" in moved
    # Where the shared adapter looks is computed anew after every stage.
    assert {name for name in moved if name.startswith("decoder.")} <= {
        "decoder.directions",
        "decoder.directions_mean",
    }


def test_a_hearing_stage_keeps_the_share_of_its_way_that_the_recipe_says(corpus: Path) -> None:
    first, encoders = RECIPE.split("[[stages]]"), {}
    for share in (0.25, 1.0):
        stage = HEARING_STAGE.replace("steps = 40", f"steps = 4\nhearing_share = {share}")
        (corpus / "recipe.toml").write_text("[[stages]]".join(first[:2]) + stage)
        assert run(corpus, f"out{share}") == 0
        encoders[share] = load_base(corpus / f"out{share}" / "stage2.safetensors").encoder
    before = load_base(corpus / "out1.0" / "stage1.safetensors").encoder.state_dict()
    part, whole = (encoders[share].state_dict() for share in (0.25, 1.0))
    for name, value in before.items():
        torch.testing.assert_close(part[name], value.lerp(whole[name], 0.25))
    assert not torch.equal(before["enter.weight"], whole["enter.weight"])


def _rippled(rows: Tensor, height: float) -> Tensor:
    """Ripples that differ from frame to frame: (B, F, any) to (B, F, 80)."""
    drawn = torch.randn(*rows.shape[:2], 12, generator=torch.Generator().manual_seed(1))
    return height * drawn @ ripples_of()[1:13] - 4.0


def test_the_contrast_that_conversions_lack_is_measured(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose envelopes are twice as flat needs larger gains; the level has none."""
    first = RECIPE.split("[[stages]]")
    (corpus / "recipe.toml").write_text(
        "[[stages]]".join(first[:2]) + DECODER_STAGE + "contrast = 0.5\n"
    )
    assert run(corpus, "out") == 0
    model = load_base(corpus / "out" / "stage2.safetensors")
    kept = model.decoder.contrast.clone()
    assert not torch.equal(kept, torch.ones(80))
    assert float(kept.min()) >= 0.5**0.5
    assert float(kept.max()) <= 2.0**0.5
    batches = batches_of(corpus)
    batches.listen(model.content_of)
    drawn = [batches.draw(5, i, 4, 32, 1.0) for i in range(3)]
    drawn = [replace(one, plain_log_mel=_rippled(one.plain_log_mel, 1.0)) for one in drawn]
    gains = []
    for flatness in (1.0, 0.5):

        def rippled(content: Tensor, *_: object, flatness: float = flatness) -> tuple[Tensor, ...]:
            ripples = torch.randn(
                *content.shape[:2], 12, generator=torch.Generator().manual_seed(1)
            )
            envelope = flatness * ripples @ ripples_of()[1:13] - 4.0
            return envelope, envelope

        monkeypatch.setattr(model.decoder, "forward", rippled)
        set_contrast(model, drawn, 1.0)
        gains.append(model.decoder.contrast[1:13].clone())
        assert model.decoder.contrast[0] == 1.0
    # Twice as much is missing, but for what the pitch adds to both.
    assert torch.all(gains[1] > 1.3 * gains[0])


def test_conversions_are_judged_with_the_contrast_that_the_stage_begins_with(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RECIPE.split("[[stages]]")
    stage = DECODER_STAGE + "contrast = 0.5\n"
    (corpus / "recipe.toml").write_text("[[stages]]".join(first[:2]) + stage)
    recipe = read_recipe(corpus / "recipe.toml")
    training = Training(recipe, corpus / "out")
    training.stage = 1
    batches = batches_of(corpus)
    batches.listen(training.trainee.model.content_of)
    training.begin_stage(batches)
    gains = training.average.decoder.contrast
    assert not torch.equal(gains, torch.ones(80))
    assert torch.equal(gains, training.trainee.model.decoder.contrast)

    # A resumed stage has measured already.
    training.step, before = 1, gains.clone()
    training.trainee.model.decoder.contrast.fill_(1.0)
    training.begin_stage(batches)
    assert torch.equal(training.average.decoder.contrast, before)

    judges, batch = load_judges(recipe.stages[1]), batches.draw(1, 0, 2, 32, 1.2)
    losses, shares = [], []
    recall = type(training.trainee.model.decoder.recall)
    honest = recall.forward

    def watched(self, *arguments):
        shares.extend(arguments[3].tolist())
        return honest(self, *arguments)

    monkeypatch.setattr(recall, "forward", watched)
    for contrast in (1.0, 1.3):
        training.trainee.model.decoder.contrast[2:].fill_(contrast)
        generator = torch.Generator().manual_seed(3)
        step = training.trainee.step(batch, recipe.stages[1], generator, judges)
        losses.append(step.parts)
    # What a copy is learnt with does not see it.
    assert losses[0]["reconstruction"] == losses[1]["reconstruction"]
    assert losses[0]["cycle"] != losses[1]["cycle"]
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        training.trainee.step(batch, recipe.stages[1], generator, judges)
    # Of one's own words some are taken for another's; of others' all.
    assert set(shares[0::4] + shares[1::4]) == {0.0, 1.0}
    assert set(shares[2::4] + shares[3::4]) == {1.0}


@pytest.mark.parametrize(
    "stage",
    [
        HEARING_STAGE.replace("[stages.augment]", "contrast = 0.5\n[stages.augment]"),
        DECODER_STAGE + "hearing_share = 0.5\n",
        DECODER_STAGE.replace('learn = "decoder"', "") + "contrast = 0.5\n",
    ],
)
def test_settings_in_the_wrong_kind_of_stage_are_refused(corpus: Path, stage: str) -> None:
    first = RECIPE.split("[[stages]]")
    (corpus / "recipe.toml").write_text("[[stages]]".join(first[:2]) + stage)
    with pytest.raises(BadSettings):
        read_recipe(corpus / "recipe.toml")


def test_a_checkpoint_of_an_earlier_version_is_refused(corpus: Path) -> None:
    training = Training(read_recipe(corpus / "recipe.toml"), corpus)
    training.save()
    state = torch.load(corpus / "checkpoint.pt", weights_only=True)
    del state["average"]["decoder.contrast"]
    torch.save(state, corpus / "checkpoint.pt")
    with pytest.raises(BadWeights, match="contrast"):
        training.resume()


def test_a_recipe_does_not_begin_with_hearing(corpus: Path) -> None:
    (corpus / "recipe.toml").write_text(RECIPE.split("[[stages]]", maxsplit=1)[0] + HEARING_STAGE)
    with pytest.raises(BadSettings):
        read_recipe(corpus / "recipe.toml")


def test_recalled_frames_draw_the_decoder_and_leave_the_share_alone(corpus: Path) -> None:
    """They stand for parallel speech; a share that is drawn would grow without learning."""
    batches = batches_of(corpus)
    training = Training(read_recipe(corpus / "recipe.toml"), corpus)
    model = training.trainee.model
    batches.listen(model.content_of)
    batch = batches.draw(0, 0, 2, 32, 1.0, tables=(50,))
    assert batch.sounds_content.shape[1] == 50
    first = training.recipe.stages[1]
    stage = first.model_copy(update={"recalled_weight": 1.0, "voicing_weight": 1.0})
    loss = training.trainee.step(
        batch, stage, torch.Generator().manual_seed(0), load_judges(stage), None
    )
    assert loss.parts["recalled"] > 0.1
    assert loss.parts["voicing"] > 0.1
    share = model.decoder.recall.share
    grads = []
    for weight in (0.0, 1.0):
        only = stage.model_copy(update={"recalled_weight": weight, "voicing_weight": 0.0})
        training.optimiser.zero_grad()
        training.trainee.step(
            batch, only, torch.Generator().manual_seed(0), load_judges(only), None
        ).total.backward()
        assert share.grad is not None
        grads.append((share.grad.clone(), model.decoder.leave.weight.grad.clone()))
    assert torch.allclose(grads[0][0], grads[1][0], atol=1e-6)
    assert not torch.allclose(grads[0][1], grads[1][1], atol=1e-4)


def test_a_table_holds_other_frames_of_the_same_speaker(corpus: Path) -> None:
    batches = batches_of(corpus)
    assert batches.draw(0, 0, 4, 32, 1.0).sounds_content.shape[1] == 0
    batches.listen(lambda mel, mean, std: ((mel - mean) / std)[:, :3])
    drawn = batches.draw(0, 0, 4, 32, 1.0)
    assert drawn.sounds_content.shape[2] == 3
    assert drawn.sounds_log_mel.shape == (*drawn.sounds_content.shape[:2], 80)
    speakers = batches.speaker_statistics()[:, :80]
    for row in range(4):
        near = np.abs(speakers - drawn.sounds_log_mel[row].numpy().mean(axis=0)).mean(axis=1)
        own = np.abs(speakers - drawn.target_mean[row].numpy()).mean(axis=1)
        assert near.argmin() == own.argmin()
        known = {frame.tobytes() for frame in drawn.plain_log_mel[row].numpy()}
        assert not any(frame.tobytes() in known for frame in drawn.sounds_log_mel[row].numpy())


def test_a_synthetic_speaker_is_a_faster_copy_with_its_labels(corpus: Path) -> None:
    data, cache = corpus / "data", corpus / "cache"
    cache.mkdir()
    plain = read_recipe(corpus / "recipe.toml").data
    listed = list_utterances(data, plain.corpus(speeds=(1.25,)))
    assert [one.speed for one in listed[:2]] == [1.0, 1.25]
    assert len({one.speaker for one in listed}) == 4
    original, fast = listed[:2]
    labels = np.repeat(np.arange(10, dtype=np.int8), 10)
    write_cache(cache / cache_name(original, "phones"), phones=labels)
    slow_ready, fast_ready = prepare(original, cache), prepare(fast, cache)
    assert len(fast_ready.f0_hz) == 80
    assert (fast_ready.phones == np.repeat(np.arange(10), 8)).all()
    pitches = [np.median(one.f0_hz[one.f0_hz > 0]) for one in (slow_ready, fast_ready)]
    assert pitches[1] / pitches[0] == pytest.approx(1.25, rel=0.01)
    assert known_speakers(data, plain.corpus(speeds=(1.25,))) == {"11", "12"}


def test_resuming_needs_as_many_processes(corpus: Path) -> None:
    (corpus / "recipe.toml").write_text(RECIPE.replace("batch = 2", "batch = 4"))
    recipe = read_recipe(corpus / "recipe.toml")
    Training(recipe, corpus, Processes(count=2)).save()
    with pytest.raises(BadSettings, match="1 instead of 2"):
        Training(recipe, corpus).resume()
    Training(recipe, corpus, Processes(count=2)).resume()
    (corpus / "checkpoint.pt").unlink()
    Training(recipe, corpus, Processes(rank=1, count=2)).save()
    assert not (corpus / "checkpoint.pt").exists()


def test_lower_precision_comes_near_and_leaves_weights_and_losses_alone(corpus: Path) -> None:
    """On a CPU as on a GPU: products in bfloat16, everything that is added up in float32."""
    recipe = read_recipe(corpus / "recipe.toml")
    batch = batches_of(corpus).draw(0, 0, 2, 32, 1.2)
    figures = []
    for lower in (None, torch.bfloat16):
        training = Training(recipe, corpus, Processes(lower=lower))
        training.stage = 1
        judges = load_judges(recipe.stages[1])
        figures.append(training.one_step(batch, judges))
        assert {value.dtype for value in training.trainee.parameters()} == {torch.float32}
    exact, lowered = figures
    assert exact != lowered
    for name in ("reconstruction", "speaker", "critics"):
        assert lowered[name] == pytest.approx(exact[name], rel=0.05)


def test_tensorboard_holds_the_scalars_of_the_log(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(train_base, "_LOG_EVERY", 1)
    assert run(corpus, "out", "--tensorboard") == 0
    read = accumulator.EventAccumulator(str(corpus / "out" / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (corpus / "out" / "log.jsonl").open()]
    first = [line["reconstruction"] for line in lines if line["stage"] == 1]
    scalars = read.Scalars("stage 1/reconstruction")
    assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
    assert [scalar.value for scalar in scalars] == pytest.approx(first, rel=1e-4)
    assert [scalar.step for scalar in read.Scalars("stage 2/critics")] == [5, 6]


def test_tensorboard_that_is_missing_says_what_to_install(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadSettings, match=r"chorister\[training\]"):
        run(corpus, "out", "--tensorboard")


def test_a_vctk_tree_and_folders_of_speakers_are_read(tmp_path: Path) -> None:
    """The layouts that `evaluate` reads; names alone do not tell folders of speakers apart."""
    data = tmp_path / "data"
    for speaker in ("p225", "p226"):
        audio = data / "vctk" / "wav48_silence_trimmed" / speaker
        text = data / "vctk" / "txt" / speaker / f"{speaker}_001.txt"
        for path in (audio, text.parent, data / "plain" / speaker):
            path.mkdir(parents=True)
        text.write_text("Please call Stella.\n")
        for mic in (1, 2):
            soundfile.write(audio / f"{speaker}_001_mic{mic}.flac", tone(120.0, mic), 16_000)
        soundfile.write(data / "plain" / speaker / "001.wav", tone(150.0, 3), 16_000)
    (data / "splits.json").write_text(json.dumps({"base": ["p225", "p226"], "few": ["p226"]}))
    corpus = Corpus("splits.json", "base", ("vctk", "plain"), ())
    listed = list_utterances(data, corpus)
    assert [(one.speaker, one.path.name, one.transcript) for one in listed] == [
        ("p225", "p225_001_mic1.flac", "please call stella"),
        ("p226", "p226_001_mic1.flac", "please call stella"),
        ("p225", "001.wav", None),
        ("p226", "001.wav", None),
    ]
    assert len({cache_name(one, "f0") for one in listed}) == 4
    few = list_utterances(data, Corpus("splits.json", "few", ("vctk",), ()))
    assert [one.speaker for one in few] == ["p226"]
