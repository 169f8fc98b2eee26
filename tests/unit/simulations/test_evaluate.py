"""Evaluation: bad requests first, then the roles of recordings, the judges and a whole run."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from chorister.shared.errors import BadCorpus, BadWeights, UsageError
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.base import load_base, save_base, trained_on
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.metrics import log_spectral_distance_db
from chorister.shared.voice.model import ModelSettings, VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.shared.voice.vocoder import Vocoder
from chorister.simulations import evaluate
from chorister.simulations.evaluation import calibrated_profile
from chorister.simulations.judges import CosineJudge, MixtureJudge
from chorister.simulations.trials import (
    Panel,
    Wanted,
    fixed_pairs,
    open_panel,
    read_sexes,
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


def panel(data: Path, names: list[str] | None = None, trained: tuple[str, ...] = ()) -> Panel:
    return open_panel(data, names, trained, Wanted(references=3))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="absent"):
        panel(tmp_path / "absent")


def test_an_unknown_speaker_is_named(corpus: Path) -> None:
    with pytest.raises(BadCorpus, match="nobody"):
        panel(corpus, ["voice-1", "nobody"])


def test_too_few_recordings_are_counted(corpus: Path) -> None:
    with pytest.raises(BadCorpus, match=r"two speakers with 9 recordings .* Found: 0"):
        open_panel(corpus, None, (), Wanted(references=5))


def test_a_table_of_speakers_without_sex_is_refused(tmp_path: Path) -> None:
    assert read_sexes(tmp_path / "data") == {}
    (tmp_path / "speakers.csv").write_text("id,gender\n1,F\n")
    with pytest.raises(BadCorpus, match="speaker_id and sex"):
        read_sexes(tmp_path / "data")


def test_sexes_are_read_beside_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "speakers.csv").write_text("speaker_id,sex\n1,F\n2, m\n3,\n4,other\n")
    assert read_sexes(tmp_path / "data") == {"1": "F", "2": "M"}


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
        (["--jobs", "-1"], "--jobs is at least 0"),
        (["--seconds-of-target", "0.5"], "--seconds-of-target is 1 to 3600"),
        (["--seconds-of-target", "nan"], "--seconds-of-target is 1 to 3600"),
        (["--conditions", "fog"], "--conditions takes all, none"),
        (["--page", "absent/page.html"], "folder that exists"),
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


def test_a_damaged_list_of_trained_speakers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="absent"):
        trained_on(tmp_path / "absent.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadWeights, match="junk"):
        trained_on(tmp_path / "junk.safetensors")


def test_speakers_that_the_weights_know_are_refused(corpus: Path, tmp_path: Path) -> None:
    weights = tmp_path / "base.safetensors"
    save_base(VoiceModel(TINY), weights, trained_on=["voice-1", "somebody", "voice-1"])
    assert trained_on(weights) == {"somebody", "voice-1"}
    arguments = ["--data", str(corpus), "--weights", str(weights), "--references", "3"]
    with pytest.raises(UsageError, match=r"1 of 2 are in the weights' list: voice-1"):
        evaluate.main([*arguments, "--speakers", "voice-0,voice-1"])


def test_without_names_only_unknown_speakers_are_taken(corpus: Path) -> None:
    found = panel(corpus, trained=("voice-1",))
    assert [voice.name for voice in found.tested] == ["voice-0", "voice-2"]
    assert len(found.background) == 6


def test_other_unknown_speakers_are_candidates(corpus: Path) -> None:
    found = panel(corpus, ["voice-0", "voice-2"], trained=("somebody",))
    assert [voice.name for voice in found.candidates] == ["voice-1"]
    assert (found.candidates[0].tests, len(found.candidates[0].reference)) == ((), 7)
    assert panel(corpus, ["voice-0", "voice-2"]).candidates == ()
    few = open_panel(corpus, ["voice-0", "voice-2"], ("x",), Wanted(references=3, most=2))
    assert few.candidates == ()


def test_no_recording_has_two_roles(corpus: Path) -> None:
    for voice in panel(corpus).tested:
        roles = [voice.enrolment, voice.tests, voice.reference]
        assert [len(role) for role in roles] == [3, 2, 2]
        assert len({recording.name for role in roles for recording in role}) == 7


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 1), (5.3, 2), (8.0, 3), (60.0, 3)])
def test_personalising_sees_so_many_seconds(corpus: Path, seconds: float, count: int) -> None:
    """Recordings are 2.6 s long; the seven of a voice leave none beyond the enrolment."""
    found = open_panel(corpus, None, (), Wanted(references=3, adaptation_s=seconds))
    assert [len(voice.adaptation) for voice in found.tested] == [count] * 3


def test_what_is_beyond_the_enrolment_is_used_for_adaptation(corpus: Path) -> None:
    voice = open_panel(corpus, None, (), Wanted(references=1, adaptation_s=60.0)).tested[0]
    # One enrolled, two tests, and of the other four all are reference.
    assert [r.name for r in voice.adaptation] == ["0.wav"]
    assert [r.name for r in voice.reference] == ["3.wav", "4.wav", "5.wav", "6.wav"]


def test_an_unreadable_recording_is_passed_over(corpus: Path, tmp_path: Path) -> None:
    for voice in ("a", "b"):
        (tmp_path / voice).mkdir()
        for sentence in range(7):
            target = tmp_path / voice / f"{sentence}.wav"
            target.write_bytes((corpus / "voice-0" / f"{sentence}.wav").read_bytes())
        (tmp_path / voice / "3b.wav").write_bytes(b"RIFF but no more")
    voices = panel(tmp_path).tested
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


def test_standard_scores_are_above_other_peoples() -> None:
    references = [
        [Recording(_speech(voice, sentence), "r") for sentence in range(3)] for voice in range(3)
    ]
    judge = MixtureJudge(references)
    scores = judge.standardise(judge.score(_speech(1, 9)))
    assert scores[1] > 2.0
    assert scores[1] > scores[0] + 1.0


def test_a_run_without_extras(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "base.safetensors"
    save_base(VoiceModel(TINY), weights, trained_on=["voice-2"])
    arguments = ["--data", str(corpus), "--weights", str(weights), "--references", "3"]
    arguments += ["--targets", "1", "--sources", "1", "--no-phones", "--conditions", "none"]
    assert evaluate.main([*arguments, "--save-audio", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "1 conversions among 2 voices, 2 voices told apart" in printed
    assert "| zero-shot | 1 | " in printed
    assert "personalised" not in printed
    assert "Note: Phones and words were not recognised" in printed
    assert (tmp_path / "out" / "manifest.csv").read_text().count("\n") == 2


@pytest.mark.slow
def test_a_whole_run(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "base.safetensors"
    save_base(VoiceModel(TINY), weights)
    (corpus / "speakers.csv").write_text("speaker_id,sex\nvoice-0,F\nvoice-1,M\nvoice-2,F\n")
    out, page = tmp_path / "out", tmp_path / "page.html"
    arguments = ["--data", str(corpus), "--weights", str(weights), "--references", "3"]
    arguments += ["--targets", "1", "--sources", "2", "--no-phones", "--adapt", "personal"]
    arguments += ["--conditions", "narrow", "--rivals", "--page", str(page)]
    assert evaluate.main([*arguments, "--save-audio", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["voices"] == report["candidates"] == ["voice-0", "voice-1", "voice-2"]
    assert [(p["source"], p["target"]) for p in report["pairs"]] == [
        ("voice-1", "voice-0"),
        ("voice-2", "voice-0"),
    ]
    assert {"own encoder", "gmm-ubm"} <= set(report["judges"])
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
    assert systems["personalised"]["target_s"]["mean"] == pytest.approx(7.8)
    assert "similarity (own encoder)" in report["gain"]
    assert set(report["directions"]) == {"M to F", "F to F", "same sex"}
    assert set(report["conditions"]) == {"narrow"}
    assert set(report["targets"]) == {"voice-0"}
    assert report["gates"]["zero-shot"]["files"] == 3
    assert set(report["worst_decile"]) == {"zero-shot", "personalised"}
    assert any("do not say whom they were trained on" in note for note in report["notes"])
    rivals = {"nearest neighbours", "differential"} & set(systems)
    assert len(rivals) == 2
    _check_audio(out)
    _check_page(page.read_text())


def _check_audio(out: Path) -> None:
    with (out / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["target", "source", "source_utterance", "converted", "references"]
    assert [(row["target"], row["source"]) for row in rows] == [
        ("voice-0", "voice-1"),
        ("voice-0", "voice-2"),
    ]
    assert rows[0]["references"] == "0;1;2"
    for row in rows:
        samples, rate = soundfile.read(out / row["converted"])
        assert (rate, samples.ndim) == (16_000, 1)
        assert row["converted"].startswith("personalised/")
    assert (out / "manifest-zero-shot.csv").is_file()
    assert (out / "narrow" / "zero-shot").is_dir()


def _check_page(page: str) -> None:
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("time, s") >= 4
    assert "frequency, kHz" in page
    assert "voice-1 in the voice of voice-0 (M to F)" in page
    assert "Gates, files" in page


def test_an_unknown_source_is_known_by_two_seconds_of_what_is_converted() -> None:
    recording = Recording(np.concatenate([_speech(3, n) for n in range(3)]), "x")
    known = profile_from([Recording(_speech(1, 1), "y")], load_speaker_encoder(), load_base())
    found = calibrated_profile(known, recording)
    assert not np.array_equal(found.mel_mean, known.mel_mean)
    assert found.log_f0_median != known.log_f0_median
    assert found.vector is known.vector
    silent = Recording(np.zeros(16_000, np.float32), "silent")
    assert calibrated_profile(known, silent) is known
