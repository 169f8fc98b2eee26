"""Splits of a speaker's recordings: disjoint, stable, and honest about a single recording."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadAudio, BadCorpus
from chorister.simulations.speakers import (
    GAP_S,
    Piece,
    Skipped,
    Speaker,
    SpeakerSplit,
    Utterance,
    hold_out_speakers,
    screen_speaker,
    split_speaker,
)

RATE = 16_000


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    return (0.1 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(2 * np.pi * 3 * t)) + noise).astype(
        "f4"
    )


def speaker_of(folder: Path, lengths_s: list[float], name: str = "anna") -> Speaker:
    folder = folder / name
    folder.mkdir(parents=True)
    paths = [folder / f"{name}-{number:03}.wav" for number in range(len(lengths_s))]
    for number, (path, length_s) in enumerate(zip(paths, lengths_s, strict=True)):
        soundfile.write(path, voice(length_s, number), RATE)
    return Speaker(name, tuple(Utterance(path) for path in paths))


def named(count: int, name: str = "anna") -> Speaker:
    """A speaker of files that do not exist: what is lazy must not miss them."""
    return Speaker(name, tuple(Utterance(Path(f"/nowhere/{n:03}.wav")) for n in range(count)))


def roles(split: SpeakerSplit) -> list[tuple[Piece, ...]]:
    return [split.enrolment, split.training, split.held_out]


@pytest.mark.parametrize("count", [3, 4, 5, 12, 20, 60, 200])
def test_whole_files_are_divided_without_overlap(count: int) -> None:
    speaker = named(count)
    split = split_speaker(speaker)
    used = [piece.utterance for role in roles(split) for piece in role]
    assert sorted(used, key=lambda u: u.name) == list(speaker.utterances)
    assert all(roles(split)) and not split.single_recording
    assert all(piece.stop_samples is None for role in roles(split) for piece in role)


@pytest.mark.parametrize(
    ("count", "enrolment", "held_out"), [(3, 1, 1), (16, 8, 2), (20, 8, 3), (60, 18, 9)]
)
def test_shares(count: int, enrolment: int, held_out: int) -> None:
    split = split_speaker(named(count))
    assert (len(split.enrolment), len(split.held_out)) == (enrolment, held_out)


def test_sessions_are_mixed_and_the_order_of_the_listing_does_not_matter() -> None:
    speaker = named(40)
    split = split_speaker(speaker)
    numbers = [int(piece.utterance.name) for piece in split.enrolment]
    assert min(numbers) < 15 < 25 < max(numbers)
    reordered = Speaker(speaker.name, tuple(reversed(speaker.utterances)))
    assert split_speaker(reordered) == split


def test_one_recording_of_twelve_seconds_is_cut_in_4_6_and_2(tmp_path: Path) -> None:
    speaker = speaker_of(tmp_path, [12.5])
    split = split_speaker(speaker)
    assert split.single_recording
    places = [(p.start_samples / RATE, (p.stop_samples or 0) / RATE) for (p,) in roles(split)]
    assert places == [(0.0, 4.0), (4.25, 10.25), (10.5, 12.5)]
    whole = voice(12.5)
    for (piece,) in roles(split):
        recording = speaker.read(piece)
        expected = whole[piece.start_samples : piece.stop_samples]
        np.testing.assert_allclose(recording.samples, expected, atol=2e-3)
        assert recording.samples.base is None


@pytest.mark.parametrize("length_s", [1.95, 3.0, 7.3, 40.0])
def test_pieces_of_one_recording_never_touch(tmp_path: Path, length_s: float) -> None:
    split = split_speaker(speaker_of(tmp_path, [length_s]))
    pieces = [role[0] for role in roles(split)]
    for before, after in itertools.pairwise(pieces):
        assert before.stop_samples is not None
        gap_s = (after.start_samples - before.stop_samples) / RATE
        assert gap_s == pytest.approx(min(GAP_S, 0.02 * length_s), abs=2e-4)
    assert pieces[-1].stop_samples == pytest.approx(length_s * RATE, abs=1)


def test_two_recordings_keep_enrolment_apart(tmp_path: Path) -> None:
    split = split_speaker(speaker_of(tmp_path, [5.0, 5.0]))
    assert split.single_recording
    assert split.enrolment[0].utterance != split.training[0].utterance
    assert split.training[0].utterance == split.held_out[0].utterance
    assert split.training[0].stop_samples < split.held_out[0].start_samples


def test_one_recording_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match=r"1\.5 s in .*anna-000"):
        split_speaker(speaker_of(tmp_path, [1.5]))


def test_a_shift_is_applied_after_cutting(tmp_path: Path) -> None:
    """What lies beside a piece, in the same file, must not reach into it."""
    folder = tmp_path / "a"
    folder.mkdir()
    samples = voice(4.0)
    soundfile.write(folder / "x.wav", samples, RATE, subtype="FLOAT")
    speaker = Speaker("a", (Utterance(folder / "x.wav"),), shift="room")
    piece = Piece(speaker.utterances[0], 2 * RATE, 3 * RATE)
    first = speaker.read(piece).samples
    samples[: RATE + RATE // 2] = samples[: RATE + RATE // 2][::-1].copy()
    soundfile.write(folder / "x.wav", samples, RATE, subtype="FLOAT")
    second = speaker.read(piece).samples
    assert not np.allclose(first, Speaker("a", speaker.utterances).read(piece).samples, atol=1e-3)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_file_that_changed_is_decoded_again(tmp_path: Path) -> None:
    speaker = speaker_of(tmp_path, [2.0])
    piece = Piece(speaker.utterances[0], 0, 100)
    first = speaker.read(piece).samples
    first[:] = 0
    assert speaker.read(piece).samples.any()
    soundfile.write(speaker.utterances[0].path, voice(2.5, 9), RATE)
    assert len(speaker.read(Piece(speaker.utterances[0])).samples) == 2.5 * RATE


def test_reading_a_piece_beyond_the_file_is_refused(tmp_path: Path) -> None:
    speaker = speaker_of(tmp_path, [2.0])
    with pytest.raises(BadAudio, match="within its recording"):
        speaker.read(Piece(speaker.utterances[0], 5 * RATE))


def test_bad_files_are_skipped_with_reasons_and_counted_once(tmp_path: Path) -> None:
    speaker = speaker_of(tmp_path, [2.0, 2.0, 2.0])
    broken, silent, _ = (utterance.path for utterance in speaker.utterances)
    broken.write_bytes(b"no audio")
    soundfile.write(silent, np.zeros(RATE), RATE)
    skipped = Skipped()
    pieces = [Piece(utterance) for utterance in speaker.utterances]
    for _ in range(2):
        assert len(speaker.read_all(pieces, skipped)) == 1
    assert len(skipped) == 2
    assert [path for path, _ in skipped.listing()] == [str(broken), str(silent)]
    assert "2 file(s) skipped" in skipped.summary() and "silent" in skipped.listing()[1][1]
    with pytest.raises(BadCorpus, match="none for speaker anna"):
        speaker.read_all(pieces[:2], skipped)


def test_nothing_skipped_says_nothing() -> None:
    assert Skipped().summary() == "" and len(Skipped()) == 0


def test_screening_decodes_where_one_bad_file_matters(tmp_path: Path) -> None:
    few = speaker_of(tmp_path, [2.0] * 4, "few")
    many = speaker_of(tmp_path, [1.0] * 9, "many")
    for speaker in (few, many):
        soundfile.write(speaker.utterances[1].path, np.zeros(2 * RATE), RATE)
        speaker.utterances[2].path.write_bytes(b"")
    skipped = Skipped()
    screened = screen_speaker(few, skipped)
    assert screened is not None and len(screened.utterances) == 2
    screened = screen_speaker(many, skipped)
    assert screened is not None and len(screened.utterances) == 8
    assert len(skipped) == 3


def test_screening_drops_a_speaker_that_is_left_with_too_little(tmp_path: Path) -> None:
    skipped = Skipped()
    assert screen_speaker(speaker_of(tmp_path, [1.0], "short"), skipped) is None
    gone = Speaker("gone", (Utterance(tmp_path / "gone.wav"),))
    assert screen_speaker(gone, skipped) is None
    assert len(skipped) == 2


def many_speakers(count: int) -> list[Speaker]:
    return [named(1, f"s{number}") for number in range(count)]


def test_more_clients_than_speakers_tells_both_numbers() -> None:
    with pytest.raises(BadCorpus) as caught:
        hold_out_speakers(many_speakers(6), 0.25, seed=1, clients=8)
    assert "8 clients and 3 held out wanted, 6 usable" in caught.value.found
    assert "at most 4 clients" in caught.value.advice
    clients, held_out = hold_out_speakers(many_speakers(6), 0.25, seed=1, clients=4)
    assert (len(clients), len(held_out)) == (4, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_one_speaker_is_no_federation(count: int) -> None:
    with pytest.raises(BadCorpus, match="at least two"):
        hold_out_speakers(many_speakers(count), 0.2, seed=1)


@pytest.mark.parametrize(
    ("count", "share", "clients", "expected"),
    [
        (10, 0.2, None, (8, 2)),
        (10, 0.0, None, (10, 0)),
        (2, 0.9, None, (1, 1)),
        (32, 0.25, 6, (6, 2)),
        (32, 0.01, 6, (6, 1)),
        (100, 0.0, 100, (100, 0)),
    ],
)
def test_how_many(count: int, share: float, clients: int | None, expected: tuple[int, int]) -> None:
    chosen, held_out = hold_out_speakers(many_speakers(count), share, 7, clients)
    assert (len(chosen), len(held_out)) == expected
    assert not {s.name for s in chosen} & {s.name for s in held_out}


def test_the_seed_chooses_and_the_order_of_the_corpus_stays() -> None:
    speakers = many_speakers(30)
    first = hold_out_speakers(speakers, 0.3, 1)
    assert first == hold_out_speakers(speakers, 0.3, 1)
    assert first != hold_out_speakers(speakers, 0.3, 2)
    for group in first:
        assert [s.name for s in group] == [s.name for s in speakers if s in group]
