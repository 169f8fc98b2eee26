"""A speaker as a source: their own vault's statistics, with their consent, at any level."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client import convert_cli, home, live_cli
from chorister.client.consent import Purpose, give
from chorister.client.convert import convert_file, convert_recording
from chorister.client.home import Home
from chorister.client.sealed import seal_voice
from chorister.client.source import KnownSource, keep_source, known_source, open_source, read_source
from chorister.client.voice import SourceStatistics, Voice
from chorister.shared.errors import BadWeights, ConsentRefused, UsageError
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.loudness import loudness_lufs
from chorister.shared.voice.profile import SpeakerProfile

NOW_S = int(time.time())
RATE = 16_000
Speech = Callable[[float, int], FloatArray]
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


def a_home(folder: Path, purposes: tuple[Purpose, ...] = ("conversion",)) -> Home:
    mine = home.create_home(folder, "correct horse", clock=lambda: NOW_S)
    record = give(
        mine.key,
        controller="me",
        purposes=purposes,
        given_s=NOW_S,
        expires_s=NOW_S + 3600,
        jurisdiction="EU",
    )
    return mine.keep_consent(record, "given")


def somebody(lufs: float = -27.0) -> KnownSource:
    statistics = SourceStatistics(
        np.linspace(-6.0, -4.0, 80, dtype=np.float32),
        np.full(80, 1.3, np.float32),
        np.array([4.9, 0.2]),
    )
    return KnownSource(statistics, lufs)


@pytest.fixture(scope="module")
def voice(voice_path: Path) -> Voice:
    return Voice(voice_path.read_bytes(), "v")


@pytest.fixture
def mine(tmp_path: Path) -> Home:
    made = a_home(tmp_path / "vault")
    keep_source(made, somebody())
    return made


def options(folder: Path | None = None) -> Namespace:
    return Namespace(vault=folder, passphrase_file=None)


def same(one: SourceStatistics, other: SourceStatistics) -> bool:
    names = ("mel_mean", "mel_std", "log_f0")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def test_what_is_kept_is_as_recorded_and_comes_back(speech: Speech, target: SpeakerProfile) -> None:
    recording = Recording(speech(3.0, 1), "x")
    kept = known_source(target, [recording, Recording(np.zeros(8000, np.float32), "silent")], 2.0)
    assert kept.lufs == pytest.approx(loudness_lufs(recording.samples))
    np.testing.assert_allclose(kept.statistics.mel_mean, target.mel_mean - np.log(2.0), atol=1e-5)
    again = KnownSource.from_bytes(kept.to_bytes())
    assert again.lufs == kept.lufs
    assert same(again.statistics, kept.statistics)
    assert "5" not in repr(kept)


def test_louder_speech_moves_the_mean_and_nothing_else() -> None:
    louder = somebody(-27.0).at(-21.0)
    known = somebody().statistics
    np.testing.assert_allclose(louder.mel_mean - known.mel_mean, np.log(2.0), atol=0.01)
    assert np.array_equal(louder.mel_std, known.mel_std)
    assert np.array_equal(louder.log_f0, known.log_f0)
    assert somebody().at(float("-inf")) is not None
    assert same(somebody().at(float("-inf")), known)


@pytest.mark.parametrize("data", [b"", b"nonsense", "shapes", "nan"])
def test_damaged_statistics_are_refused(data: bytes | str) -> None:
    if isinstance(data, str):
        from safetensors.numpy import save

        sizes = {"mel_mean": 80, "mel_std": 80, "log_f0": 2, "lufs": 1}
        arrays = {name: np.zeros(size) for name, size in sizes.items()}
        if data == "nan":
            arrays["mel_std"][3] = np.nan
        else:
            arrays["mel_std"] = np.zeros(79)
        data = save(arrays)
    with pytest.raises(BadWeights, match="finite"):
        KnownSource.from_bytes(data)


def test_the_consent_is_asked_and_a_refusal_is_noted(tmp_path: Path) -> None:
    other = a_home(tmp_path / "other", ("training",))
    keep_source(other, somebody())
    with pytest.raises(ConsentRefused, match="conversion"):
        read_source(other)
    entries = [json.loads(x) for x in (other.folder / "ledger.jsonl").read_text().splitlines()]
    assert entries[-1]["kind"] == "refusal"


def test_a_vault_without_statistics_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="enrol"):
        read_source(a_home(tmp_path / "other"))


def test_a_vault_or_a_sealed_voice_of_it_names_the_speaker(
    mine: Home, tmp_path: Path, voice_path: Path
) -> None:
    path = tmp_path / "me.voice"
    seal_voice(mine, voice_path.read_bytes(), path, mine.permit("conversion"))
    for named in (mine.folder, path):
        source, opened = open_source(named, options(mine.folder))
        assert same(source.statistics, somebody().statistics)
        assert opened.vault.id == mine.vault.id


def test_another_vaults_voice_and_a_plain_file_are_refused(
    mine: Home, tmp_path: Path, voice_path: Path
) -> None:
    other = a_home(tmp_path / "other")
    path = tmp_path / "other.voice"
    seal_voice(other, voice_path.read_bytes(), path, other.permit("conversion"))
    with pytest.raises(ConsentRefused, match="own vault"):
        open_source(path, options(mine.folder))
    with pytest.raises(UsageError, match="sealed voice"):
        open_source(voice_path, options(mine.folder))
    with pytest.raises(UsageError, match="sealed voice"):
        open_source(tmp_path / "none.voice", options(mine.folder))


def test_enrolled_speech_sounds_the_same_at_any_level(
    voice: Voice, speech: Speech, tmp_path: Path
) -> None:
    class Deaf(KnownSource):
        def at(self, lufs: float) -> SourceStatistics:
            return self.statistics

    def spoken(speaker: KnownSource, gain: float) -> FloatArray:
        soundfile.write(tmp_path / "me.wav", gain * speech(4.0, 3), RATE, subtype="FLOAT")
        done = convert_file(
            voice, tmp_path / "me.wav", tmp_path / "out.wav", speaker=speaker, overwrite=True
        )
        assert done.source_known == "enrolled"
        return np.asarray(soundfile.read(tmp_path / "out.wav")[0] / gain, np.float32)

    def away(speaker: KnownSource) -> float:
        wanted = spoken(speaker, 1.0)
        return float(np.square(wanted - spoken(speaker, 0.3)).sum() / np.square(wanted).sum())

    level_known = somebody(loudness_lufs(speech(4.0, 3)))
    assert away(level_known) < 0.6 * away(Deaf(level_known.statistics, level_known.lufs))


def test_the_speaker_changes_the_result_and_the_default_calibrates(
    mine: Home, voice_path: Path, speech: Speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "me.wav"
    soundfile.write(source, speech(6.0, 4), RATE)
    found = {}
    for name, more in (("known", ["--source-voice", str(mine.folder)]), ("unknown", [])):
        out = tmp_path / f"{name}.wav"
        arguments = [str(source), str(out), "--voice", str(voice_path), "--json", *more]
        assert convert_cli.main(arguments) == 0
        told = json.loads(capsys.readouterr().out)
        found[name] = (told["source_known"], soundfile.read(out)[0])
    assert found["known"][0] == "enrolled"
    assert found["unknown"][0] == "calibrated"
    assert np.abs(found["known"][1] - found["unknown"][1]).max() > 0.01


def test_a_file_and_a_recording_are_calibrated_alike(
    voice: Voice, speech: Speech, tmp_path: Path
) -> None:
    samples = speech(5.0, 7)
    samples -= samples.mean()
    soundfile.write(tmp_path / "me.wav", samples, RATE, subtype="FLOAT")
    convert_file(voice, tmp_path / "me.wav", tmp_path / "out.wav")
    written, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    made = convert_recording(voice, Recording(samples, "me"))
    assert np.abs(written - made).max() < 0.01


@pytest.mark.parametrize(
    ("samples", "known"),
    [("short", "whole file"), ("noise", "nothing")],
)
def test_less_than_two_seconds_is_said(
    voice: Voice, speech: Speech, tmp_path: Path, samples: str, known: str
) -> None:
    noise = 0.05 * np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    soundfile.write(tmp_path / "me.wav", speech(1.5, 8) if samples == "short" else noise, RATE)
    assert convert_file(voice, tmp_path / "me.wav", tmp_path / "out.wav").source_known == known


def test_live_takes_a_known_speaker_or_a_recording_not_both(mine: Home, tmp_path: Path) -> None:
    arguments = ["--voice", "v", "--source-voice", str(mine.folder), "--calibrate", "me.wav"]
    with pytest.raises(UsageError, match="Leave one"):
        live_cli.main(arguments)
