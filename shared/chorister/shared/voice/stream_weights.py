"""The streaming model's weights: the base's format, in half precision and with look-ahead."""

from __future__ import annotations

from pathlib import Path

import torch

from chorister.shared.errors import BadWeights
from chorister.shared.voice.base import read_weights, save_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.stream_digest import STREAM_SHA256

STREAM_WEIGHTS = Path(__file__).parent / "weights" / "stream.safetensors"


def save_stream(model: VoiceModel, path: Path) -> str:
    """Writes a streaming model without adapters, in half precision, whole or not at all.

    Args:
        model: its decoder sees nothing ahead.
        path: where to; replaced if it exists.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        BadWeights: the model is no streaming model.
    """
    check_streams(model, path.name)
    return save_base(model, path, torch.float16)


def load_stream(path: Path | None = None) -> VoiceModel:
    """The frozen streaming model.

    Args:
        path: a weights file; None for the shipped one, whose digest is checked.

    Returns:
        a new model on the CPU, float32, in evaluation mode, without gradients.

    Raises:
        BadWeights: as `base.load_base`, or an offline model.
    """
    model = read_weights(path or STREAM_WEIGHTS, None if path else STREAM_SHA256)
    check_streams(model, (path or STREAM_WEIGHTS).name)
    return model


def check_streams(model: VoiceModel, name: str) -> None:
    """Return if a model can run on a stream: what it looks ahead is stated, and in the encoder.

    Raises:
        BadWeights: it cannot.
    """
    settings = model.settings
    sees = settings.decoder_recurrent or any(settings.decoder_ahead)
    if not settings.encoder_ahead or not settings.decoder_ahead or sees:
        raise BadWeights(
            "A streaming model states how far its encoder looks ahead, and its decoder does not.",
            f"{name} with look-ahead {settings.encoder_ahead} and {settings.decoder_ahead}",
            "Make one with `chorister train-stream`.",
        )
