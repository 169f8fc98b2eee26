"""Live conversion: calibration, levels, silence, any block size, files and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.client import home, live_cli, live_file, live_sound
from chorister.client.calibration import Calibration, calibrate_from, statistics_of
from chorister.client.consent import give
from chorister.client.live import LiveConverter, converted
from chorister.client.live_sound import Devices, open_sound
from chorister.client.live_speed import measure_steps, middle
from chorister.client.sealed import seal_voice
from chorister.client.stream_level import StreamLevel, soft_limit
from chorister.client.stream_voice import LiveVoice, open_live_voice
from chorister.client.voice import SourceStatistics
from chorister.client.withdraw import withdraw
from chorister.shared.errors import BadAudio, ConsentRefused, UsageError
from chorister.shared.types import FloatArray
from chorister.shared.voice.audio import stream_recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.loudness import loudness_lufs

Speech = Callable[[float, int], FloatArray]


@pytest.fixture(scope="module")
def voice(live_voice_path: Path) -> LiveVoice:
    return open_live_voice(live_voice_path)


@pytest.fixture(scope="module")
def known(speech: Speech) -> SourceStatistics:
    samples = speech(4.0, 1)
    return statistics_of(samples, estimate_f0(samples))


def test_blocks_of_any_size_make_the_same_speech(
    voice: LiveVoice, known: SourceStatistics, speech: Speech
) -> None:
    samples = speech(0.5, 2)
    made = []
    for size in (160, 7, 441, 8000):
        converter = LiveConverter(voice, known)
        blocks = [samples[i : i + size] for i in range(0, len(samples), size)]
        made.append(np.concatenate([converter.feed(block) for block in blocks]))
    assert len(made[0]) == len(samples)
    assert all(np.array_equal(made[0], other) for other in made[1:])


def test_an_unknown_speaker_is_listened_to_first_and_heard_afterwards(
    voice: LiveVoice, speech: Speech
) -> None:
    converter = LiveConverter(voice)
    samples = speech(8.0, 3)
    silent_for = 0
    for start in range(0, len(samples), 1600):
        spoken = converter.feed(samples[start : start + 1600])
        if not converter.calibrated:
            silent_for += len(spoken)
            assert not spoken.any()
    assert converter.calibrated
    # Two seconds of voiced speech, of which not all is voiced.
    assert 2.0 <= silent_for / 16_000 <= 6.0
    assert np.abs(spoken).max() > 0.0


def test_silence_never_calibrates_and_stays_silent(voice: LiveVoice) -> None:
    converter = LiveConverter(voice)
    assert not converter.feed(np.zeros(160 * 400, np.float32)).any()
    assert not converter.calibrated


def test_silence_stays_silent_for_a_known_speaker_too(
    voice: LiveVoice, known: SourceStatistics
) -> None:
    spoken = LiveConverter(voice, known).feed(np.zeros(160 * 200, np.float32))
    assert np.abs(spoken).max() < 1e-4


def test_what_is_not_finite_does_no_lasting_harm(
    voice: LiveVoice, known: SourceStatistics, speech: Speech
) -> None:
    converter = LiveConverter(voice, known)
    samples = speech(1.0, 4)
    samples[3000:3100] = np.nan
    samples[5000] = np.inf
    assert np.isfinite(converter.feed(samples)).all()


def test_the_level_follows_the_source_and_nothing_clips(speech: Speech) -> None:
    for gain in (0.1, 8.0):
        level = StreamLevel()
        source = speech(6.0, 5)
        made = gain * source
        hops = np.pad(source, (480, 480))
        followed = np.concatenate(
            [
                level.follow(hops[i : i + 7 * 160], made[i : i + 160])
                for i in range(0, len(source) - 160, 160)
            ]
        )
        assert np.abs(followed).max() < 1.0
        half = len(followed) // 2
        error = loudness_lufs(followed[half:]) - loudness_lufs(source[half : len(followed)])
        assert abs(error) < 1.0


def test_the_limit_leaves_quiet_samples_alone() -> None:
    samples = np.linspace(-3.0, 3.0, 601).astype(np.float32)
    bent = soft_limit(samples)
    quiet = np.abs(samples) <= 0.8
    assert np.array_equal(bent[quiet], samples[quiet])
    assert np.abs(bent).max() <= 0.98
    assert (np.diff(bent) >= 0).all()


def test_the_calibration_tells_what_an_enrolment_would(speech: Speech) -> None:
    samples = speech(5.0, 6)
    calibration, found = Calibration(), None
    for start in range(0, len(samples), 160):
        found = found or calibration.feed(samples[start : start + 160])
    assert found is not None
    truth = statistics_of(samples, estimate_f0(samples))
    assert abs(found.log_f0[0] - truth.log_f0[0]) < 0.15
    assert np.abs(found.mel_mean - truth.mel_mean).mean() < 0.5


def test_a_calibration_without_enough_speech_is_refused(tmp_path: Path, speech: Speech) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, speech(1.0, 7), 16_000)
    with pytest.raises(BadAudio, match="voiced"):
        calibrate_from(path)


@pytest.mark.parametrize("length", [1, 159, 160, 3333])
def test_what_comes_out_is_as_long_as_what_went_in(
    voice: LiveVoice, known: SourceStatistics, speech: Speech, length: int
) -> None:
    samples = speech(1.0, 8)[:length]
    blocks = converted(voice, known, [samples[:100], samples[100:]], chunk_frames=2)
    assert sum(len(block) for block in blocks) == length


@pytest.fixture
def recording(tmp_path: Path, speech: Speech) -> Path:
    path = tmp_path / "me.wav"
    soundfile.write(path, speech(5.0, 9), 16_000)
    return path


def test_the_command_converts_a_file_as_if_it_were_spoken(
    live_voice_path: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    arguments = ["--voice", str(live_voice_path), "--file", str(recording), str(out), "--json"]
    assert live_cli.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] == 5.0
    samples, rate_hz = soundfile.read(out)
    assert rate_hz == 16_000
    assert len(samples) == 80_000
    assert np.abs(samples).max() < 1.0
    # In other chunks it is the same.
    other = tmp_path / "other.wav"
    arguments = ["--voice", str(live_voice_path), "--file", str(recording), str(other)]
    assert live_cli.main([*arguments, "--chunk", "80"]) == 0
    assert np.array_equal(samples, soundfile.read(other)[0])
    with pytest.raises(UsageError, match="overwritten"):
        live_cli.main(arguments)


def test_the_command_prints_every_term_of_the_delay(
    live_voice_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live_cli.main(["--voice", str(live_voice_path), "--latency", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["terms_ms"]) == {"window", "look-ahead", "chunk", "F0", "overlap-add"}
    assert told["sum_ms"] == pytest.approx(54.125)
    assert told["compute_ms"] > 0


@pytest.mark.parametrize(
    "arguments", [["--chunk", "15"], ["--chunk", "0"], ["--chunk", "500"], ["--pitch", "30"]]
)
def test_what_cannot_be_done_is_refused(live_voice_path: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        live_cli.main(["--voice", str(live_voice_path), *arguments])


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with (
        pytest.raises(UsageError, match="sounddevice"),
        open_sound(lambda block: block, 1, Devices()),
    ):
        pass


class Card:
    """What PortAudio does, as far as it is used: it calls back with every chunk."""

    class PortAudioError(Exception):
        pass

    class CallbackAbort(Exception):
        pass

    def __init__(self, chunks: list[FloatArray], fails: bool = False) -> None:
        self.chunks, self.fails, self.spoken = chunks, fails, []

    def Stream(self, **options: object) -> Card:
        if self.fails:
            raise self.PortAudioError("no default device")
        self.options = options
        return self

    latency = (0.004, 0.006)

    def __enter__(self) -> Card:
        callback = self.options["callback"]
        for index, chunk in enumerate(self.chunks):
            spoken = np.zeros((len(chunk), 1), np.float32)
            try:
                callback(chunk[:, None], spoken, len(chunk), None, index == 1)
            except self.CallbackAbort:
                break
            self.spoken.append(spoken[:, 0])
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_sound_card_is_asked_for_whole_chunks_at_the_model_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card([np.full(320, k, np.float32) for k in range(3)])
    monkeypatch.setattr(live_sound, "_sounddevice", lambda: card)
    with open_sound(lambda block: -block, 2, Devices("3", "speaker")) as sound:
        assert sound.latency_ms == pytest.approx(10.0)
        assert sound.dropped == 1
    assert card.options["samplerate"] == 16_000
    assert card.options["blocksize"] == 320
    assert card.options["device"] == (3, "speaker")
    assert [float(chunk[0]) for chunk in card.spoken] == [0.0, -1.0, -2.0]


def test_a_failure_while_converting_reaches_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_block: FloatArray) -> FloatArray:
        raise RuntimeError("broken")

    monkeypatch.setattr(live_sound, "_sounddevice", lambda: Card([np.zeros(160, np.float32)]))
    with open_sound(fail, 1, Devices()) as sound:
        assert isinstance(sound.failure, RuntimeError)


def test_no_sound_card_is_an_error_that_advises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sound, "_sounddevice", lambda: Card([], fails=True))
    with pytest.raises(UsageError, match="--file"), open_sound(lambda b: b, 1, Devices()):
        pass


class Clock:
    """A machine's time: nobody waits, and something happens while somebody speaks."""

    def __init__(self, now_s: int) -> None:
        self.began_s, self.slept_s = now_s, 0.0
        self.events: dict[float, Callable[[], object]] = {}

    def __call__(self) -> int:
        return int(self.began_s + self.slept_s)

    def monotonic(self) -> float:
        return self.slept_s

    def perf_counter(self) -> float:
        return self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        for at_s in [at_s for at_s in self.events if at_s <= self.slept_s]:
            self.events.pop(at_s)()


