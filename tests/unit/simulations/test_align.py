"""Forced alignment: labels on the model's frames, and words that it cannot know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.simulations.align import PHONES, align, main
from chorister.simulations.base_data import (
    Corpus,
    Utterance,
    cache_name,
    list_utterances,
    prepare,
    write_cache,
)

pocketsphinx = pytest.importorskip("pocketsphinx")
SPEECH = Path(__file__).parents[4] / "shared" / "data" / "librispeech" / "test-clean" / "1221"


@pytest.fixture(scope="module")
def decoder() -> object:
    return pocketsphinx.Decoder(lm=None, loglevel="FATAL")


def test_the_phones_are_the_dictionary_s() -> None:
    assert len(PHONES) == len(set(PHONES)) == 40
    assert PHONES[0] == "SIL"


def test_a_word_outside_the_dictionary_is_not_guessed(decoder: object) -> None:
    assert align(decoder, np.zeros(16_000, np.int16), "the xqzzt") is None


def test_a_possessive_is_made_from_its_stem(decoder: object) -> None:
    assert decoder.lookup_word("teapot's") is None  # type: ignore[attr-defined]
    align(decoder, np.zeros(16_000, np.int16), "the teapot's")
    assert decoder.lookup_word("teapot's").endswith(" S")  # type: ignore[attr-defined]


@pytest.mark.skipif(not SPEECH.is_dir(), reason="../shared/data is missing")
def test_real_speech_is_labelled_on_our_frames(decoder: object) -> None:
    chapter = sorted(SPEECH.iterdir())[0]
    name, text = next(iter(sorted(chapter.glob("*.trans.txt"))[0].open())).strip().split(" ", 1)
    samples, _ = soundfile.read(chapter / f"{name}.opus", dtype="int16")
    labels = align(decoder, samples, text.lower())
    assert labels is not None
    assert len(labels) == len(samples) // 160
    spoken = labels >= 0
    assert spoken.mean() > 0.95
    assert 0.03 < (labels[spoken] == 0).mean() < 0.5
    level = np.abs(samples[: len(labels) * 160].reshape(-1, 160).astype(float)).mean(axis=1)
    assert level[labels == 0].mean() < 0.5 * level[labels > 0].mean()


def corpus_of(root: Path, transcript: str | None) -> Utterance:
    folder = root / "speech" / "1" / "2"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    soundfile.write(folder / "1-2-0000.wav", 0.1 * rng.normal(size=16_100), 16_000)
    if transcript:
        (folder / "1-2.trans.txt").write_text(f"1-2-0000 {transcript}\n")
    (root / "splits.json").write_text(json.dumps({"base": ["1"]}))
    (found,) = list_utterances(root, Corpus("splits.json", "base", ("speech",), ()))
    return found


def test_labels_reach_the_training_and_missing_ones_are_marked(tmp_path: Path) -> None:
    utterance = corpus_of(tmp_path, "HELLO")
    assert utterance.transcript == "hello"
    cache = tmp_path / "cache"
    cache.mkdir()
    assert (prepare(utterance, cache).phones == -1).all()
    write_cache(cache / cache_name(utterance, "phones"), phones=np.arange(90, dtype=np.int8))
    ready = prepare(utterance, cache)
    assert ready.phones[:90].tolist() == list(range(90))
    assert (ready.phones[90:] == -1).all()
    assert len(ready.phones) == len(ready.f0_hz) == len(ready.samples) // 160 == 100


def test_a_changed_file_is_analysed_anew(tmp_path: Path) -> None:
    utterance = corpus_of(tmp_path, None)
    before = cache_name(utterance, "f0")
    soundfile.write(utterance.path, np.zeros(8_000), 16_000)
    assert cache_name(utterance, "f0") != before


def test_a_corpus_without_transcripts_is_skipped_with_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus_of(tmp_path, None)
    (tmp_path / "recipe.toml").write_text(
        '[data]\nsplit_file = "splits.json"\nsplit = "base"\nheld_out_split = "base"\n'
        'speaker_folders = ["speech"]\n'
        '[[stages]]\nkind = "reconstruction"\nsteps = 1\nbatch = 1\nlearning_rate = 1e-3\n'
    )
    arguments = [str(tmp_path / "recipe.toml"), "--data", str(tmp_path)]
    assert main([*arguments, "--cache", str(tmp_path / "cache")]) == 0
    assert "labelled 0 utterances; skipped 0; 1 have no transcript" in capsys.readouterr().out
