"""Evaluation: bad requests first, then the roles of recordings, the judges and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from chorister.shared.errors import BadCorpus, BadWeights, UsageError
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.base import save_base
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.metrics import log_spectral_distance_db
from chorister.shared.voice.model import ModelSettings, VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.shared.voice.vocoder import Vocoder
from chorister.simulations import evaluate
from chorister.simulations.judges import CosineJudge, MixtureJudge
from chorister.simulations.trials import (
    choose_voices,
    fixed_pairs,
    read_speakers,
)
from chorister.simulations.vocoder_copy import copy_by_vocoder, match_statistics

TINY = ModelSettings(
    content=8, encoder_width=16, encoder_blocks=1, decoder_width=16, decoder_blocks=1
)


def _speech(voice: int, sentence: int, seconds: float = 2.6) -> FloatArray:
    """Vowel-like sounds: a voice is a pitch and a vocal tract length, a sentence its movements."""
    draw = np.random.default_rng((voice, sentence))
    frames = int(seconds * 100)
    time = np.arange(frames) / 100.0
    bands = np.arange(80)
    length = 1.0 + 0.12 * (voice - 1)
    envelope = np.full((frames, 80), -5.0)
    for centre in (12.0, 28.0, 48.0, 64.0):
        move = 5.0 * np.sin(2 * np.pi * draw.uniform(1.0, 3.0) * time + draw.uniform(0, 6))
        envelope += 3.0 * np.exp(-(((bands - length * centre - move[:, None]) / 4.0) ** 2))
    voiced = np.sin(2 * np.pi * 1.3 * time + draw.uniform(0, 6)) > -0.6
    f0_hz = np.where(voiced, (110.0 + 50.0 * voice) * (1 + 0.1 * np.sin(5 * time)), 0.0)
    parts = [envelope, np.where(voiced[:, None], envelope - 2.0, envelope), f0_hz]
    harmonic, noise, pitch = (torch.from_numpy(np.float32(part))[None] for part in parts)
    hiss = torch.from_numpy(np.float32(draw.normal(size=(1, frames * 160))))
    samples = Vocoder()(harmonic, noise, pitch, hiss)[0].numpy()
    return np.asarray(0.3 * samples / np.abs(samples).max(), np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for voice in range(3):
        (folder / f"voice-{voice}").mkdir()
        for sentence in range(7):
            path = folder / f"voice-{voice}" / f"{sentence}.wav"
            soundfile.write(path, _speech(voice, sentence), 16_000)
    return folder


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="absent"):
        choose_voices(tmp_path / "absent", None, enrolment=3, tests=2, most=9)


def test_an_unknown_speaker_is_named(corpus: Path) -> None:
    with pytest.raises(BadCorpus, match="nobody"):
        choose_voices(corpus, ["voice-1", "nobody"], enrolment=3, tests=2, most=9)


def test_too_few_recordings_are_counted(corpus: Path) -> None:
    with pytest.raises(BadCorpus, match=r"two speakers with 9 recordings .* Found: 0"):
        choose_voices(corpus, None, enrolment=5, tests=2, most=9)


def test_a_split_names_speakers(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"dev": ["7", "8"]}')
    assert read_speakers(f"{tmp_path / 's.json'}:dev") == ("7", "8")
    with pytest.raises(UsageError, match="FILE:NAME"):
        read_speakers("no-colon")
    with pytest.raises(BadCorpus, match="no list 'test'"):
        read_speakers(f"{tmp_path / 's.json'}:test")


@pytest.mark.parametrize(
    ("extra", "rule"),
    [
        (["--targets", "0"], "--targets is at least 1"),
        (["--voices", "1"], "--voices is at least 2"),
        (["--targets", "8", "--voices", "4"], "at least --targets"),
    ],
)
def test_out_of_range_options_are_refused(corpus: Path, extra: list[str], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        evaluate.main(["--data", str(corpus), *extra])


def test_audio_goes_to_a_new_folder_only(corpus: Path) -> None:
    with pytest.raises(UsageError, match="new or empty folder"):
        evaluate.main(["--data", str(corpus), "--save-audio", str(corpus)])


def test_bad_weights_are_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadWeights):
        evaluate.main(["--data", str(corpus), "--weights", str(tmp_path / "base.safetensors")])


def test_no_recording_has_two_roles(corpus: Path) -> None:
    for voice in choose_voices(corpus, None, enrolment=3, tests=2, most=9):
        roles = [voice.enrolment, voice.tests, voice.reference]
        assert [len(role) for role in roles] == [3, 2, 2]
        assert len({recording.name for role in roles for recording in role}) == 7


def test_an_unreadable_recording_is_passed_over(corpus: Path, tmp_path: Path) -> None:
    for voice in ("a", "b"):
        (tmp_path / voice).mkdir()
        for sentence in range(7):
            target = tmp_path / voice / f"{sentence}.wav"
            target.write_bytes((corpus / "voice-0" / f"{sentence}.wav").read_bytes())
        (tmp_path / voice / "3b.wav").write_bytes(b"RIFF but no more")
    voices = choose_voices(tmp_path, None, enrolment=3, tests=2, most=9)
    assert [recording.name for recording in voices[0].tests] == ["3.wav", "4.wav"]


def test_pairs_are_fixed_and_never_of_one_voice() -> None:
    pairs = fixed_pairs(voices=5, tests=2, targets=3, sources=4)
    assert pairs == fixed_pairs(voices=5, tests=2, targets=3, sources=4)
    assert len({(pair.source, pair.target) for pair in pairs}) == 12
    assert all(pair.source != pair.target for pair in pairs)
    assert len(fixed_pairs(voices=2, tests=1, targets=6, sources=9)) == 2


def test_the_judges_know_the_voices() -> None:
    references = [
        [Recording(_speech(voice, sentence), "r") for sentence in range(3)] for voice in range(3)
    ]
    judges = [
        CosineJudge("own encoder", load_speaker_encoder(), references),
        MixtureJudge(references),
    ]
    for judge in judges:
        scores = np.stack([judge.score(_speech(voice, 9)) for voice in range(3)])
        assert (scores.argmax(1) == np.arange(3)).all(), judge.name


def test_the_mixture_judge_ignores_level_and_channel() -> None:
    references = [[Recording(_speech(voice, s), "r") for s in range(2)] for voice in range(2)]
    judge = MixtureJudge(references)
    plain = _speech(0, 9)
    coloured = np.convolve(plain, [0.6, -0.2], "same").astype(np.float32)
    assert judge.score(coloured) == pytest.approx(judge.score(plain), abs=0.15)
    assert judge.score(plain)[0] > judge.score(plain)[1] + 0.3


def test_the_vocoder_copy_comes_close() -> None:
    samples = _speech(1, 0, seconds=1.0)
    features = extract_features(Recording(samples, "r"))
    far = copy_by_vocoder(features, samples, steps=0)
    near = copy_by_vocoder(features, samples, steps=30)
    assert (near == copy_by_vocoder(features, samples, steps=30)).all()
    distances = [log_spectral_distance_db(features.log_mel, log_mel(x)) for x in (far, near)]
    assert distances[1] < 0.85 * distances[0]
    assert distances[1] < 3.5


def test_matching_statistics_reaches_the_targets() -> None:
    recordings = [[Recording(_speech(voice, s), "r") for s in range(3)] for voice in (0, 2)]
    encoder, model = load_speaker_encoder(), load_base()
    source, target = (profile_from(one, encoder, model) for one in recordings)
    converted = match_statistics(extract_features(recordings[0][0]), source, target)
    found = profile_from([Recording(converted, "r")], encoder, model)
    assert found.log_f0_median == pytest.approx(target.log_f0_median, abs=0.06)
    before = np.abs(source.mel_mean - target.mel_mean).mean()
    assert np.abs(found.mel_mean - target.mel_mean).mean() < 0.6 * before


def test_a_whole_run(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "base.safetensors"
    save_base(VoiceModel(TINY), weights)
    arguments = ["--data", str(corpus), "--weights", str(weights), "--references", "3"]
    arguments += ["--targets", "1", "--sources", "2", "--no-phones", "--adapt", "personal"]
    assert evaluate.main([*arguments, "--save-audio", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["voices"] == ["voice-0", "voice-1", "voice-2"]
    assert [(p["source"], p["target"]) for p in report["pairs"]] == [
        ("voice-1", "voice-0"),
        ("voice-2", "voice-0"),
    ]
    assert "own encoder" in report["judges"]
    assert "gmm-ubm" in report["judges"]
    systems = report["systems"]
    real, source = systems["real target"], systems["source, unconverted"]
    assert real["identified (own encoder)"]["mean"] == 1.0
    assert source["identified (own encoder)"]["mean"] == 0.0
    assert source["residual (own encoder)"]["mean"] > source["similarity (own encoder)"]["mean"]
    # An untrained model says nothing well; the vocoder's own copy is near.
    assert systems["vocoder copy"]["lsd_db"]["mean"] < systems["own-voice copy"]["lsd_db"]["mean"]
    assert systems["zero-shot"]["rtf"]["mean"] > 0.0
    assert "per" not in systems["zero-shot"]
    assert systems["personalised"]["adapter_kept"]["mean"] in (0.0, 1.0)
    assert systems["personalised"]["adapting_s"]["mean"] > 0.0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "voice-1-to-voice-0-zero-shot.wav" in written
    assert len(written) == 2 + 2 * 4