class Spoken:
    """A sealed live voice, its vault, and a microphone that hears nothing."""

    def __init__(
        self, folder: Path, live_voice: bytes, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.clock = Clock(1_800_000_000)
        self.home = home.create_home(folder / "vault", "correct horse", clock=self.clock)
        record = give(
            self.home.key, controller="me", purposes=["conversion"], given_s=self.clock(),
            expires_s=self.clock() + 30, jurisdiction="EU",
        )  # fmt: skip
        self.home = self.home.keep_consent(record, "given")
        path = folder / "me.voice"
        seal_voice(self.home, live_voice, path, self.home.permit("conversion"))
        self.arguments = ["--voice", str(path), "--calibrate", str(source)]
        monkeypatch.setattr(home, "open_from", lambda _: self.home)
        monkeypatch.setattr(live_cli, "time", self.clock)
        monkeypatch.setattr(live_sound, "_sounddevice", lambda: Card([]))

    def last_refusal(self) -> str:
        lines = (self.home.folder / "ledger.jsonl").read_text().splitlines()
        entry = json.loads(lines[-1])
        assert entry["kind"] == "refusal"
        return str(entry["fields"]["reason"])


@pytest.fixture
def spoken(
    tmp_path: Path,
    live_voice_path: Path,
    recording: Path,
    quick_vault: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Spoken:
    return Spoken(tmp_path, live_voice_path.read_bytes(), recording, monkeypatch)


def test_speaking_ends_within_seconds_of_the_withdrawal(spoken: Spoken) -> None:
    spoken.clock.events[5.0] = lambda: withdraw(spoken.home)
    with pytest.raises(ConsentRefused, match="was withdrawn"):
        live_cli.main([*spoken.arguments, "--seconds", "20"])
    assert 5.0 <= spoken.clock.slept_s <= 6.5
    assert "was withdrawn" in spoken.last_refusal()


def test_speaking_ends_with_the_consent(spoken: Spoken) -> None:
    with pytest.raises(ConsentRefused, match="expired at 1800000030"):
        live_cli.main([*spoken.arguments, "--seconds", "60"])
    assert 30.0 <= spoken.clock.slept_s <= 31.5
    assert "expired" in spoken.last_refusal()


def test_speaking_under_a_consent_that_lasts_is_not_disturbed(spoken: Spoken) -> None:
    assert live_cli.main([*spoken.arguments, "--seconds", "3"]) == 0


def test_a_file_is_left_unfinished_when_its_voice_is_withdrawn(
    spoken: Spoken, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.wav"

    def blocks(_path: Path) -> Iterator[FloatArray]:
        for block in stream_recording(recording):
            spoken.clock.sleep(2.0)
            yield block

    spoken.clock.events[1.0] = lambda: withdraw(spoken.home)
    monkeypatch.setattr(live_file, "stream_recording", blocks)
    with pytest.raises(ConsentRefused, match="was withdrawn"):
        live_cli.main([*spoken.arguments, "--file", str(recording), str(out)])
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_a_step_is_measured_beside_a_reference(voice: LiveVoice) -> None:
    times = measure_steps(voice, 5)
    assert len(times.wall_ms) == len(times.processor_ms) == 5
    for column in (times.wall_ms, times.processor_ms, times.reference_ms):
        assert column == sorted(column)
        assert min(column) >= 0.0
    assert times.ratio == middle(times.processor_ms) / middle(times.reference_ms)
