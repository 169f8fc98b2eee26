"""Convolutional against recurrent decoder blocks: values, and processor time of a training step.

python tests/benchmarks/blocks.py
"""

from __future__ import annotations

import statistics
import time

import torch

from chorister.shared.console import say
from chorister.shared.voice.model import ModelSettings, VoiceModel

EXAMPLES, FRAMES, REPEATS = 8, 160, 12


def main() -> None:
    """Measures both in turn and prints them with their ratio."""
    torch.set_num_threads(1)
    models = [VoiceModel(ModelSettings(decoder_recurrent=kind)) for kind in (False, True)]
    content = torch.randn(EXAMPLES, FRAMES, models[0].settings.content)
    f0_hz, condition = torch.full((EXAMPLES, FRAMES), 150.0), torch.randn(EXAMPLES, 128)
    spent: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for model, times in zip(models, spent, strict=True):
            began = time.process_time()
            harmonic, noise = model.decoder(content, f0_hz, condition, None)
            torch.autograd.backward(harmonic.mean() + noise.mean())
            times.append(time.process_time() - began)
    for name, model, times in zip(("convolutional", "recurrent"), models, spent, strict=True):
        values = sum(parameter.numel() for parameter in model.parameters())
        say(f"{name:>13}: {values} values, {statistics.median(times):.3f} s a step of the decoder")
    say(f"ratio {statistics.median(spent[1]) / statistics.median(spent[0]):.1f}")


if __name__ == "__main__":
    main()
