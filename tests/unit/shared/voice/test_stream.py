"""The model as a step on a stream gives the numbers of the whole model, however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from chorister.shared.errors import BadWeights
from chorister.shared.voice import adapters
from chorister.shared.voice.model import VoiceBatch, VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.stream import StreamNetwork
from chorister.shared.voice.stream_weights import load_stream, save_stream

FRAMES = 40
LOOK_AHEAD = 3


@pytest.fixture
def signals() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    f0_hz = 150.0 + torch.cumsum(torch.randn(1, FRAMES, generator=generator), 1)
    f0_hz[:, :4] = 0.0
    f0_hz[:, 20:27] = 0.0
    return {
        "log_mel": torch.randn(1, FRAMES, 80, generator=generator) - 5.0,
        "f0_hz": f0_hz,
        "hiss": torch.randn(1, FRAMES * 160, generator=generator),
    }


@pytest.fixture
def deep(signals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Voiced from the first frame on, below 133 Hz, with gaps of one frame, of two and of more."""
    f0_hz = signals["f0_hz"] * 0.6
    f0_hz[:, :4] = 90.0
    f0_hz[:, [10, 13, 14]] = 0.0
    return signals | {"f0_hz": f0_hz}


def whole(model: VoiceModel, target: SpeakerProfile, signals: dict[str, Tensor]) -> Tensor:
    rows = [
        torch.from_numpy(row)[None]
        for row in (
            target.vector, target.mel_mean, target.mel_std,
            target.sounds_content, target.sounds_log_mel,
        )
    ]  # fmt: skip
    mean, std = torch.full((1, 80), -5.0), torch.ones(1, 80)
    batch = VoiceBatch(signals["log_mel"], signals["f0_hz"], mean, std, *rows)
    return model.speak(batch, signals["hiss"])[0]


def streamed(network: StreamNetwork, signals: dict[str, Tensor], frames_at_once: int) -> Tensor:
    before, after = (torch.zeros(1, n) for n in (LOOK_AHEAD, FRAMES))
    f0_hz = torch.cat([before, signals["f0_hz"], after], 1)
    hiss = torch.cat([torch.zeros(1, LOOK_AHEAD * 160), signals["hiss"], after.repeat(1, 160)], 1)
    mean, std = torch.full((1, 80), -5.0), torch.ones(1, 80)
    state, speech = network.start(), []
    for start in range(0, FRAMES - frames_at_once + 1, frames_at_once):
        end = start + frames_at_once
        samples, state = network(
            signals["log_mel"][:, start:end],
            f0_hz[:, start : end + 1],
            hiss[:, start * 160 + 80 : end * 160 + 80],
            mean,
            std,
            torch.tensor([start - LOOK_AHEAD]),
            state,
        )
        speech.append(samples[0])
    return torch.cat(speech)[LOOK_AHEAD * 160 + 80 :]


def snr_db(true: Tensor, found: Tensor) -> float:
    count = min(len(true), len(found))
    noise = (true[:count] - found[:count]).square().sum()
    return float(10.0 * torch.log10(true[:count].square().sum() / noise))


@pytest.mark.parametrize("frames_at_once", [1, 2, 5, 13])
@pytest.mark.parametrize("as_products", [False, True])
def test_a_stream_is_the_whole_in_pieces(
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    signals: dict[str, Tensor],
    frames_at_once: int,
    as_products: bool,
) -> None:
    model = make_streaming_model()
    network = StreamNetwork(model, target, as_products=as_products)
    found = streamed(network, signals, frames_at_once)
    assert len(found) > 30 * 160
    assert snr_db(whole(model, target, signals), found) > 100.0


