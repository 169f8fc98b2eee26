"""`chorister live`: from the microphone to the speaker in another voice, as it is spoken."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chorister.client.controls import LIMITS, Controls
from chorister.client.home import add_vault_options
from chorister.client.sealed import open_any_live_voice
from chorister.client.source import open_source
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import UsageError

if TYPE_CHECKING:
    from chorister.client.source import KnownSource
    from chorister.client.stream_voice import LiveVoice
    from chorister.client.voice import SourceStatistics
    from chorister.shared.types import FloatArray

SUMMARY = "speak in another voice, live"
_EXAMPLES = """examples:
  chorister live --voice me-live.voice
  chorister live --voice anna-live.onnx --calibrate me.wav --pitch -2
  chorister live --voice anna-live.onnx --source-voice me.voice
  chorister live --voice anna-live.onnx --file me.wav out.wav
  chorister live --voice anna-live.onnx --latency

It listens to two seconds of your speech first, or takes them from --calibrate, or what your
enrolment says from --source-voice, and speaks from then on. Wear headphones: a microphone that
hears the speaker howls. --file does the same with a recording, in the same chunks. Live voices are
made by `chorister personalise --live`."""
_FRAME_MS = 10
_MOST_CHUNK_MS = 200
_MEASURED_STEPS = 300
_ASKED_EVERY_S = 1.0


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister live",
        description="Convert speech live: from the microphone to the speaker, or over a file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--voice", type=Path, required=True, metavar="FILE", help="a live voice")
    parser.add_argument(
        "--file", type=Path, nargs=2, metavar=("IN", "OUT"), help="convert a recording instead"
    )
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE", help="a recording of whoever speaks"
    )
    parser.add_argument(
        "--source-voice",
        type=Path,
        metavar="ME",
        help="who speaks, if they enrolled or made a voice: their vault's folder, or a sealed "
        "voice of theirs; at the microphone that they enrolled with",
    )
    low, high = LIMITS["pitch_st"].low, LIMITS["pitch_st"].high
    parser.add_argument(
        "--pitch", type=float, default=0.0, metavar="ST", help=f"semitones up ({low:g} to {high:g})"
    )
    parser.add_argument(
        "--chunk", type=int, default=_FRAME_MS, metavar="MS", help="10, 20, ... 200 (default 10)"
    )
    parser.add_argument("--latency", action="store_true", help="print every term of the delay")
    parser.add_argument("--input", metavar="DEVICE", help="microphone: number or part of its name")
    parser.add_argument("--output", metavar="DEVICE", help="speaker, likewise")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after so long")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of onnxruntime")
    add_vault_options(parser)
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    Controls(pitch_st=options.pitch)  # refuses what no voice can speak
    if options.chunk % _FRAME_MS or not _FRAME_MS <= options.chunk <= _MOST_CHUNK_MS:
        raise UsageError(
            f"--chunk is a multiple of {_FRAME_MS} ms up to {_MOST_CHUNK_MS} ms.",
            f"{options.chunk}",
            "10 has the least delay; a slow machine needs 20 or more.",
        )
    if options.file is not None and not options.latency:
        from chorister.client.convert import check_destination

        check_destination(options.file[1], overwrite=options.overwrite)
    if options.calibrate is not None and options.source_voice is not None:
        raise UsageError(
            "A speaker is known by an enrolment or by a recording.",
            "--source-voice and --calibrate",
            "Leave one of them out.",
        )
    speaker = home = None
    if options.source_voice is not None:
        speaker, home = open_source(options.source_voice, options)
    voice, still_allowed = open_any_live_voice(
        options.voice, options, home=home, threads=max(options.threads, 1)
    )
    if options.latency:
        return _latency(voice, options)
    ask = _now_and_again(still_allowed)
    if options.file is not None:
        return _convert(voice, speaker, options, ask)
    return _speak(voice, speaker, options, ask)


def _statistics(
    speaker: KnownSource | None, options: argparse.Namespace, recording: Path | None = None
) -> SourceStatistics | None:
    """What is known of the speaker beforehand; a recording may be of any loudness."""
    from chorister.client.calibration import calibrate_from
    from chorister.client.convert import file_loudness

    if speaker is not None:
        return speaker.statistics if recording is None else speaker.at(file_loudness(recording))
    return None if options.calibrate is None else calibrate_from(options.calibrate)


def _latency(voice: LiveVoice, options: argparse.Namespace) -> int:
    """Every term of the delay; computing is measured here and now."""
    from chorister.client.live_speed import measure_steps, middle

    latency = voice.latency(options.chunk // _FRAME_MS)
    times = measure_steps(voice, _MEASURED_STEPS)
    step_ms, slow_ms = middle(times.wall_ms), times.wall_ms[len(times.wall_ms) * 95 // 100]
    spent_ms = middle(times.processor_ms)
    chunk_frames = latency.chunk_frames
    terms = latency.terms_ms()
    known_ms = sum(terms.values())
    for name, value in terms.items():
        say(f"{name:12} {value:7.1f} ms")
    say(f"{'sum':12} {known_ms:7.1f} ms")
    say(f"{'compute':12} {step_ms * chunk_frames:7.1f} ms (one step in twenty takes more than"
        f" {slow_ms:.1f} ms)")  # fmt: skip
    say(f"{'altogether':12} {known_ms + step_ms * chunk_frames:7.1f} ms, and the sound card's own")
    say(
        f"real-time factor {spent_ms / _FRAME_MS:.3f} of processor time, {step_ms / _FRAME_MS:.3f} "
        f"by the clock; a step takes {times.ratio:.1f} times as long as reading 11 MB"
    )
    if options.json:
        print_json(
            {
                "terms_ms": terms,
                "sum_ms": known_ms,
                "compute_ms": step_ms * chunk_frames,
                "step_95_percent_ms": slow_ms,
                "real_time_factor": spent_ms / _FRAME_MS,
                "real_time_factor_by_the_clock": step_ms / _FRAME_MS,
                "reference_ms": middle(times.reference_ms),
                "steps_to_reference": times.ratio,
            }
        )
    return 0


def _convert(
    voice: LiveVoice,
    speaker: KnownSource | None,
    options: argparse.Namespace,
    ask: Callable[[], None],
) -> int:
    """The live path over a recording."""
    from chorister.client.calibration import calibrate_from
    from chorister.client.live_file import convert_file_live

    source, destination = options.file
    statistics = _statistics(speaker, options, source) or calibrate_from(source)
    began = time.perf_counter()
    with progress(f"Converting {source.name}", 100) as step:

        def on_percent(percent: int) -> None:
            ask()
            step(percent)

        seconds = convert_file_live(
            voice,
            statistics,
            source,
            destination,
            chunk_frames=options.chunk // _FRAME_MS,
            pitch_st=options.pitch,
            on_percent=on_percent,
        )
    took_s = time.perf_counter() - began
    if options.json:
        print_json({"output": str(destination), "seconds": seconds, "took_s": took_s})
    say(f"{destination}: {seconds:.1f} s, converted in {took_s:.1f} s, {options.chunk} ms at once")
    return 0


def _speak(
    voice: LiveVoice,
    speaker: KnownSource | None,
    options: argparse.Namespace,
    ask: Callable[[], None],
) -> int:
    """Microphone to speaker, until interrupted or not allowed any more."""
    from chorister.client.live import LiveConverter
    from chorister.client.live_sound import Devices, open_sound

    converter = LiveConverter(voice, _statistics(speaker, options), pitch_st=options.pitch)
    latency = voice.latency(options.chunk // _FRAME_MS)
    devices = Devices(options.input, options.output)

    def convert(block: FloatArray) -> FloatArray:
        return converter.feed(block)

    with open_sound(convert, latency.chunk_frames, devices) as sound:
        model_ms = sum(latency.terms_ms().values())
        say(f"Delay: {model_ms:.0f} ms of the model, {sound.latency_ms:.0f} ms of the sound card.")
        if not converter.calibrated:
            say("Speak: two seconds of your voice are needed first.")
        for _ in _ticks(options.seconds):
            ask()
            if sound.failure is not None:
                raise sound.failure
            if converter.calibrated:
                break
        if converter.calibrated:
            say("Calibrated. Ctrl-C ends it.")
        for _ in _ticks(options.seconds):
            ask()
            if sound.failure is not None:
                raise sound.failure
        dropped = sound.dropped
    if dropped:
        say(f"{dropped} chunks came too late: try --chunk 20, or close other programs.")
    return 0


def _now_and_again(ask: Callable[[], None]) -> Callable[[], None]:
    """What may be called at any rate, and asks about once a second."""
    last_s = time.monotonic()

    def asked() -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _ASKED_EVERY_S:
            last_s = now_s
            ask()

    return asked


def _ticks(seconds: float | None) -> Iterator[None]:
    """Every tenth of a second until the time is up, or for ever."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        time.sleep(0.1)
        yield
