"""A second opinion on personal voices: what cannot be judged first, then that it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chorister.client import personal_judge
from chorister.client.personal_judge import (
    WORDS_BY_CONTENT,
    WORDS_BY_PHONES,
    Opinion,
    PersonalJudge,
    content_distance,
    shipped_background,
)
from chorister.client.probes import Probe, probe_of, spoken_frames
from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.mixture import COEFFICIENTS, VoiceMixture, read_background
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile

Speech = Callable[[float, int], FloatArray]


class Recogniser:
    """Hears what it is told to: the original first, then each conversion."""

    def __init__(self, phones: list[str], rate: float) -> None:
        self._phones, self._rate = phones, rate

    def recognise(self, samples: FloatArray) -> list[str]:
        return list(self._phones)

    def phone_error_rate(self, original: list[str], samples: FloatArray) -> float:
        assert original == self._phones
        return self._rate


@pytest.fixture
def probe(speech: Speech, small_model: VoiceModel) -> Probe:
    return probe_of(Recording(speech(1.5, 3), "probe"), small_model, Recogniser(["AH"], 0.0))


@pytest.fixture
def own(speech: Speech) -> list[Recording]:
    return [Recording(speech(3.0, seed), "own") for seed in (1, 2)]


def test_no_probe_is_refused(own: list[Recording], target: SpeakerProfile) -> None:
    with pytest.raises(BadAudio, match="at least one probe"):
        PersonalJudge(own, (), target)


def test_no_recordings_are_refused(probe: Probe, target: SpeakerProfile) -> None:
    with pytest.raises(BadAudio, match=r"0\.2 s of speech"):
        PersonalJudge((), (probe,), target)


def test_a_damaged_background_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal_judge, "BACKGROUND_FILE", "absent.safetensors")
    shipped_background.cache_clear()
    with pytest.raises(BadWeights, match="absent"):
        shipped_background()
    shipped_background.cache_clear()


def test_an_altered_background_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = personal_judge.BASE_WEIGHTS.with_name(personal_judge.BACKGROUND_FILE)
    altered = bytearray(shipped.read_bytes())
    altered[-1] ^= 1
    (tmp_path / shipped.name).write_bytes(altered)
    read_background(tmp_path / shipped.name)  # a mixture, but not the one that was shipped
    monkeypatch.setattr(personal_judge, "BASE_WEIGHTS", tmp_path / "base.safetensors")
    shipped_background.cache_clear()
    with pytest.raises(BadWeights, match="with digest"):
        shipped_background()
    shipped_background.cache_clear()


@pytest.mark.parametrize(
    ("likeness", "words", "better"),
    [
        (0.5, 0.40, True),
        (0.5, 0.419, True),
        (0.5, 0.43, False),
        (0.4, 0.10, False),
        (0.3, 0.40, False),
    ],
)
def test_better_is_more_alike_with_the_words_kept(
    likeness: float, words: float, better: bool
) -> None:
    before = Opinion(0.4, 0.4, WORDS_BY_PHONES)
    assert Opinion(likeness, words, WORDS_BY_PHONES).beats(before) is better


def test_without_a_recogniser_content_is_compared_and_the_result_says_so(
    small_model: VoiceModel, own: list[Recording], probe: Probe, target: SpeakerProfile
) -> None:
    judge = PersonalJudge(own, (probe,), target)
    seen = judge.look(small_model)
    assert seen.words_by == WORDS_BY_CONTENT
    assert 0.0 < seen.words <= 2.0
    assert seen == judge.look(small_model)


def test_phones_are_used_where_some_are_heard(
    small_model: VoiceModel, own: list[Recording], probe: Probe, target: SpeakerProfile
) -> None:
    heard = PersonalJudge(own, (probe,), target, Recogniser(["AH"], 0.25)).look(small_model)
    assert (heard.words_by, heard.words) == (WORDS_BY_PHONES, 0.25)
    unheard = replace(probe, phones=())
    deaf = PersonalJudge(own, (unheard,), target, Recogniser([], 0.25)).look(small_model)
    assert deaf.words_by == WORDS_BY_CONTENT


def test_content_does_not_differ_from_itself(
    small_model: VoiceModel, speech: Speech, target: SpeakerProfile
) -> None:
    mel = log_mel(speech(1.5, 3))
    content = small_model.content_of(mel, target.mel_mean, target.mel_std)
    spoken = spoken_frames(mel)
    original = Probe(content, np.zeros(len(mel), np.float32), 5.0, 0.2, spoken)
    same = content_distance(small_model, original, mel, target)
    assert same == pytest.approx(0.0, abs=1e-5)
    assert content_distance(small_model, original, mel[::-1].copy(), target) > 0.05


def test_the_model_is_left_as_it_was(
    small_model: VoiceModel, own: list[Recording], probe: Probe, target: SpeakerProfile
) -> None:
    small_model.train()
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    PersonalJudge(own, (probe,), target).look(small_model)
    assert small_model.training
    assert all(torch.equal(before[k], v) for k, v in small_model.state_dict().items())


def test_own_speech_is_more_alike_than_a_filtered_one(own: list[Recording]) -> None:
    voice = VoiceMixture(shipped_background(), [log_mel(r.samples) for r in own])
    samples = own[0].samples
    faster = np.interp(np.arange(0, len(samples), 1.3), np.arange(len(samples)), samples)
    assert voice.ratio(log_mel(samples)) > voice.ratio(log_mel(faster.astype(np.float32))) + 0.1


def test_the_shipped_background_is_a_mixture_of_plain_cepstra() -> None:
    background = shipped_background()
    assert background.means.shape == (32, COEFFICIENTS)
    assert background.weights.sum() == pytest.approx(1.0)
    assert not background.with_slopes