@pytest.mark.parametrize("frames_at_once", [1, 2, 5])
@pytest.mark.parametrize("unvoiced_first", [0, 1, 4])
def test_it_is_so_for_a_deep_voice_whose_words_begin_early(
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    deep: dict[str, Tensor],
    frames_at_once: int,
    unvoiced_first: int,
) -> None:
    deep["f0_hz"][:, :unvoiced_first] = 0.0
    model = make_streaming_model()
    found = streamed(StreamNetwork(model, target), deep, frames_at_once)
    assert snr_db(whole(model, target, deep), found) > 100.0


@pytest.mark.parametrize(("pitch_hz", "first_half"), [(110.0, 39), (150.0, 40)])
def test_a_deep_voice_is_heard_from_the_centre_of_the_frame_before(
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    signals: dict[str, Tensor],
    pitch_hz: float,
    first_half: int,
) -> None:
    f0_hz = torch.zeros(1, FRAMES)
    f0_hz[:, 20:] = pitch_hz
    voice_alone = signals | {"f0_hz": f0_hz, "hiss": torch.zeros_like(signals["hiss"])}
    model = make_streaming_model()
    for speech in (
        whole(model, target, voice_alone),
        streamed(StreamNetwork(model, target), voice_alone, 2),
    ):
        level = speech[: 30 * 160].reshape(-1, 80).square().mean(1).sqrt()
        level = level / level[44:].mean()
        assert level[:first_half].max() < 0.03
        assert level[first_half] > 0.3


@pytest.mark.parametrize("apart", [0.0, 0.275])
def test_a_source_with_the_targets_timbre_keeps_its_content_in_a_stream_too(
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    signals: dict[str, Tensor],
    apart: float,
) -> None:
    """`streamed` speaks with a mean of -5 in every band."""
    model = make_streaming_model()
    tilt = np.linspace(-1.0, 1.0, 80, dtype=np.float32) * np.float32(np.sqrt(3.0))
    near = replace(target, mel_mean=-5.0 + apart * tilt)
    true = whole(model, near, signals)
    assert snr_db(true, streamed(StreamNetwork(model, near), signals, 2)) > 100.0
    model.decoder.recall.content_share.zero_()
    still = whole(model, near, signals)
    assert (snr_db(true, still) > 100.0) is (apart == 0.0)


def test_both_adapters_are_part_of_the_stream(
    make_streaming_model: Callable[[], VoiceModel],
    target: SpeakerProfile,
    signals: dict[str, Tensor],
) -> None:
    model = make_streaming_model()
    plain = whole(model, target, signals)
    adapters.attach_shared(model, adapters.SharedAdapterSpec())
    adapters.attach_personal(model, adapters.PersonalAdapterSpec(rank=2))
    with torch.no_grad():
        model.decoder.directions.normal_()
        for values in (*adapters.shared_parameters(model), *adapters.personal_parameters(model)):
            values.normal_(std=0.1)
    true = whole(model, target, signals)
    assert snr_db(true, plain) < 40.0
    assert snr_db(true, streamed(StreamNetwork(model, target), signals, 1)) > 100.0


def test_a_model_that_looks_ahead_in_its_decoder_is_refused(
    make_model: Callable[[], VoiceModel], target: SpeakerProfile, tmp_path: Path
) -> None:
    with pytest.raises(BadWeights, match="ahead"):
        StreamNetwork(make_model(), target)
    with pytest.raises(BadWeights, match="ahead"):
        save_stream(make_model(), tmp_path / "stream.safetensors")


def test_weights_come_back_in_half_precision(
    make_streaming_model: Callable[[], VoiceModel], tmp_path: Path
) -> None:
    model, path = make_streaming_model(), tmp_path / "stream.safetensors"
    save_stream(model, path)
    again = load_stream(path)
    assert again.settings == model.settings
    state = model.state_dict()
    for name, value in again.state_dict().items():
        assert torch.equal(value, state[name].half().float())


def test_the_shipped_streaming_model_is_the_one_that_the_code_names() -> None:
    model = load_stream()
    assert sum(model.settings.encoder_ahead) == LOOK_AHEAD
    assert not any(parameter.requires_grad for parameter in model.parameters())
