"""The benchmark of the speaker check: rates counted by hand, and pairs that are fair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client.same_speaker import VoicePrint
from chorister.shared.errors import BadCorpus, BadSettings, UsageError
from chorister.shared.types import FloatArray
from chorister.simulations.consent_benchmark import benchmark
from chorister.simulations.consent_pairs import (
    CHOOSING,
    ENROLMENT_S,
    REPORTED,
    Spoken,
    Trials,
    draw_enrolment,
    draw_trials,
    speakers_for,
)
from chorister.simulations.consent_rates import equal_error, limit_at, rates

Speech = Callable[[float, int], FloatArray]
RNG = np.random.default_rng(0)


def utterances(name: str, seed: int, chapters: int = 2, each: int = 5) -> list[Spoken]:
    centre = np.random.default_rng(seed).normal(size=256)
    found = []
    for chapter in range(chapters):
        for number in range(each):
            rows = centre + RNG.normal(0, 0.1, (6, 256))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            path = Path(f"{name}-{chapter}-{number}.wav")
            found.append(Spoken(path, str(chapter), 7.0, VoicePrint(rows.astype(np.float32))))
    return found


PRINTS = {"a": utterances("a", 1), "b": utterances("b", 2), "c": utterances("c", 3, 1, 1)}


def test_rates_are_counted() -> None:
    target = ("a",) * 4 + ("b",) * 4
    same = np.array([True, True, False, False] * 2)
    score = np.array([0.9, 0.7, 0.1, 0.85, 0.9, 0.95, 0.2, 0.3])
    found = rates(Trials(target, same, score), 0.8, 0)
    assert (found.false_accept, found.false_reject) == (0.25, 0.25)
    assert found.worst == ("a", 0.5)
    assert found.false_reject_interval == (0.0, 0.5)
    assert found.speakers == 2


def test_the_equal_error_is_where_both_rates_meet() -> None:
    assert equal_error(np.array([0.8, 0.9]), np.array([0.1, 0.2]))[0] == 0.0
    rate, at = equal_error(np.array([0.5, 0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3, 0.75]))
    assert rate == 0.25
    assert 0.5 < at <= 0.75


def test_the_limit_at_a_rate_lets_that_share_through() -> None:
    score = np.linspace(0.0, 1.0, 1001)
    trials = Trials(("a",) * 1001, np.zeros(1001, bool), score)
    assert np.mean(score >= limit_at(trials, 0.01)) == pytest.approx(0.01, abs=0.001)


def test_half_of_the_pairs_are_of_one_speaker_and_every_speaker_has_both_kinds() -> None:
    trials = draw_trials(PRINTS, ("a", "b"), ("c",), 40, 0)
    assert trials.same.sum() == 20
    for name in ("a", "b"):
        own = np.array([t == name for t in trials.target])
        assert trials.same[own].sum() == 10
    assert trials.score[trials.same].min() > trials.score[~trials.same].max()
    again = draw_trials(PRINTS, ("a", "b"), ("c",), 40, 0)
    np.testing.assert_array_equal(trials.score, again.score)


def test_a_statement_is_never_in_its_own_enrolment() -> None:
    for statement in PRINTS["a"]:
        chosen = draw_enrolment(RNG, PRINTS["a"], statement)
        assert statement.path not in {one.path for one in chosen}
        assert sum(one.seconds for one in chosen) >= ENROLMENT_S
        apart = draw_enrolment(RNG, PRINTS["a"], statement, apart=True)
        assert statement.chapter not in {one.chapter for one in apart}


def test_a_corpus_with_too_little_speech_is_said() -> None:
    with pytest.raises(BadCorpus, match="0 such speaker"):
        draw_trials({"c": PRINTS["c"]}, ("c",), (), 10, 0)


def test_who_is_reported_is_not_who_the_limit_was_chosen_on(tmp_path: Path) -> None:
    splits = {
        "dev_test": ["1", "2"], "clients": ["3"], "base_held_out": ["4"],
        "clients_cross_device": ["5", "6", "7", "8"],
    }  # fmt: skip
    (tmp_path / "librispeech").mkdir()
    (tmp_path / "librispeech" / "splits.json").write_text(json.dumps(splits))
    reported, chosen = (speakers_for(tmp_path, which) for which in (REPORTED, CHOOSING))
    assert reported == (("1", "2"), ("7", "8"))
    assert chosen == (("3", "4"), ("5", "6"))


def test_too_few_pairs_are_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--pairs 2000"):
        benchmark(["--data", str(two_voices), "--pairs", "10"])


@pytest.fixture
def two_voices(tmp_path: Path, speech: Speech) -> Path:
    """A folder with four recordings of each of two speakers."""
    for speaker, seed in (("anna", 1), ("boris", 2)):
        (tmp_path / speaker).mkdir()
        for number in range(4):
            samples = speech(8.0, 10 * seed + number)
            soundfile.write(tmp_path / speaker / f"{number}.wav", samples, 16_000)
    return tmp_path


def test_the_command_prints_the_rates(two_voices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark(["--data", str(two_voices), "--pairs", "100", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["pairs"], printed["speakers"]) == (100, 2)
    for name in ("false_accept_rate", "false_reject_rate", "equal_error_rate"):
        assert 0.0 <= printed[name] <= 1.0
    assert printed["threshold"] == 0.933


def test_voices_are_measured_on_a_corpus() -> None:
    with pytest.raises(UsageError, match="no --data"):
        benchmark(["--pairs", "100"])


def test_digits_are_held_against_what_was_said_and_against_other_challenges() -> None:
    from chorister.simulations.consent_digits import Hearing, digit_rates

    said = (4, 7, 1, 9, 0, 3)
    heard = [
        Hearing("a", said, said),
        Hearing("a", said, (4, 7, 1, 9, 0, 5)),
        Hearing("b", said, (1, 2, 1, 2)),
        Hearing("b", said, ()),
    ]
    found = digit_rates(heard, 0, wrong_each=500)
    assert (found.statements, found.exact, found.accepted) == (4, 0.25, 0.5)
    assert found.by_voice == {"a": (2, 0.5, 1.0), "b": (2, 0.0, 0.0)}
    assert found.wrong_tried == 2000
    assert found.wrong_accepted < 0.005


def test_a_recogniser_that_hears_anything_would_be_found_out() -> None:
    from chorister.client import enrolment_checks
    from chorister.simulations import consent_digits

    hearing = consent_digits.Hearing("a", (4, 7, 1, 9, 0, 3), (4, 7, 1, 9, 0, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consent_digits, "digits_match", lambda expected, heard: True)
        assert consent_digits.digit_rates([hearing], 0, wrong_each=50).wrong_accepted == 1.0
    assert enrolment_checks.MOST_MISHEARD == enrolment_checks.MOST_EXTRA == 1


def test_the_command_measures_digits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader", reason="needs the extra 'embedded'")
    pytest.importorskip("pocketsphinx", reason="hears the digits")
    from chorister.simulations import consent_digits

    monkeypatch.setattr(consent_digits, "WRONG_EACH", 100)
    assert benchmark(["--digits", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["digits"]
    assert found["statements"] == 2
    assert set(found["by_voice"]) == set(consent_digits.VOICES[:2])
    assert found["wrong_accepted"] < 0.05


def test_an_old_statement_with_anothers_digits_is_counted(
    two_voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", str(two_voices), "--pairs", "100", "--spliced", "8", "--json"]
    assert benchmark(command) == 0
    spliced = json.loads(capsys.readouterr().out)["spliced"]
    assert (spliced["pairs"], spliced["threshold"]) == (8, 0.86)
    assert spliced["accept_rate"] <= spliced["accept_rate_without"]


def test_a_forged_statement_is_counted_beside_the_same_one_unconverted(
    two_voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", str(two_voices), "--pairs", "100", "--forged", "2", "--json"]
    assert benchmark(command) == 0
    forged = json.loads(capsys.readouterr().out)["forged"]
    assert forged["attempts"] == 2
    assert 0.0 <= forged["accept_rate"] <= 1.0
    assert -1.0 <= forged["median_score"] <= 1.0
    assert forged["words_understood"] is None  # there are no transcripts here
