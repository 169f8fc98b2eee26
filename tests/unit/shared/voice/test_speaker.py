"""The speaker encoder: bad weights and bad input first, then what a voice vector must obey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice import speaker
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.speaker import SPEAKER_FORMAT, SpeakerEncoder, load_speaker_encoder

SPEECH = Path(__file__).parents[5] / "shared" / "data" / "librispeech" / "test-clean"


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return load_speaker_encoder()


@pytest.fixture
def unloaded() -> Iterator[None]:
    speaker._load_shipped.cache_clear()
    yield
    speaker._load_shipped.cache_clear()


def _mel(frames: int, seed: int = 0) -> FloatArray:
    draw = np.random.default_rng(seed)
    samples = draw.normal(size=frames * 160).cumsum()
    samples -= np.convolve(samples, np.full(64, 1 / 64), "same")
    return log_mel((0.1 * samples / np.abs(samples).max()).astype(np.float32))


def test_changed_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unloaded: None
) -> None:
    content = bytearray(speaker.SPEAKER_WEIGHTS.read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "speaker.safetensors"
    changed.write_bytes(content)
    monkeypatch.setattr(speaker, "SPEAKER_WEIGHTS", changed)
    with pytest.raises(BadWeights, match=r"with digest"):
        load_speaker_encoder()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"absent\.safetensors"):
        load_speaker_encoder(tmp_path / "absent.safetensors")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(speaker.SPEAKER_WEIGHTS.read_bytes()[:5000])
    with pytest.raises(BadWeights, match="unusable"):
        load_speaker_encoder(cut)


def test_another_format_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(load_file(speaker.SPEAKER_WEIGHTS), other, metadata={"format": "someone-else-3"})
    with pytest.raises(BadWeights, match="someone-else-3"):
        load_speaker_encoder(other)


def test_another_shape_is_refused(tmp_path: Path) -> None:
    state = load_file(speaker.SPEAKER_WEIGHTS)
    state["project.weight"] = state["project.weight"][:, :5].contiguous()
    other = tmp_path / "other.safetensors"
    save_file(state, other, metadata={"format": SPEAKER_FORMAT})
    with pytest.raises(BadWeights, match="unusable"):
        load_speaker_encoder(other)


@pytest.mark.parametrize("shape", [(19, 80), (100, 40), (100,), (0, 80)])
def test_unusable_shapes_are_refused(encoder: SpeakerEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadAudio, match="at least 20 frames"):
        encoder.embed(np.zeros(shape, np.float32))


def test_values_that_are_not_finite_are_refused(encoder: SpeakerEncoder) -> None:
    mel = _mel(100)
    mel[3, 3] = np.nan
    with pytest.raises(BadAudio, match="1 values that are not"):
        encoder.embed(mel)


def test_the_size_stays_small(encoder: SpeakerEncoder) -> None:
    assert sum(p.numel() for p in encoder.parameters()) <= 800_000
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("frames", [20, 159, 160, 161, 400])
def test_vectors_are_unit_and_the_same_twice(encoder: SpeakerEncoder, frames: int) -> None:
    mel = _mel(frames)
    vector = encoder.embed(mel)
    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert (encoder.embed(mel) == vector).all()


@pytest.mark.parametrize(("frames", "windows"), [(100, 1), (160, 1), (161, 2), (240, 2), (400, 4)])
def test_windows_cover_the_whole_sequence(
    encoder: SpeakerEncoder, frames: int, windows: int
) -> None:
    rows = encoder.embed_windows(_mel(frames))
    assert rows.shape == (windows, 256)
    assert encoder.embed(_mel(frames)) @ rows.mean(0) == pytest.approx(
        np.linalg.norm(rows.mean(0)), abs=1e-5
    )


def test_a_batch_gives_what_single_sequences_give(encoder: SpeakerEncoder) -> None:
    mels = torch.from_numpy(np.stack([_mel(160, seed) for seed in range(3)]))
    with torch.no_grad():
        batch = encoder(mels)
        single = torch.cat([encoder(mel[None]) for mel in mels])
    assert torch.allclose(batch, single, atol=1e-5)


def test_gradients_reach_the_log_mel(encoder: SpeakerEncoder) -> None:
    mel = torch.from_numpy(_mel(160))[None].requires_grad_()
    encoder(mel)[0, 0].backward()
    assert mel.grad is not None
    assert torch.isfinite(mel.grad).all()
    assert mel.grad.abs().amax(2).min() > 0.0


def test_the_level_does_not_matter(encoder: SpeakerEncoder) -> None:
    mel = _mel(300)
    assert encoder.embed(mel) @ encoder.embed(mel + 1.5) == pytest.approx(1.0, abs=1e-4)


def test_appended_silence_is_left_out(encoder: SpeakerEncoder) -> None:
    mel = _mel(320)
    padded = np.concatenate((mel, np.full((480, 80), np.log(1e-5), np.float32)))
    # Windows start at 0, 80, 160 and 240; the next ones hold silence alone.
    assert len(encoder.embed_windows(padded)) == 4


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs ../shared/data")
def test_real_voices_are_told_apart(encoder: SpeakerEncoder) -> None:
    import soundfile

    voices: dict[str, list[FloatArray]] = {}
    for name in ("5142", "6829", "7729", "8224"):
        paths = [p for p in sorted((SPEECH / name).rglob("*.opus")) if p.stat().st_size > 30_000]
        for path in (paths[0], paths[-1]):
            samples, _ = soundfile.read(path, dtype="float32")
            voices.setdefault(name, []).append(encoder.embed(log_mel(samples)))
    first = np.stack([pair[0] for pair in voices.values()])
    second = np.stack([pair[1] for pair in voices.values()])
    similarity = first @ second.T
    assert (similarity.argmax(1) == np.arange(4)).all()
    assert similarity.diagonal().min() > similarity[~np.eye(4, dtype=bool)].max()
