"""`chorister personalise`: one's own recordings to one's own voice file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from chorister.client.home import (
    add_vault_options,
    exists,
    open_or_create_from,
    vault_folder,
)
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
  chorister personalise recordings/ --out me.voice --own-voice
  chorister personalise --out me.voice                          after `chorister enrol`
  chorister convert talk.mp3 talk-as-me.wav --voice me.voice
  chorister personalise recordings/ --out me-live.voice --live
  chorister personalise recordings/ --out me.voice --adapter OUT/adapters/DIGEST.safetensors
  chorister personalise recordings/ --out me.onnx --own-voice --plain

A minute of speech is good, three are better. The first time makes a vault, under a passphrase
that you choose: it holds your consent, your voice's key and what else is yours. The voice file
opens with that vault alone, until the consent ends or you withdraw it
(`chorister consent withdraw`). A plain file opens everywhere: whoever has a copy can speak with
your voice, and nobody can call it back."""
_DEFAULT_STEPS = 120
_DEFAULT_RANK = 16


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister personalise",
        description="Train a personal adapter on your own recordings and export your voice.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings",
        nargs="*",
        type=Path,
        metavar="RECORDINGS",
        help="audio files or folders; those that were enrolled if none are named",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="voice file to write"
    )
    parser.add_argument(
        "--own-voice",
        action="store_true",
        help="say that the voice is your own and that you consent to its use for this: training "
        "a personal adapter and converting speech (with --plain, a plain voice file too); it "
        "expires after a year. Not needed again, nor after `chorister enrol`",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="write a plain ONNX file, which works without the vault and cannot be recalled",
    )
    parser.add_argument(
        "--live", action="store_true", help="make a live voice, for `chorister live`"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="how the file's weights are stored: fp16 has half the size, int8 a third; "
        "`chorister voice variants` measures what that loses (default fp32)",
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="FILE", help="a federation's shared adapter"
    )
    parser.add_argument(
        "--probe",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="recordings of others that the new voice is tried on before it is kept, 4 s of each "
        "(default: speech of six people that Chorister ships); nothing of them is kept",
    )
    parser.add_argument("--base", type=Path, metavar="FILE", help="another base model's weights")
    parser.add_argument(
        "--steps", type=int, default=_DEFAULT_STEPS, metavar="N", help="most training steps"
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=_DEFAULT_RANK,
        metavar="N",
        help=f"width of the personal adapter's bottlenecks, 0 to 64 (default {_DEFAULT_RANK})",
    )
    parser.add_argument(
        "--placement",
        choices=("all", "early", "late", "none"),
        default="all",
        help="in which of the decoder's blocks they are: all, the first half, the second half, or "
        "none: an offset of the speaker's condition alone (default all)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="to train on (default auto: a GPU where torch finds one)",
    )
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop training after this")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the training (default 0)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="Z",
        help="train by DP-SGD with this noise multiplier, for an adapter that is to be given "
        "away: on half of the recordings, the voice's statistics being another third's. It is "
        "booked in this device's budget, which refuses before any training once it is used up",
    )
    add_vault_options(parser, creates=True)
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    if not options.own_voice and not exists(vault_folder(options)):
        raise ConsentRefused(
            "A voice is used with its owner's consent only.",
            "no --own-voice, and no vault with a consent",
            "If the voice is your own, read what --own-voice says in --help and add it.",
        )
    if options.out.suffix == ".onnx" and not options.plain:
        raise UsageError(
            "A sealed voice is no ONNX file that others can open.",
            f"the name {options.out.name}",
            f"Call it {options.out.with_suffix('.voice').name}, or ask for a plain file by "
            "--plain, which cannot be recalled.",
        )
    if options.live and options.precision != "fp32":
        raise UsageError(
            "A live voice is stored in fp32: a step of it takes longer in other precisions.",
            f"--live with --precision {options.precision}",
            "Leave --precision out.",
        )
    return _personalise(options)


