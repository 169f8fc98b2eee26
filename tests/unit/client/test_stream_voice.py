"""A live voice is the whole model in steps of 10 ms, as late as it says and no later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from chorister.client.export import Origin
from chorister.client.stream_export import build_live_voice, export_live_voice
from chorister.client.stream_voice import LiveStream, LiveVoice, open_live_voice
from chorister.client.voice import SourceStatistics, open_voice
from chorister.shared.errors import BadWeights, ConsentRefused, UsageError
from chorister.shared.types import FeatureSequence, FloatArray
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.hiss import hiss_at
from chorister.shared.voice.latency import Latency
from chorister.shared.voice.model import VoiceModel, move_pitch, single_batch
from chorister.shared.voice.profile import SpeakerProfile

NOW_S = 1_800_000_000
ORIGIN = Origin("a" * 64, "b" * 64, "somebody")


@pytest.fixture(scope="module")
def voice(live_voice_path: Path) -> LiveVoice:
    return open_live_voice(live_voice_path)


@pytest.fixture(scope="module")
def source() -> SpeakerProfile:
    return profile(2, 150.0)


def profile(seed: int, median_hz: float) -> SpeakerProfile:
    rng = np.random.default_rng(seed)
    return SpeakerProfile(
        vector=np.full(256, 1 / 16, np.float32),
        mel_mean=np.full(80, -5.0, np.float32) + rng.normal(0, 0.3, 80).astype(np.float32),
        mel_std=np.full(80, 1.5, np.float32),
        log_f0_median=float(np.log(median_hz)),
        log_f0_spread=0.2,
        seconds=30.0,
        sounds_content=rng.normal(size=(40, 8)).astype(np.float32),
        sounds_log_mel=rng.normal(-4.0, 1.0, (40, 80)).astype(np.float32),
    )


def statistics(source: SpeakerProfile) -> SourceStatistics:
    log_f0 = np.array([source.log_f0_median, source.log_f0_spread])
    return SourceStatistics(source.mel_mean, source.mel_std, log_f0)


def streamed(voice: LiveVoice, source: SpeakerProfile, samples: FloatArray) -> FloatArray:
    """Speech that is aligned with the source, from steps of 10 ms."""
    shift = voice.latency(1).shift_samples
    padded = np.pad(samples, (0, shift + (-len(samples) - shift) % 160))
    stream = LiveStream(voice, statistics(source))
    speech = [stream.step(hop).samples for hop in padded.reshape(-1, 160)]
    return np.concatenate(speech)[shift:][: len(samples)]


def whole(
    model: VoiceModel, source: SpeakerProfile, target: SpeakerProfile, samples: FloatArray
) -> FloatArray:
    """The same by the whole model, on the frame grid that a stream has."""
    latency = Latency(sum(model.settings.encoder_ahead), 1)
    before = latency.wait_samples % 160
    padded = np.pad(samples, (before, 20 * 160))
    padded = padded[: len(padded) // 160 * 160]
    f0_hz = estimate_f0(padded, latency.f0_delay_frames)
    features = FeatureSequence(log_mel(padded), move_pitch(f0_hz, source, target))
    hiss = torch.from_numpy(hiss_at(0, len(padded)))[None]
    with torch.inference_mode():
        speech = model.speak(single_batch(features, source, target), hiss)[0].numpy()
    return np.asarray(speech[before:][: len(samples)])


def snr_db(true: FloatArray, found: FloatArray) -> float:
    noise = np.square(true - found, dtype=np.float64).sum()
    return float(10.0 * np.log10(np.square(true, dtype=np.float64).sum() / noise))


def test_the_stream_is_the_whole_model(
    voice: LiveVoice,
    make_streaming_model: Callable[[], VoiceModel],
    source: SpeakerProfile,
    target: SpeakerProfile,
    speech: Callable[[float, int], FloatArray],
) -> None:
    samples = speech(2.0, 4)
    true = whole(make_streaming_model(), source, target, samples)
    assert snr_db(true, streamed(voice, source, samples)) > 60.0


@pytest.mark.parametrize("median_hz", [80.0, 100.0, 130.0])
def test_it_is_so_for_a_deep_voice_whose_words_begin_early(
    permits: Callable[..., object],
    make_streaming_model: Callable[[], VoiceModel],
    source: SpeakerProfile,
    speech: Callable[[float, int], FloatArray],
    median_hz: float,
) -> None:
    model, deep, samples = make_streaming_model(), profile(5, median_hz), speech(3.0, 4)
    voice = LiveVoice(build_live_voice(model, deep, permits("conversion"), ORIGIN, now_s=NOW_S), "")
    true = whole(model, source, deep, samples)
    assert snr_db(true, streamed(voice, source, samples)) > 60.0


def test_it_is_so_with_more_look_ahead_which_decides_f0_by_more(
    permits: Callable[..., object],
    make_streaming_model: Callable[..., VoiceModel],
    source: SpeakerProfile,
    target: SpeakerProfile,
    speech: Callable[[float, int], FloatArray],
) -> None:
    model, samples = make_streaming_model((4, 2)), speech(1.0, 5)
    data = build_live_voice(model, target, permits("conversion"), ORIGIN, now_s=NOW_S)
    voice = LiveVoice(data, "longer")
    assert voice.latency(1).f0_delay_frames == 3
    true = whole(model, source, target, samples)
    assert snr_db(true, streamed(voice, source, samples)) > 60.0


def test_what_comes_later_than_the_stated_delay_changes_nothing_earlier(
    voice: LiveVoice, source: SpeakerProfile, speech: Callable[[float, int], FloatArray]
) -> None:
    samples = speech(1.0, 6)
    changed_at = 7777
    other = samples.copy()
    other[changed_at:] += 0.05 * np.sin(np.arange(len(samples) - changed_at)).astype(np.float32)
    latency = voice.latency(1)
    # In the order in which they are given out: place p is spoken when 160 more have come.
    spoken = []
    for given in (samples, other):
        stream = LiveStream(voice, statistics(source))
        padded = np.pad(given, (0, -len(given) % 160))
        hops = [stream.step(hop).samples for hop in padded.reshape(-1, 160)]
        spoken.append(np.concatenate(hops))
    first = int(np.flatnonzero(spoken[0] != spoken[1])[0])
    # Not before its hop is complete, and no later than the delay allows: the output reacts in the
    # very hop in which the change came, to what is said `shift_samples` earlier in the output.
    assert changed_at // 160 * 160 <= first
    assert first + 160 <= changed_at + latency.total_samples
    aligned = first - latency.shift_samples
    assert changed_at - latency.shift_samples - 160 <= aligned <= changed_at


def test_an_echo_of_the_input_comes_exactly_as_late_as_stated(
    voice: LiveVoice, source: SpeakerProfile
) -> None:
    """Where a tone begins in the input, voiced speech begins in the output, that much later."""
    tone = np.zeros(16_000, np.float32)
    begins = 8000
    places = np.arange(len(tone) - begins)
    tone[begins:] = 0.3 * np.sign(np.sin(2 * np.pi * 150.0 * places / 16_000))
    stream = LiveStream(voice, statistics(source))
    voiced = [stream.step(hop).f0_hz > 0 for hop in tone.reshape(-1, 160)]
    # F0 belongs to the frame after the hop that is given out.
    spoken_at = (int(np.flatnonzero(voiced)[0]) + 1) * 160 - voice.latency(1).shift_samples
    assert abs(spoken_at - begins) <= 3 * 160


def test_a_stream_that_was_reset_begins_anew(
    voice: LiveVoice, source: SpeakerProfile, speech: Callable[[float, int], FloatArray]
) -> None:
    hops = speech(0.4, 7)[:6400].reshape(-1, 160)
    stream = LiveStream(voice, statistics(source))
    first = [stream.step(hop).samples for hop in hops]
    went_on = [stream.step(hop).samples for hop in hops]
    stream.reset()
    again = [stream.step(hop).samples for hop in hops]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, went_on)


def test_two_streams_of_one_voice_do_not_mix(
    voice: LiveVoice, source: SpeakerProfile, speech: Callable[[float, int], FloatArray]
) -> None:
    hops = speech(0.3, 8)[:4800].reshape(-1, 160)
    alone = LiveStream(voice, statistics(source))
    expected = [alone.step(hop).samples for hop in hops]
    here, there = (LiveStream(voice, statistics(source)) for _ in range(2))
    found = []
    for hop in hops:
        found.append(here.step(hop).samples)
        there.step(-0.5 * hop)
    assert np.array_equal(expected, found)


def test_a_pitch_shift_is_heard(voice: LiveVoice, source: SpeakerProfile) -> None:
    places = np.arange(9600)
    tone = (0.3 * np.sign(np.sin(2 * np.pi * 150.0 * places / 16_000))).astype(np.float32)
    spoken = []
    for pitch_st in (0.0, 12.0):
        stream = LiveStream(voice, statistics(source), pitch_st=pitch_st)
        spoken.append([stream.step(hop).f0_hz for hop in tone.reshape(-1, 160)][-1])
    assert spoken[1] == pytest.approx(2.0 * spoken[0], rel=1e-3)


def test_consent_is_asked_for_and_an_offline_model_refused(
    permits: Callable[..., object],
    make_model: Callable[[], VoiceModel],
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    tmp_path: Path,
) -> None:
    path = tmp_path / "live.onnx"
    for purpose, now_s in (("training", NOW_S), ("plain_export", NOW_S + 4000)):
        with pytest.raises(ConsentRefused):
            export_live_voice(
                make_streaming_model(), target, permits(purpose), ORIGIN, path, now_s=now_s
            )
    with pytest.raises(BadWeights, match="ahead"):
        build_live_voice(make_model(), target, permits("conversion"), ORIGIN, now_s=NOW_S)
    with pytest.raises(UsageError):
        export_live_voice(
            make_streaming_model(), target, permits("plain_export"), ORIGIN,
            tmp_path / "none" / "live.onnx", now_s=NOW_S,
        )  # fmt: skip
    assert not path.exists()


def test_a_live_voice_and_an_offline_one_are_not_mistaken(
    live_voice_path: Path, voice_path: Path
) -> None:
    with pytest.raises(BadWeights, match="chorister live"):
        open_voice(live_voice_path)
    with pytest.raises(BadWeights, match="personalise"):
        open_live_voice(voice_path)


def test_an_altered_or_missing_file_is_refused(live_voice_path: Path, tmp_path: Path) -> None:
    data = bytearray(live_voice_path.read_bytes())
    data[len(data) // 2] ^= 1  # among the weights
    with pytest.raises(BadWeights):
        LiveVoice(bytes(data), "altered")
    with pytest.raises(BadWeights):
        LiveVoice(live_voice_path.read_bytes()[:-100], "cut")
    with pytest.raises(BadWeights):
        open_live_voice(tmp_path / "none.onnx")
