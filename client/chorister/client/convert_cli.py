"""`chorister convert`: a recording in another voice."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chorister.client.controls import LIMITS, Controls
from chorister.client.convert import check_destination, convert_file
from chorister.client.home import add_vault_options
from chorister.client.sealed import open_any_voice
from chorister.client.source import open_source
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)

# A difference in loudness from here on is worth a word.
_HEARD_LU = 1.0

SUMMARY = "say a recording's words in another voice"
_EXAMPLES = """examples:
  chorister convert talk.mp3 talk-as-me.wav --voice me.voice
  chorister convert me.wav me-as-anna.wav --voice anna/voice.onnx
  chorister convert me.wav me-as-anna.wav --voice anna/voice.onnx --source-voice me.voice
  chorister convert lecture.flac out.flac --voice voice.onnx --pitch -2
  chorister convert me.wav slow.wav --voice voice.onnx --rate 0.8 --intonation 1.2
  chorister convert me.wav out.wav --voice voice.onnx --json

The result is 16 kHz mono; without controls it is as long and as loud as the source.
Endings: .wav .flac .ogg .opus"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister convert",
        description="Convert a recording of any length to the voice in a voice file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="IN", help="wav, flac, ogg, opus, mp3")
    parser.add_argument("destination", type=Path, metavar="OUT", help="where to write the result")
    parser.add_argument(
        "--voice", type=Path, required=True, metavar="FILE", help="a .voice or voice.onnx"
    )
    parser.add_argument(
        "--source-voice",
        type=Path,
        metavar="ME",
        help="who speaks in IN, if they enrolled or made a voice: their vault's folder, or a "
        "sealed voice of theirs. Without it the first two seconds of speech are listened to",
    )
    _add_controls(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of onnxruntime (default 1)"
    )
    add_vault_options(parser)
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    controls = Controls(**{name: getattr(options, name) for name in LIMITS})
    check_destination(options.destination, overwrite=options.overwrite)
    speaker = home = None
    if options.source_voice is not None:
        speaker, home = open_source(options.source_voice, options)
    voice = open_any_voice(options.voice, options, home=home, threads=max(options.threads, 1))
    began = time.perf_counter()
    with progress(f"Converting {options.source.name}", 100) as step:
        done = convert_file(
            voice,
            options.source,
            options.destination,
            controls=controls,
            speaker=speaker,
            overwrite=options.overwrite,
            on_percent=step,
        )
    took_s = time.perf_counter() - began
    if options.json:
        print_json(
            {
                "output": str(options.destination),
                "seconds": done.seconds,
                "took_s": took_s,
                "controls": asdict(controls),
                "source_lufs": _finite(done.source_lufs),
                "wanted_lufs": _finite(done.wanted_lufs),
                "result_lufs": _finite(done.result_lufs),
                "source_known": done.source_known,
                "voice": {
                    "target": voice.card.target,
                    "base_sha256": voice.card.base_sha256,
                    "shared_adapter_sha256": voice.card.shared_adapter_sha256,
                    "consent_sha256": voice.card.consent_sha256,
                },
            }
        )
    say(f"{options.destination}: {done.seconds:.1f} s, converted in {took_s:.1f} s")
    if done.result_lufs < done.wanted_lufs - _HEARD_LU:
        say(
            f"It is {done.wanted_lufs - done.result_lufs:.1f} dB quieter than asked: its peaks "
            "are at full scale. Ask for less --energy."
        )
    return 0


def _add_controls(parser: argparse.ArgumentParser) -> None:
    """An option for each control, named without its unit."""
    group = parser.add_argument_group("controls")
    for name, metavar, text in (
        ("pitch_st", "ST", "semitones up"),
        ("formant", "R", "factor on the formants' frequencies: a smaller or larger throat"),
        ("rate", "R", "factor on the speed; the pitch stays"),
        ("energy_db", "DB", "decibels louder than the source"),
        ("intonation", "R", "factor on the pitch's movement, 0 is monotone"),
        ("breathiness", "B", "share of the harmonics that becomes noise, or the reverse below 0"),
    ):
        limits = LIMITS[name]
        group.add_argument(
            "--" + name.split("_")[0],
            dest=name,
            type=float,
            default=limits.neutral,
            metavar=metavar,
            help=f"{text} ({limits.low:g} to {limits.high:g}, default {limits.neutral:g})",
        )


def _finite(lufs: float) -> float | None:
    return lufs if lufs > float("-inf") else None
