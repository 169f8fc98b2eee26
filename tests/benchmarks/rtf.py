"""Real-time factor of a voice file: seconds of computing for a second of speech.

    python tests/benchmarks/rtf.py                      the shipped base, 20 s of generated speech
    python tests/benchmarks/rtf.py --voice voice.onnx --audio me.wav --threads 2

Everything is in it that `chorister convert` runs on each second: F0, log-mel, network, vocoder,
and, in the second line, segments and levels. It is reported and not asserted: it depends on the
machine. The processor's own time is given too, which other work on the machine disturbs less.
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

import numpy as np

from chorister.client.convert import convert_recording
from chorister.client.voice import Voice, open_voice
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.audio import load_recording

SECONDS = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voice", type=Path, help="a voice.onnx (default: the shipped base)")
    parser.add_argument("--audio", type=Path, help="a recording (default: generated)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    threads = options.threads
    voice = open_voice(options.voice, threads=threads) if options.voice else base_voice(threads)
    samples = load_recording(options.audio).samples if options.audio else generated()
    recording = Recording(samples, "benchmark")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {os.getloadavg()[0]:.1f} load, ", end="")
    print(
        f"{threads} thread(s), {recording.duration_s:.1f} s of speech, best and median of ", end=""
    )
    print(options.repeats)
    report("voice file alone", lambda: voice.run(samples), recording.duration_s, options.repeats)
    report(
        "with segments and levels",
        lambda: convert_recording(voice, recording),
        recording.duration_s,
        options.repeats,
    )


def report(name: str, run: Callable[[], object], seconds: float, repeats: int) -> None:
    """Print the real-time factor of a call, by the clock and by the processor's time."""
    run()
    by_clock, by_processor = [], []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        by_clock.append((time.perf_counter() - clock) / seconds)
        by_processor.append((time.process_time() - processor) / seconds)
    for kind, factors in (("clock", by_clock), ("processor", by_processor)):
        median = statistics.median(factors)
        print(f"{name:26} {kind:10} {min(factors):.4f} {median:.4f}")


def base_voice(threads: int) -> Voice:
    """The shipped base with somebody's statistics: speed does not depend on whose voice it is."""
    from chorister.client import consent
    from chorister.client.export import Origin, build_voice
    from chorister.shared.privacy.ledger_file import LedgerFile
    from chorister.shared.randomness import SystemRandomness
    from chorister.shared.signing import SigningKey
    from chorister.shared.voice.base import load_base
    from chorister.shared.voice.base_digest import BASE_SHA256
    from chorister.shared.voice.profile import profile_from
    from chorister.shared.voice.speaker import load_speaker_encoder

    key = SigningKey.generate(SystemRandomness())
    me = key.verify_key()
    now_s = int(time.time())
    record = consent.give(
        key, controller="benchmark", purposes=("conversion",), given_s=now_s,
        expires_s=now_s + 3600, jurisdiction="none",
    )  # fmt: skip
    profile = profile_from([Recording(generated(), "somebody")], load_speaker_encoder())
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
