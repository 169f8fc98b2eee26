"""Real-time factor of a voice file and, in the same run, of published PyTorch models.

    python tests/benchmarks/rtf.py                      the shipped base, 20 s of generated speech
    python tests/benchmarks/rtf.py --voice voice.onnx --audio me.wav --threads 2
    python tests/benchmarks/rtf.py --references V1,V2,V3

The factor is seconds of computing for a second of speech. In a voice file is everything that
`chorister convert` runs on each second: F0, log-mel, network, vocoder, and, in the second line,
segments and levels. The references are HiFi-GAN's generators (hifi_gan.py has their source): V3 of
1.46 and V2 of 0.92 million parameters are the published ones nearest in size to the voice; V1, of
13.9, is the usual one. They only turn log-mel into samples: a converter that ends in one of them
has its encoder still to run. The same voice in PyTorch says what is the runtime's doing.

Reported and not asserted: it depends on the machine. The processor's own time is given too, which
other work on the machine disturbs less; ratios are of that.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hifi_gan
import numpy as np
import torch

from chorister.client.convert import convert_recording
from chorister.client.voice import Voice, open_voice
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder

SECONDS = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voice", type=Path, help="a voice.onnx (default: the shipped base)")
    parser.add_argument("--audio", type=Path, help="a recording (default: generated)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--references", default="V3,V2", metavar="NAMES", help="of V1, V2, V3")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    profile = profile_from(
        [Recording(generated(), "somebody")], load_speaker_encoder(), load_base()
    )
    voice = (
        open_voice(options.voice, threads=options.threads)
        if options.voice
        else base_voice(profile, options.threads)
    )
    samples = load_recording(options.audio).samples if options.audio else generated()
    recording = Recording(samples, "benchmark")
    seconds = recording.duration_s
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"{options.threads} thread(s); {seconds:.1f} s of speech; median of {options.repeats}\n")
    print(f"{'':40}{'clock':>8}{'processor':>11}{'ratio':>8}")

    def row(name: str, run: Callable[[], object], ours: float | None) -> float:
        clock, processor = factors(run, seconds, options.repeats)
        ratio = f"{processor / ours:8.1f}" if ours else ""
        print(f"{name:40}{clock:8.4f}{processor:11.4f}{ratio}", flush=True)
        return processor

    ours = row("voice file, onnxruntime", lambda: voice.run(samples), None)
    row("... with segments and levels", lambda: convert_recording(voice, recording), ours)
    model = load_base().eval()
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    row(
        f"the base ({size:.2f} M), PyTorch, with F0",
        lambda: model.convert(extract_features(recording), profile, profile),
        ours,
    )
    frames = round(seconds * hifi_gan.RATE_HZ / hifi_gan.HOP_SAMPLES)
    log_mel = torch.zeros(1, hifi_gan.MEL_BANDS, frames)
    for name in options.references.split(","):
        generator = hifi_gan.generator(name)
        size = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
        with torch.inference_mode():
            row(
                f"HiFi-GAN {name} ({size:.2f} M), PyTorch",
                lambda render=generator: render(log_mel),
                ours,
            )


def factors(run: Callable[[], object], seconds: float, repeats: int) -> tuple[float, float]:
    """Real-time factor of a call, by the clock and by the processor's time; medians."""
    run()
    by_clock, by_processor = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        by_clock.append((time.perf_counter() - clock) / seconds)
        by_processor.append((time.process_time() - processor) / seconds)
    return statistics.median(by_clock), statistics.median(by_processor)


def base_voice(profile: SpeakerProfile, threads: int) -> Voice:
    """The shipped base with somebody's statistics: speed does not depend on whose voice it is."""
    from chorister.client import consent
    from chorister.client.export import Origin, build_voice
    from chorister.shared.privacy.ledger_file import LedgerFile
    from chorister.shared.randomness import SystemRandomness
    from chorister.shared.signing import SigningKey
    from chorister.shared.voice.base_digest import BASE_SHA256

    key = SigningKey.generate(SystemRandomness())
    me = key.verify_key()
    now_s = int(time.time())
    record = consent.give(
        key, controller="benchmark", purposes=("conversion",), given_s=now_s,
        expires_s=now_s + 3600, jurisdiction="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ledger = LedgerFile(Path(folder) / "ledger.jsonl", owner=me.name, federation="none")
        permit = consent.permit(record, "conversion", device=me, now_s=now_s, ledger=ledger)
        origin = Origin(BASE_SHA256, "", me.name)
        data = build_voice(load_base(), profile, permit, origin, now_s=now_s)
    print(f"voice file: {len(data) / 1e6:.1f} MB")
    return Voice(data, "base", threads=threads)


def generated() -> FloatArray:
    """A gliding harmonic tone with pauses; what is in it does not change the time that it takes."""
    t = np.arange(round(SECONDS * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    cycles = 150 * t + 8 * np.sin(2 * np.pi * 0.5 * t)
    tone = sum(np.sin(2 * np.pi * k * cycles) / k for k in range(1, 15))
    return (0.05 * tone * (np.sin(2 * np.pi * 0.8 * t) > -0.5)).astype(np.float32)


if __name__ == "__main__":
    main()
