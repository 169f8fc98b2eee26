"""`chorister try`: your own words in the demo's voice."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from chorister.client.controls import Controls
from chorister.client.convert import Conversion, check_destination, convert_file
from chorister.client.voice import Voice, open_voice
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import UsageError
from chorister.simulations.folder import RunFolder

SUMMARY = "hear your own words in a voice of a demo"
_EXAMPLES = """examples:
  chorister try me.wav
  chorister try me.wav --pitch 3 --out higher.wav
  chorister try me.wav --run OUT

Any recording of 0.3 s or more will do: wav, flac, ogg, opus or mp3. Nothing leaves this machine."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister try",
        description="Convert a recording of yours to the voice that a run made.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="ME.wav", help="a recording of your words")
    parser.add_argument(
        "--run", type=Path, default=Path("demo"), metavar="DIR", help="the run's folder (demo)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the result (ME.chorister.wav, beside ME.wav)"
    )
    parser.add_argument(
        "--pitch", type=float, default=0.0, metavar="ST", help="semitones up (default 0)"
    )
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    destination: Path = options.out or options.source.with_suffix(".chorister.wav")
    # Without --out, trying again replaces what the last try wrote.
    overwrite = options.out is None
    controls = Controls(pitch_st=options.pitch)
    voice = _voice_of(options.run)
    check_destination(destination, overwrite=overwrite)
    with progress(f"Converting {options.source.name}", 100) as step:
        done = convert_file(
            voice,
            options.source,
            destination,
            controls=controls,
            overwrite=overwrite,
            on_percent=step,
        )
    _tell(options, destination, done, voice)
    return 0


def _voice_of(run: Path) -> Voice:
    if not run.is_dir():
        raise UsageError(
            "A voice comes from a run.",
            f"no folder {run}",
            "Run `make demo` first (or `chorister simulate demo --out demo`), "
            "or name a run's folder with --run.",
        )
    path = RunFolder(run).voice
    if not path.exists():
        raise UsageError(
            "A finished run has a voice.onnx.",
            f"none in {run}",
            f"Let the run finish (`chorister simulate demo --out {run} --resume`), "
            "or name another with --run.",
        )
    return open_voice(path)


def _tell(options: argparse.Namespace, destination: Path, done: Conversion, voice: Voice) -> None:
    if options.json:
        print_json(
            {"output": str(destination), "seconds": done.seconds, "target": voice.card.target}
        )
    say(f"{destination}: {done.seconds:.1f} s in the voice of {voice.card.target}")
