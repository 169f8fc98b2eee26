"""The embedded corpus: nothing half-written, the same bytes, and voices that differ."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from chorister.shared.errors import UsageError
from chorister.simulations import embedded
from chorister.simulations.corpus import open_corpus
from chorister.simulations.embedded import SENTENCES, VOICES, embedded_corpus, synthesise_corpus
from chorister.simulations.espeak import Voice
from chorister.simulations.separation import measure_separation, shipped_embed
from chorister.simulations.speakers import Piece, Skipped

needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="needs the extra 'embedded'"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two voices and two sentences, for what does not depend on how many there are."""
    monkeypatch.setattr(embedded, "VOICES", dict(list(VOICES.items())[:2]))
    monkeypatch.setattr(embedded, "SENTENCES", SENTENCES[:2])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"chorister\[embedded\].*--data"):
        synthesise_corpus(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@needs_espeak
@pytest.mark.usefixtures("small")
def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="new or empty"):
        synthesise_corpus(tmp_path)
    assert list(contents(tmp_path)) == ["mine.txt"]
    with pytest.raises(UsageError, match="new or empty"):
        synthesise_corpus(tmp_path / "mine.txt")


@needs_espeak
@pytest.mark.usefixtures("small")
def test_a_voice_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voices = {"good": Voice("gmw/en-US"), "bad": Voice("gmw/nowhere")}
    monkeypatch.setattr(embedded, "VOICES", voices)
    with pytest.raises(UsageError, match="voice gmw/nowhere"):
        synthesise_corpus(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@needs_espeak
@pytest.mark.usefixtures("small")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="writable folder"):
        synthesise_corpus(tmp_path / "file" / "out")


@needs_espeak
@pytest.mark.usefixtures("small")
def test_the_same_bytes_and_the_transcripts(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = synthesise_corpus(tmp_path / "a"), synthesise_corpus(tmp_path / "b")
    assert contents(first) == contents(second)
    corpus = open_corpus(first)
    assert [s.name for s in corpus.speakers] == ["amber", "birch"]
    for speaker in corpus.speakers:
        assert tuple(u.transcript() for u in speaker.utterances) == SENTENCES[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@needs_espeak
@pytest.mark.usefixtures("small")
def test_a_whole_corpus_is_reused_and_a_damaged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded.sys, "platform", "linux")
    folder = embedded_corpus()
    assert folder.is_relative_to(tmp_path)
    whole = contents(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    assert embedded_corpus() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")} == stamps
    victim = folder / "birch" / "birch-01.wav"
    victim.write_bytes(victim.read_bytes()[:-2])
    with pytest.raises(UsageError, match="something else"):
        synthesise_corpus(folder)
    assert embedded_corpus() == folder
    assert contents(folder) == whole


@needs_espeak
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recipe": 1, "files": 3}'])
def test_a_damaged_manifest_is_no_corpus(tmp_path: Path, text: str) -> None:
    folder = synthesise_corpus(tmp_path / "a")
    (folder / embedded.MANIFEST).write_text(text)
    with pytest.raises(UsageError, match="something else"):
        synthesise_corpus(folder)
    assert json.loads((synthesise_corpus(folder, replace=True) / embedded.MANIFEST).read_text())


def test_enough_voices_and_sentences() -> None:
    assert len(VOICES) >= 12 and len({voice.identifier for voice in VOICES.values()}) == len(VOICES)
    assert len(set(SENTENCES)) >= 20
    letters = set("".join(SENTENCES).lower())
    assert set("abcdefghijklmnopqrstuvwxyz") <= letters


@needs_espeak
@pytest.mark.slow
def test_the_voices_are_apart(tmp_path: Path) -> None:
    corpus = open_corpus(synthesise_corpus(tmp_path / "corpus"))
    skipped = Skipped()
    for speaker in corpus.speakers:
        recordings = speaker.read_all(map(Piece, speaker.utterances), skipped)
        assert all(1.2 < recording.duration_s < 5 for recording in recordings)
    assert not skipped.reasons
    found = measure_separation(corpus.speakers, shipped_embed())
    assert found.identified > 0.95
    assert found.same - found.different > 0.2
    assert found.closest[2] < found.same
