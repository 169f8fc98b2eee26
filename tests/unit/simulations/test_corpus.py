"""Folders of speech: what is no corpus first, then the three layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadCorpus
from chorister.simulations.corpus import open_corpus, read_split, screen_corpus
from chorister.simulations.speakers import Skipped, split_speaker

RATE = 16_000
REAL = Path(__file__).parents[3].parent / "shared" / "data" / "librispeech"


def touch(root: Path, *names: str) -> Path:
    """Files without audio in them: a listing must not open them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def listing(root: Path) -> dict[str, list[str]]:
    corpus = open_corpus(root)
    return {s.name: [u.name for u in s.utterances] for s in corpus.speakers}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((), "is empty"),
        (("notes.txt", "sub/picture.png"), "no audio file"),
        (("anna/a.wav", "anna/b.wav"), "1 speaker"),
        (("a.wav", "b.wav"), "0 speaker"),
        ((".hidden/a.wav", "x/._a.wav"), "no audio file"),
    ],
)
def test_what_is_no_corpus(tmp_path: Path, files: tuple[str, ...], found: str) -> None:
    with pytest.raises(BadCorpus, match=found):
        open_corpus(touch(tmp_path, *files))


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="does not exist"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(BadCorpus, match="is a file"):
        open_corpus(touch(tmp_path, "a.wav") / "a.wav")


def test_one_folder_for_each_speaker(tmp_path: Path) -> None:
    touch(tmp_path, "bob/2.MP3", "bob/1.flac", "anna/x/deep.opus", "anna/a.wav", "stray.wav")
    assert open_corpus(tmp_path).layout == "folders"
    assert listing(tmp_path) == {"anna": ["a", "deep"], "bob": ["1", "2"]}


def test_transcripts_beside_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "anna/a.wav", "anna/b.wav", "bob/a.wav", "bob/b.wav")
    (tmp_path / "anna/a.txt").write_text("its own file\n")
    (tmp_path / "bob/bob.trans.txt").write_text("a IN A LIST\nab NOT THIS\n")
    anna, bob = open_corpus(tmp_path).speakers
    assert [u.transcript() for u in anna.utterances] == ["its own file", None]
    assert [u.transcript() for u in bob.utterances] == ["IN A LIST", None]


def test_a_librispeech_tree(tmp_path: Path) -> None:
    touch(tmp_path, "84/121123/84-121123-0001.flac", "84/121123/84-121123-0000.flac")
    touch(tmp_path, "84/121550/84-121550-0000.flac", "174/50561/174-50561-0000.flac")
    (tmp_path / "84/121123/84-121123.trans.txt").write_text("84-121123-0001 GO ON\n")
    corpus = open_corpus(tmp_path)
    assert corpus.layout == "LibriSpeech"
    assert [s.name for s in corpus.speakers] == ["174", "84"]
    utterances = corpus.speaker("84").utterances
    assert [u.name for u in utterances] == ["84-121123-0000", "84-121123-0001", "84-121550-0000"]
    assert [u.transcript() for u in utterances] == [None, "GO ON", None]


def test_a_flat_folder_of_librispeech_names(tmp_path: Path) -> None:
    touch(tmp_path, "103-1240-0000.opus", "19-198-0001.opus")
    assert listing(tmp_path) == {"103": ["103-1240-0000"], "19": ["19-198-0001"]}


@pytest.mark.parametrize("above", ["", "VCTK-Corpus-0.92/"])
def test_a_vctk_tree_uses_one_microphone(tmp_path: Path, above: str) -> None:
    audio = f"{above}wav48_silence_trimmed"
    touch(tmp_path, f"{audio}/p225/p225_001_mic1.flac", f"{audio}/p225/p225_001_mic2.flac")
    touch(tmp_path, f"{audio}/p280/p280_001_mic1.flac", f"{audio}/log.wav")
    touch(tmp_path, f"{above}txt/p225/p225_001.txt")
    (tmp_path / f"{above}txt/p225/p225_001.txt").write_text("Please call Stella.\n")
    corpus = open_corpus(tmp_path)
    assert corpus.layout == "VCTK"
    assert listing(tmp_path) == {"p225": ["p225_001_mic1"], "p280": ["p280_001_mic1"]}
    assert corpus.speaker("p225").utterances[0].transcript() == "Please call Stella."


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "anna/a.wav")
    touch(tmp_path / "elsewhere", "b.wav")
    (root / "bob").symlink_to(tmp_path / "elsewhere")
    (root / "anna" / "loop").symlink_to(root)
    assert listing(root) == {"anna": ["a"], "bob": ["b"]}


def test_only_some_speakers(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/a.wav" for name in "abcdef"))
    corpus = open_corpus(tmp_path, speakers=["e", "b"], shift="room")
    assert [(s.name, s.shift) for s in corpus.speakers] == [("b", "room"), ("e", "room")]
    with pytest.raises(BadCorpus, match=r"2 of 3 missing .*: y, z"):
        open_corpus(tmp_path, speakers=["a", "z", "y"])


@pytest.mark.parametrize("text", ["", "[1]", '{"clients": "all"}', '{"clients": [1]}'])
def test_a_bad_split_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(BadCorpus, match="speaker"):
        read_split(path, "clients")
    with pytest.raises(BadCorpus, match="No such file"):
        read_split(tmp_path / "none.json", "clients")


def test_a_split_file(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"clients": ["b", "a"], "base": []}))
    assert read_split(path, "clients") == ("b", "a")
    with pytest.raises(BadCorpus, match=r"Lists in it: base, clients\."):
        read_split(path, "client")


def test_screening_needs_two_speakers_that_remain(tmp_path: Path) -> None:
    t = np.arange(3 * RATE) / RATE
    good = 0.2 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t)
    touch(tmp_path, "bad/a.wav")
    for name in ("anna", "bob"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", good, RATE)
    skipped = Skipped()
    screened = screen_corpus(open_corpus(tmp_path), skipped)
    assert [s.name for s in screened.speakers] == ["anna", "bob"] and len(skipped) == 1
    (tmp_path / "bob" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(BadCorpus, match=r"1 of 3 .*2 file"):
        screen_corpus(open_corpus(tmp_path), Skipped())


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real speech in ../shared/data")
def test_real_speech() -> None:
    names = read_split(REAL / "splits.json", "clients")
    corpus = open_corpus(REAL, speakers=names)
    assert [s.name for s in corpus.speakers] == sorted(names)
    speaker = corpus.speakers[0]
    assert speaker.utterances[0].transcript()
    split = split_speaker(speaker)
    assert len(split.enrolment) >= 8 and not split.single_recording
    assert 1 < speaker.read(split.held_out[0]).duration_s < 40
