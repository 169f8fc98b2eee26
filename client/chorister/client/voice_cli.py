"""`chorister voice`: what a voice file is, and smaller forms of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chorister.client.home import add_vault_options
from chorister.client.sealed import open_any_voice
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import BadWeights, UsageError
from chorister.shared.files import write_atomically
from chorister.shared.voice.audio import load_recording

SUMMARY = "show a voice file, or make a smaller one and measure what it loses"
_EXAMPLES = """examples:
  chorister voice show me.voice
  chorister voice variants voice.onnx --audio me.wav
  chorister voice variants voice.onnx --audio me.wav --out smaller/"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister voice",
        description="Show where a voice file comes from, or store its weights in fewer bits.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="check a voice file and print its metadata")
    show.add_argument("voice", type=Path, metavar="VOICE", help="a .voice or voice.onnx")
    add_vault_options(show)
    variants = verbs.add_parser(
        "variants", help="compare a plain voice file in fp32, fp16 and int8 on a recording"
    )
    variants.add_argument("voice", type=Path, metavar="VOICE", help="a voice.onnx in fp32")
    variants.add_argument(
        "--audio", type=Path, required=True, metavar="FILE", help="speech; 20 s of it are used"
    )
    variants.add_argument(
        "--out", type=Path, metavar="DIR", help="write NAME.fp16.onnx and NAME.int8.onnx there"
    )
    for verb in (show, variants):
        add_output_options(verb)
    options = parser.parse_args(argv)
    apply_output_options(options)
    return _show(options) if options.verb == "show" else _variants(options)


def _show(options: argparse.Namespace) -> int:
    card = asdict(open_any_voice(options.voice, options).card)
    if options.json:
        print_json(card)
    for name, value in card.items():
        say(f"{name:24} {value or 'none'}")
    return 0


def _variants(options: argparse.Namespace) -> int:
    # onnx is loaded for this alone: to convert, none is needed.
    from chorister.client.variants import measure_variants

    try:
        voice = options.voice.read_bytes()
    except OSError as error:
        raise BadWeights(
            "The voice file must exist and be readable.",
            f"{options.voice}, {error.strerror or error}",
            "Check the path; `chorister personalise --plain` writes one.",
        ) from error
    recording = load_recording(options.audio)
    with progress("Measuring", 1) as step:
        found = measure_variants(voice, recording.samples, options.voice.name)
        step()
    if options.json:
        print_json(
            [
                {
                    "precision": one.precision,
                    "bytes": len(one.data),
                    # JSON has no infinity: nothing is lost.
                    "snr_db": None if one.precision == "fp32" else one.snr_db,
                    "log_mel_distance_db": one.log_mel_distance_db,
                    "real_time_factor": one.real_time_factor,
                }
                for one in found
            ]
        )
    say(f"{'':8}{'size':>9}{'SNR to fp32':>14}{'log-mel distance':>19}{'real-time factor':>19}")
    for one in found:
        say(
            f"{one.precision:8}{len(one.data) / 1e6:6.2f} MB{one.snr_db:11.1f} dB"
            f"{one.log_mel_distance_db:16.3f} dB{one.real_time_factor:19.4f}"
        )
    if options.out:
        for one in found[1:]:
            _write(options.out / f"{options.voice.stem}.{one.precision}.onnx", one.data)
    return 0


def _write(path: Path, data: bytes) -> None:
    if path.exists():
        raise UsageError(
            "An existing file is not overwritten.", str(path), "Choose another folder."
        )
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(
            "The output folder must exist and be writable.",
            f"{path}: {error.strerror or error}",
            "Create it, free some space or choose another place.",
        ) from error
    say(f"{path}")
