"""Distillation: bad requests, augmentation, targets, and that a student learns at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadCorpus, BadSettings, UsageError
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations import train_speaker
from chorister.simulations.distil import distil, save_encoder, smooth_targets
from chorister.simulations.ge2e import GE2E_FRAMES, find_ge2e_weights, ge2e_mel, load_ge2e
from chorister.simulations.speaker_report import trial_figures
from chorister.simulations.speaker_targets import (
    SpeakerRecipe,
    Targets,
    augment,
    compute_targets,
    cut_chunks,
    list_base,
)

RECIPE = SpeakerRecipe.load(train_speaker.RECIPE)
needs_teacher = pytest.mark.skipif(find_ge2e_weights() is None, reason="needs resemblyzer")


def _targets(voices: int = 4, chunks: int = 6) -> Targets:
    """Voices that differ by a spectral tilt, and unit vectors to name them by."""
    draw = np.random.default_rng(0)
    names = draw.normal(size=(voices, 256))
    tilt = np.linspace(-1, 1, 80)
    mels, vectors, group = [], [], []
    for voice in range(voices):
        for _ in range(chunks):
            mels.append(draw.normal(size=(320, 80)) + (voice - 1.5) * tilt)
            noisy = names[voice] + 0.3 * draw.normal(size=(2, 256))
            vectors.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
            group.append(voice)
    return Targets(np.float16(mels), np.float32(vectors), np.array(group, np.int64))


@pytest.mark.parametrize("extra", [[], ["--out", "x.safetensors", "--report"]])
def test_one_of_training_and_report_is_asked_for(extra: list[str]) -> None:
    with pytest.raises(UsageError, match="exactly one"):
        train_speaker.main(["--data", ".", *extra])


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="not overwritten"):
        train_speaker.main(["--data", ".", "--out", str(tmp_path / "there")])


def test_an_unknown_recipe_key_is_named(tmp_path: Path) -> None:
    text = train_speaker.RECIPE.read_text().replace("learning_rate", "learning_rat")
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(BadSettings, match="learning_rat"):
        SpeakerRecipe.load(tmp_path / "recipe.toml")


def test_a_folder_without_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match=r"splits\.json"):
        list_base(tmp_path)


def test_only_base_speakers_and_commands_are_read(tmp_path: Path) -> None:
    corpus = tmp_path / "librispeech" / "part"
    corpus.mkdir(parents=True)
    (tmp_path / "librispeech" / "splits.json").write_text('{"base": ["7"], "dev_test": ["8"]}')
    (tmp_path / "picovoice-commands").mkdir()
    for name in ("part/7-1-0001.opus", "part/8-1-0001.opus", "../picovoice-commands/abc.opus"):
        (tmp_path / "librispeech" / name).touch()
    assert [speaker for speaker, _ in list_base(tmp_path)] == ["7", "abc"]


def test_augmentation_resamples_and_stays_in_range() -> None:
    samples = np.random.default_rng(1).normal(0, 0.3, 32_000).astype(np.float32)
    for seed in range(8):
        changed, speed = augment(samples, RECIPE, np.random.default_rng(seed))
        assert speed in RECIPE.speed_factors
        assert len(changed) == pytest.approx(32_000 / speed, abs=2)
        assert np.abs(changed).max() <= 1.0
        again, _ = augment(samples, RECIPE, np.random.default_rng(seed))
        assert (again == changed).all()


def test_silent_chunks_are_left_out() -> None:
    draw = np.random.default_rng(2)
    samples = draw.normal(0, 0.1, 3 * 51_200).astype(np.float32)
    samples[51_200 : 2 * 51_200] = 0.0
    assert len(list(cut_chunks(samples, 320, draw))) == 2
    assert not list(cut_chunks(samples[:51_199], 320, draw))


def test_smoothing_pulls_windows_to_their_voice() -> None:
    targets = _targets()
    smooth = smooth_targets(targets, RECIPE)
    assert np.linalg.norm(smooth, axis=2) == pytest.approx(1.0, abs=1e-5)
    before = targets.windows[0, 0] @ targets.windows[3, 1]
    assert smooth[0, 0] @ smooth[3, 1] > before + 0.01


def test_a_student_learns_and_its_file_loads(tmp_path: Path) -> None:
    small = {"steps": 60, "batch": 8, "crop_frames": (40, 60), "whole_chunk_share": 0.0}
    recipe = RECIPE.model_copy(update=small)
    targets = _targets()
    student = distil(targets, recipe)
    digest = save_encoder(student, recipe, tmp_path / "s.safetensors")
    assert len(digest) == 64
    loaded = load_speaker_encoder(tmp_path / "s.safetensors")
    found = np.stack([loaded.embed(mel.astype(np.float32)) for mel in targets.log_mel[::6]])
    wanted = smooth_targets(targets, recipe)[::6].mean(1)
    assert ((found @ wanted.T).argmax(1) == np.arange(4)).all()


def test_trial_figures_by_hand() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    speakers, sexes = np.array(["a", "a", "b", "b"]), np.array(["F", "F", "F", "F"])
    figures = trial_figures(vectors, speakers, sexes)
    assert figures["pair_cosine_same"] == 1.0
    assert figures["pair_cosine_different"] == 0.0
    assert figures["centroid_cosine_same"] == 1.0
    assert figures["centroid_cosine_different"] == 0.0
    assert figures["eer"] == 0.0
    assert json.loads(json.dumps(figures)) == figures


@needs_teacher
def test_targets_hold_the_teachers_vectors(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    draw = np.random.default_rng(4)
    soundfile.write(path, draw.normal(0, 0.1, 60_000).astype(np.float32), 16_000)
    recipe = RECIPE.model_copy(update={"passes": 2})
    targets = compute_targets([("a", path), ("b", path)], recipe, load_ge2e())
    assert targets.log_mel.shape[1:] == (320, 80)
    assert targets.windows.shape == (len(targets.group), 2, 256)
    assert np.linalg.norm(targets.windows, axis=2) == pytest.approx(1.0, abs=1e-4)


@needs_teacher
def test_the_teachers_mel_is_the_one_it_was_trained_on() -> None:
    librosa = pytest.importorskip("librosa")
    samples = np.random.default_rng(5).normal(0, 0.2, 16_000).astype(np.float32)
    ours = ge2e_mel(samples)
    theirs = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=40
    ).T
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5 * float(theirs.max()))
    vector = load_ge2e().embed(samples)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert len(ours) < GE2E_FRAMES