def _personalise(options: argparse.Namespace) -> int:
    from chorister.client.adapter_file import read_adapter
    from chorister.client.compute import best_device
    from chorister.client.own_voice import (
        ask_permits,
        enrolled_material,
        give_own_consent,
        load_own_model,
        make_own_voice,
        read_own_recordings,
    )
    from chorister.client.personal_budget import personal_budget
    from chorister.client.personal_privacy import PersonalPrivacy
    from chorister.client.personalise import PersonaliseSettings
    from chorister.shared.privacy.segment_level import segment_figure
    from chorister.shared.randomness import SystemRandomness
    from chorister.shared.settings import SegmentPrivacy
    from chorister.shared.voice.audio import load_recording
    from chorister.shared.voice.speaker import load_speaker_encoder

    if options.out.exists():
        raise UsageError(
            "An existing file is not overwritten.", str(options.out), "Choose another name."
        )
    settings = PersonaliseSettings.parse(
        {
            "rank": options.rank,
            "placement": options.placement,
            "steps": options.steps,
            "max_s": options.max_seconds,
            "seed": options.seed,
        },
        "the command line",
    )
    device = best_device(options.device)
    privacy = None
    if options.noise is not None:
        wanted = SegmentPrivacy.parse({"noise_multiplier": options.noise}, "the command line")
        privacy = PersonalPrivacy(wanted, SystemRandomness())
    adapter = read_adapter(options.adapter) if options.adapter else None
    # What cannot be read is found before a vault is made.
    named = read_own_recordings(options.recordings) if options.recordings else None
    probes = [load_recording(path) for path in options.probe]
    home = open_or_create_from(options)
    if options.own_voice and home.consent is None:
        home = give_own_consent(home, plain=options.plain)
    permits = ask_permits(home, plain=options.plain)
    material = named or enrolled_material(home)
    for error in material.skipped:
        complain(f"skipped: {error}")
    model, base_sha256 = load_own_model(options.base, live=options.live)
    model.to(device)
    with progress(f"Personalising from {material.seconds:.0f} s", options.steps) as step:
        made = make_own_voice(
            model,
            base_sha256,
            adapter,
            material,
            load_speaker_encoder(),
            options.out,
            home=home,
            permits=permits,
            settings=settings,
            probes=probes,
            privacy=privacy,
            precision=options.precision,
            on_step=step,
        )
    event = made.result.event
    figure = None
    if privacy is not None and event is not None:
        figure = segment_figure((event,), privacy.segment.delta_dp)
    booked, privacy_limit = None, math.inf
    if privacy is not None:
        privacy_limit = privacy.segment.epsilon_max
        booked = personal_budget(home, privacy).epsilon("segment")
    if options.json:
        result = made.result
        print_json(
            {
                "voice": str(options.out),
                "sha256": made.sha256,
                "form": "plain" if options.plain else "sealed",
                "vault": str(home.folder),
                "consent_sha256": made.consent_sha256,
                "seconds_of_speech": material.seconds,
                "skipped": len(material.skipped),
                "kept": result.kept,
                "tried_on": result.tried_on,
                "loss_before": result.loss_before,
                "loss_after": result.loss_after,
                "similarity_before": result.similarity_before,
                "similarity_after": result.similarity_after,
                "steps": result.steps,
                "took_s": result.seconds,
                "epsilon_segment": figure and figure.epsilon,
                "epsilon_segment_booked": booked,
            }
        )
    say(made.result.verdict())
    if figure is not None:
        say(
            f"Privacy of the training segments in the personal adapter: {figure.sentence()}. The "
            "voice file also holds the vector, statistics and frames of the enrolment part, a "
            "third of the recordings, which no noise protects. One run without noise leaves no "
            "figure at all."
        )
    if booked is not None:
        say(
            f"Booked in this device's budget: {booked:.4g} of {privacy_limit:g} in all, with what "
            "was trained before (`chorister budget`)."
        )
    if options.plain:
        say("This plain file cannot be recalled: whoever has a copy can speak with your voice.")
    else:
        say(f"Sealed: it opens with the vault {home.folder} alone.")
    use = "live" if options.live else "convert IN.wav OUT.wav"
    say(f"{options.out}: try it with `chorister {use} --voice {options.out}`")
    return 0
