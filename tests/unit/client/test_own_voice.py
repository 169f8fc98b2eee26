"""One's own recordings to a voice file: consent first, and nothing without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from chorister.client import budget_cli, home, own_voice, personalise_cli
from chorister.client import personalise as personalise_module
from chorister.client.adapter_file import attach_adapter, read_adapter
from chorister.client.own_voice import give_own_consent, read_own_recordings
from chorister.client.personal_budget import personal_budget
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.client.sealed import exported, open_sealed
from chorister.client.voice import open_voice
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import (
    BadCorpus,
    BadLedger,
    BadSettings,
    BadWeights,
    BudgetExhausted,
    ConsentRefused,
    UsageError,
)
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import SegmentPrivacy
from chorister.shared.types import Adapter, FloatArray, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.base import save_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile

RATE = 16_000
SPEC = adapters.SharedAdapterSpec(1)
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")
Speech = Callable[[float, int], FloatArray]


@pytest.fixture
def recordings(tmp_path: Path, speech: Speech) -> Path:
    folder = tmp_path / "me"
    folder.mkdir()
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", speech(4.0, number), RATE)
    return folder


@pytest.fixture
def six(recordings: Path, speech: Speech) -> Path:
    """Enough to keep what noise protects apart from the rest."""
    for number in (4, 5):
        soundfile.write(recordings / f"{number}.wav", speech(4.0, number), RATE)
    return recordings


@pytest.fixture
def base(tmp_path: Path, small_model: VoiceModel) -> Path:
    save_base(small_model, tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


def adapter_file(folder: Path, values: FloatArray, spec: str = SPEC.digest) -> Path:
    path = folder / f"{adapter_digest(Adapter(values, spec))}.safetensors"
    save_file({"values": values}, path, {"spec": spec})
    return path


def test_without_the_speakers_word_nothing_happens(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "me.voice"
    out.parent.mkdir()
    with pytest.raises(ConsentRefused, match="--own-voice"):
        personalise_cli.main([str(recordings), "--out", str(out)])
    assert list(out.parent.iterdir()) == []
    assert not (tmp_path / "vault").exists()


def test_a_vault_without_a_consent_trains_nothing(recordings: Path, tmp_path: Path) -> None:
    mine = home.create_home(tmp_path / "vault", "correct horse")
    with pytest.raises(ConsentRefused, match="no consent was given"):
        personalise_cli.main([str(recordings), "--out", str(tmp_path / "me.voice")])
    assert "refusal" in (mine.folder / "ledger.jsonl").read_text()


def test_a_sealed_voice_is_not_called_onnx(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"me\.voice, or ask for a plain file"):
        personalise_cli.main([str(recordings), "--out", str(tmp_path / "me.onnx"), "--own-voice"])


def test_a_consent_without_plain_export_gives_no_plain_file(
    recordings: Path, base: Path, tmp_path: Path
) -> None:
    give_own_consent(home.create_home(tmp_path / "vault", "correct horse"), plain=False)
    out = tmp_path / "me.onnx"
    with pytest.raises(ConsentRefused, match="covers conversion, training only"):
        personalise_cli.main(
            [str(recordings), "--out", str(out), "--plain", "--own-voice", "--base", str(base)]
        )
    assert not out.exists()


def test_a_folder_of_recordings_becomes_a_voice(
    recordings: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "broken.wav").write_bytes(b"RIFF")
    (recordings / "notes.txt").write_text("not audio")
    adapter = adapter_file(tmp_path, np.full(SPEC.size, 0.1, np.float32))
    out = tmp_path / "me.voice"
    options = ["--own-voice", "--base", str(base), "--steps", "4", "--adapter", str(adapter)]
    assert personalise_cli.main([str(recordings), "--out", str(out), *options, "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert (printed["skipped"], printed["steps"], printed["form"]) == (1, 4, "sealed")
    assert "broken.wav" in captured.err
    mine = home.open_home(tmp_path / "vault", "correct horse")
    assert mine.consent is not None
    assert mine.consent.purposes == ("conversion", "training")
    assert mine.consent.sha256 == printed["consent_sha256"]
    card = open_sealed(mine, out).card
    assert card.shared_adapter_sha256 == adapter.stem
    assert bool(card.personal_adapter_sha256) == printed["kept"]
    assert card.target == mine.consent.subject
    SpeakerProfile.from_bytes(mine.vault.get("personal-profile"))
    lines = (mine.folder / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [
        "genesis", "consent", "consent", "consent", "export", "consent", "conversion",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="not overwritten"):
        personalise_cli.main([str(recordings), "--out", str(out), *options])


def test_a_plain_voice_works_without_the_vault_and_is_listed_in_it(
    recordings: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "me.onnx"
    options = ["--own-voice", "--plain", "--base", str(base), "--steps", "1"]
    assert personalise_cli.main([str(recordings), "--out", str(out), *options]) == 0
    assert "cannot be recalled" in capsys.readouterr().out
    assert open_voice(out).card.purpose == "plain_export"
    (listed,) = exported(home.open_home(tmp_path / "vault", "correct horse"))
    assert (listed.path, listed.plain) == (str(out), True)


def test_a_voice_may_be_stored_smaller_but_a_live_one_may_not(
    recordings: Path, base: Path, tmp_path: Path
) -> None:
    sizes = []
    for precision in ("fp32", "fp16"):
        out = tmp_path / f"{precision}.onnx"
        options = ["--own-voice", "--plain", "--base", str(base), "--steps", "1"]
        arguments = [str(recordings), "--out", str(out), *options, "--precision", precision]
        assert personalise_cli.main(arguments) == 0
        assert open_voice(out).card.precision == precision
        sizes.append(out.stat().st_size)
    assert sizes[1] < sizes[0]
    with pytest.raises(UsageError, match="--live with --precision int8"):
        personalise_cli.main(
            [str(recordings), "--out", "x.voice", "--own-voice", "--live", "--precision", "int8"]
        )


def test_what_the_noise_protects_is_apart_from_gain_profile_and_judge(
    base: Path,
    tmp_path: Path,
    speech: Speech,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(6):  # whole files: enrolment 0 and 3, training 1, 2 and 4, held out 5
        soundfile.write(folder / f"{number}.wav", speech(4.0, number), RATE)
    known_by: list[list[str]] = []
    trained_on: list[dict[str, FloatArray]] = []
    judge, train = personalise_module.PersonalJudge, personalise_module._train

    def judging(own: Sequence[Recording], *rest: Any) -> Any:
        known_by.append([one.name for one in own])
        return judge(own, *rest)

    def training(model: VoiceModel, segments: Sequence[Recording], *rest: Any) -> Any:
        trained_on.append({one.name: one.samples for one in segments})
        return train(model, segments, *rest)

    monkeypatch.setattr(personalise_module, "PersonalJudge", judging)
    monkeypatch.setattr(personalise_module, "_train", training)
    options = ["--own-voice", "--base", str(base), "--steps", "1", "--noise", "2"]
    profiles, epsilons = [], []
    for turn in range(2):
        if turn:  # another training recording, far louder and with other sounds
            soundfile.write(folder / "2.wav", 0.9 * np.tanh(9 * speech(4.0, 42)), RATE)
        out = tmp_path / f"{turn}.voice"
        assert personalise_cli.main([str(folder), "--out", str(out), *options, "--json"]) == 0
        epsilons.append(json.loads(capsys.readouterr().out)["epsilon_segment"])
        mine = home.open_home(tmp_path / "vault", "correct horse")
        profiles.append(mine.vault.get("personal-profile"))
    assert epsilons[0] == epsilons[1] > 0
    assert profiles[0] == profiles[1], "the voice file must hold nothing of a training segment"
    first, second = trained_on
    assert {name.partition(".")[0] for name in first} == {"1", "2", "4"}
    for name, samples in first.items():
        if not name.startswith("2."):
            np.testing.assert_array_equal(samples, second[name])
    assert {name.partition(".")[0] for names in known_by for name in names} == {"5"}
    assert personalise_cli.main([str(folder), "--out", str(tmp_path / "x.voice"), *options]) == 0
    said = capsys.readouterr().out
    assert "Booked in this device's budget" in said
    mine = home.open_home(tmp_path / "vault", "correct horse")
    booked = budget_of(mine).events("segment")
    assert len(booked) == 3
    assert segment_figure(booked, 1e-3).epsilon > epsilons[0]
    assert f"{segment_figure(booked, 1e-3).epsilon:.4g} of 50 in all" in said


def budget_of(mine: home.Home) -> BudgetFile:
    return personal_budget(mine, PersonalPrivacy(SegmentPrivacy(), SystemRandomness()))


def noisy(recordings: Path, base: Path, tmp_path: Path, *more: str) -> list[str]:
    return [
        str(recordings), "--out", str(tmp_path / f"{len(list(tmp_path.iterdir()))}.voice"),
        "--own-voice", "--base", str(base), "--steps", "1", *more,
    ]  # fmt: skip


def test_noise_is_booked_in_budget_and_ledger_and_plain_training_is_not(
    six: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert personalise_cli.main(noisy(six, base, tmp_path)) == 0
    mine = home.open_home(tmp_path / "vault", "correct horse")
    assert not (mine.folder / home.BUDGET_FILE).exists()
    assert personalise_cli.main(noisy(six, base, tmp_path, "--noise", "2")) == 0
    (event,) = budget_of(mine).events("segment")
    assert (event.mechanism, event.noise_multiplier, event.steps) == (
        "gaussian, personal adapter", 2.0, 1,
    )  # fmt: skip
    capsys.readouterr()
    assert budget_cli.main([str(mine.folder)]) == 0
    said = capsys.readouterr().out
    assert "1 trainings of personal adapters" in said
    assert "0 charged rounds came to a sum, 0 did not" in said
    # The ledger knows it too: a budget restored from a backup is found.
    (mine.folder / home.BUDGET_FILE).unlink()
    budget_of(mine)
    with pytest.raises(BadLedger, match="restored from a backup"):
        budget_cli.main([str(mine.folder)])


def test_an_exhausted_budget_refuses_before_any_training(
    six: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = noisy(six, base, tmp_path, "--noise", "0.05")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr("chorister.client.own_voice.personalise", never)
    with pytest.raises(BudgetExhausted, match="Nothing was trained"):
        personalise_cli.main(arguments)
    assert not list(tmp_path.glob("*.voice"))
    mine = home.open_home(tmp_path / "vault", "correct horse")
    assert budget_of(mine).events("segment") == ()


def test_a_training_that_fails_is_given_back_and_a_crash_stays_charged(
    six: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise BadSettings("It works.", "it does not", "Wait.")

    monkeypatch.setattr("chorister.client.own_voice.personalise", fails)
    with pytest.raises(BadSettings, match="It works"):
        personalise_cli.main(noisy(six, base, tmp_path, "--noise", "2"))
    mine = home.open_home(tmp_path / "vault", "correct horse")
    assert budget_of(mine).events("segment") == ()
    privacy = PersonalPrivacy(SegmentPrivacy(), SystemRandomness())
    event = privacy.event(4, 2, 3)
    assert event is not None
    personal_budget(mine, privacy).reserve("a process that was killed", {"segment": event})
    assert budget_of(mine).events("segment") == (event,)


def test_too_little_speech_is_said_with_the_reason(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", speech(3.0, 1), RATE)
    soundfile.write(tmp_path / "b.wav", np.zeros(RATE), RATE)
    with pytest.raises(BadCorpus, match=r"3\.0 s in 1 usable of 2 files .*silent"):
        read_own_recordings([tmp_path])


def test_a_folder_without_audio_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="0 usable of 0"):
        read_own_recordings([tmp_path])
    with pytest.raises(BadCorpus, match="no "):
        read_own_recordings([tmp_path / "none"])


def test_settings_out_of_range_are_named(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="steps"):
        personalise_cli.main(
            [str(recordings), "--out", str(tmp_path / "v.voice"), "--own-voice", "--steps", "0"]
        )


def test_an_adapter_is_read_and_attached(tmp_path: Path, small_model: VoiceModel) -> None:
    values = np.linspace(-1, 1, SPEC.size).astype(np.float32)
    adapter = read_adapter(adapter_file(tmp_path, values))
    attach_adapter(small_model, adapter)
    np.testing.assert_array_equal(adapters.read_shared(small_model), values)


def test_bad_adapter_files_are_refused(tmp_path: Path, small_model: VoiceModel) -> None:
    values = np.zeros(SPEC.size, np.float32)
    good = adapter_file(tmp_path, values)
    with pytest.raises(BadWeights, match="Check the path"):
        read_adapter(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(BadWeights, match="unreadable"):
        read_adapter(tmp_path / "junk.safetensors")
    save_file({"values": values}, tmp_path / "plain.safetensors")
    with pytest.raises(BadWeights, match="layout"):
        read_adapter(tmp_path / "plain.safetensors")
    save_file({"values": values + 1}, good, {"spec": SPEC.digest})
    with pytest.raises(BadWeights, match="digest"):
        read_adapter(good)
    save_file({"other": values}, tmp_path / "other.safetensors", {"spec": SPEC.digest})
    with pytest.raises(BadWeights):
        read_adapter(tmp_path / "other.safetensors")
    with pytest.raises(BadWeights, match="layout"):
        attach_adapter(small_model, Adapter(values, "f" * 64))


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(
    recordings: Path, base: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    out = tmp_path / "me.voice"
    arguments = [str(recordings), "--out", str(out), "--own-voice", "--base", str(base)]
    with pytest.raises(UsageError, match="cuda"):
        personalise_cli.main([*arguments, "--device", "cuda"])
    assert not out.exists()
    assert not (tmp_path / "vault").exists()


def test_a_long_recording_is_cut_and_no_more_is_used_than_helps(
    tmp_path: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = speech(14.0, 1) - np.float32(0.05)
    soundfile.write(tmp_path / "long.flac", samples, RATE)
    soundfile.write(tmp_path / "short.flac", speech(4.0, 2), RATE)
    monkeypatch.setattr(own_voice, "LONGEST_WHOLE_S", 5.0)
    monkeypatch.setattr(own_voice, "PIECE_S", 3.0)
    monkeypatch.setattr(own_voice, "MOST_S", 600.0)
    found = read_own_recordings([tmp_path])
    names = [recording.name for recording in found.recordings]
    pieces = ["long.flac@0s", "long.flac@3s", "long.flac@6s", "long.flac@9s"]
    assert names == [*pieces, "short.flac"]
    assert [recording.duration_s for recording in found.recordings] == [3.0, 3.0, 3.0, 5.0, 4.0]
    whole = np.concatenate([recording.samples for recording in found.recordings[:4]])
    np.testing.assert_allclose(whole, samples - samples.mean(), atol=1e-3)
    monkeypatch.setattr(own_voice, "MOST_S", 16.0)
    few = read_own_recordings([tmp_path]).recordings
    assert [recording.name for recording in few] == pieces
