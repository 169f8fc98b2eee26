"""`chorister personalise`: one's own recordings to one's own voice file."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    complain,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import ConsentRefused, UsageError

SUMMARY = "make a voice file from recordings of your own voice"
_EXAMPLES = """examples:
  chorister personalise recordings/ --out me.onnx --own-voice
  chorister personalise a.wav b.wav c.wav --out me.onnx --own-voice --steps 100
  chorister personalise recordings/ --out me.onnx --own-voice \\
      --adapter OUT/adapters/DIGEST.safetensors

A minute of speech is good, three are better. Beside the voice file lie your consent
(me.onnx.consent.json) and the ledger of what was done under it (me.onnx.ledger.jsonl).
Whoever has a copy of the voice file can speak with your voice: keep it as you keep a key."""
_DEFAULT_STEPS = 100


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister personalise",
        description="Train a personal adapter on your own recordings and export your voice.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="RECORDINGS", help="audio files or folders"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="voice file to write"
    )
    parser.add_argument(
        "--own-voice",
        action="store_true",
        help="say that the voice is your own and that you consent to its use for this: training "
        "a personal adapter, converting speech, and a plain voice file; it expires after a year",
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="FILE", help="a federation's shared adapter"
    )
    parser.add_argument("--base", type=Path, metavar="FILE", help="another base model's weights")
    parser.add_argument(
        "--steps", type=int, default=_DEFAULT_STEPS, metavar="N", help="most training steps"
    )
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop training after this")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the training (default 0)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="Z",
        help="train by DP-SGD with this noise multiplier, for an adapter that is to be given away",
    )
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    if not options.own_voice:
        raise ConsentRefused(
            "A voice is used with its owner's consent only.",
            "no --own-voice",
            "If the voice is your own, read what --own-voice says in --help and add it.",
        )
    return _personalise(options)


def _personalise(options: argparse.Namespace) -> int:
    from chorister.client.adapter_file import read_adapter
    from chorister.client.own_voice import make_own_voice, own_voice_files, read_own_recordings
    from chorister.client.personal_privacy import PersonalPrivacy
    from chorister.client.personalise import PersonaliseSettings
    from chorister.shared.privacy.segment_level import segment_figure
    from chorister.shared.randomness import SystemRandomness
    from chorister.shared.settings import SegmentPrivacy
    from chorister.shared.voice.base import BASE_WEIGHTS, load_base
    from chorister.shared.voice.speaker import load_speaker_encoder

    for file in own_voice_files(options.out):
        if file.exists():
            raise UsageError(
                "An existing file is not overwritten.", str(file), "Choose another name."
            )
    settings = PersonaliseSettings.parse(
        {"steps": options.steps, "max_s": options.max_seconds, "seed": options.seed},
        "the command line",
    )
    privacy = None
    if options.noise is not None:
        wanted = SegmentPrivacy.parse({"noise_multiplier": options.noise}, "the command line")
        privacy = PersonalPrivacy(wanted, SystemRandomness())
    adapter = read_adapter(options.adapter) if options.adapter else None
    material = read_own_recordings(options.recordings)
    for error in material.skipped:
        complain(f"skipped: {error}")
    model = load_base(options.base)
    base_sha256 = hashlib.sha256((options.base or BASE_WEIGHTS).read_bytes()).hexdigest()
    with progress(f"Personalising from {material.seconds:.0f} s", options.steps) as step:
        made = make_own_voice(
            model,
            base_sha256,
            adapter,
            material,
            load_speaker_encoder(),
            options.out,
            now_s=int(time.time()),
            settings=settings,
            privacy=privacy,
            on_step=step,
        )
    event = made.result.event
    figure = None
    if privacy is not None and event is not None:
        figure = segment_figure((event,), privacy.segment.delta_dp)
    if options.json:
        result = made.result
        print_json(
            {
                "voice": str(options.out),
                "sha256": made.sha256,
                "consent_sha256": made.consent_sha256,
                "seconds_of_speech": material.seconds,
                "skipped": len(material.skipped),
                "kept": result.kept,
                "loss_before": result.loss_before,
                "loss_after": result.loss_after,
                "similarity_before": result.similarity_before,
                "similarity_after": result.similarity_after,
                "steps": result.steps,
                "took_s": result.seconds,
                "epsilon_segment": figure and figure.epsilon,
            }
        )
    say(made.result.verdict())
    if figure is not None:
        say(
            f"Privacy of the training segments in the personal adapter: {figure.sentence()}. The "
            "voice file also holds the speaker's vector and statistics, which no noise protects."
        )
    say(f"{options.out}: try it with `chorister convert IN.wav OUT.wav --voice {options.out}`")
    return 0
