"""`chorister enrol`: a spoken consent and recordings, checked, into the vault."""

from __future__ import annotations

import argparse
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chorister.client.consent_record import PURPOSES
from chorister.client.home import add_vault_options, open_or_create_from
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    complain,
    print_json,
    say,
)
from chorister.shared.errors import UsageError
from chorister.shared.randomness import SystemRandomness

# Torch and onnx are loaded where they are used: --challenge answers at once.
if TYPE_CHECKING:
    from chorister.client.enrol import Enrolled, Wanted
    from chorister.client.enrolment_checks import EnrolmentPolicy, Finding
    from chorister.client.home import Home
    from chorister.client.quality import Quality
    from chorister.shared.types import Recording

SUMMARY = "give your spoken consent, and enrol your voice under it"
_EXAMPLES = """examples:
  chorister enrol --challenge --name "Anna Miller" --controller "The Choir"
        shows a sentence with six digits; record it within five minutes, then
  chorister enrol --name "Anna Miller" --controller "The Choir" --statement consent.wav recordings/
  chorister enrol --name "Anna Miller" --controller "The Choir" --record
        does both by microphone, prompt by prompt
  chorister enrol ... --locale de --recogniser vosk:models/vosk-de

A minute of speech is good, three are better, in files of a sentence or two. Everything is checked
before anything is stored; what fails is listed with how to fix it. Recordings, consent and keys lie
encrypted in the vault. `chorister consent withdraw` ends it all, at any time."""
_OWN = "the speaker, on this device alone"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    apply_output_options(options)
    if options.devices:
        from chorister.client.record_audio import list_microphones

        for line in list_microphones():
            say(line)
        return 0
    from chorister.client.enrol import Wanted

    if options.name is None:
        raise UsageError("An enrolment says whose voice it is.", "no --name", "Give --name NAME.")
    wanted = Wanted(
        speaker=options.name,
        controller=options.controller,
        purposes=tuple(part.strip() for part in options.purpose.split(",") if part.strip()),
        locale=options.locale,
        jurisdiction=options.jurisdiction,
        days=options.days,
    )
    policy = _policy(options)
    if options.challenge:
        return _challenge(options, wanted, policy)
    return _enrol(options, wanted, policy)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister enrol",
        description="Say that your voice may be used, for what and by whom; enrol it under that.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings", nargs="*", type=Path, metavar="RECORDINGS", help="audio files or folders"
    )
    parser.add_argument("--name", metavar="NAME", help="your name, as you say it; never leaves")
    parser.add_argument(
        "--controller", default=_OWN, metavar="WHO", help=f"who may use the voice (default: {_OWN})"
    )
    parser.add_argument(
        "--purpose",
        default="training,conversion",
        metavar="LIST",
        help=f"some of {', '.join(PURPOSES)} (default: training,conversion)",
    )
    parser.add_argument("--locale", default="en", metavar="L", help="en, de or zh (default en)")
    parser.add_argument(
        "--jurisdiction", default="EU", metavar="WHERE", help="whose law (default EU)"
    )
    parser.add_argument(
        "--days", type=_days, default=365, metavar="N", help="how long it holds (default 365)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--challenge", action="store_true", help="show the sentence to say, and stop")
    how.add_argument("--statement", type=Path, metavar="FILE", help="the sentence, spoken")
    how.add_argument("--record", action="store_true", help="by microphone, prompt by prompt")
    parser.add_argument("--device", metavar="D", help="which microphone (number or name)")
    parser.add_argument("--devices", action="store_true", help="list the microphones, and stop")
    parser.add_argument(
        "--recogniser",
        metavar="R",
        help="who hears the words: sphinx (English, the default), whisper:FOLDER or vosk:FOLDER",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="limits of the checks (TOML)")
    parser.add_argument(
        "--denoise", action="store_true", help="take steady noise out of the voice's statistics"
    )
    parser.add_argument("--base", type=Path, metavar="FILE", help="another base model's weights")
    parser.add_argument(
        "--receipt", type=Path, metavar="DIR", help="where the receipt goes (default: the vault)"
    )
    add_vault_options(parser, creates=True)
    add_output_options(parser)
    return parser


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3660:
        raise argparse.ArgumentTypeError("1 to 3660 days")
    return days


def _policy(options: argparse.Namespace) -> EnrolmentPolicy:
    from chorister.client.enrolment_checks import EnrolmentPolicy

    return EnrolmentPolicy() if options.policy is None else EnrolmentPolicy.load(options.policy)


def _challenge(options: argparse.Namespace, wanted: Wanted, policy: EnrolmentPolicy) -> int:
    from chorister.client.enrol import ask

    challenge = ask(open_or_create_from(options), wanted, SystemRandomness(), policy)
    if options.json:
        print_json(
            {
                "sentence": challenge.sentence,
                "digits": list(challenge.digits),
                "locale": challenge.locale,
                "expires_s": challenge.expires_s,
            }
        )
    say("Read this aloud and record it, calmly, in a quiet room:\n")
    say(f"    {challenge.sentence}\n")
    say(
        f"It can be answered once, within {policy.challenge_life_s // 60} minutes: "
        "chorister enrol ... --statement FILE RECORDINGS"
    )
    return 0


def _enrol(options: argparse.Namespace, wanted: Wanted, policy: EnrolmentPolicy) -> int:
    from chorister.client.audio_files import audio_files
    from chorister.client.consent_receipt import write_receipt
    from chorister.client.enrol import ask, enrol
    from chorister.client.enrolment_checks import EnrolmentRefused
    from chorister.client.recogniser import find_recogniser
    from chorister.client.record_audio import reading_prompts
    from chorister.shared.voice.audio import load_recording
    from chorister.shared.voice.base import load_base
    from chorister.shared.voice.speaker import load_speaker_encoder

    recogniser = find_recogniser(wanted.locale, options.recogniser)
    statement = None
    if options.record:
        home = open_or_create_from(options)
        recordings = _record(options, reading_prompts(wanted.locale))
        # Last, because its digits are good for minutes; until then nothing was stored.
        challenge = ask(home, wanted, SystemRandomness(), policy)
        (statement,) = _record(options, (challenge.sentence,))
    else:
        # What cannot be read is found before a vault is made.
        statement = load_recording(options.statement) if options.statement else None
        recordings = tuple(load_recording(path) for path in audio_files(options.recordings))
        home = open_or_create_from(options)
    try:
        done = enrol(
            home,
            wanted,
            statement,
            recordings,
            encoder=load_speaker_encoder(),
            listener=load_base(options.base),
            recogniser=recogniser,
            policy=policy,
            denoise=options.denoise,
        )
    except EnrolmentRefused as refused:
        for finding in refused.findings:
            if finding.passed:
                say(f"passed  {finding.line()}")
        for finding in refused.findings:
            if not finding.passed:
                complain(f"failed  {finding.line()}")
        raise
    page = write_receipt(options.receipt or home.folder, done.record, done.sentence)
    _tell(options, done, done.home, page, len(recordings))
    return 0


def _tell(
    options: argparse.Namespace, done: Enrolled, home: Home, page: Path, recordings: int
) -> None:
    checks = done.examination.findings
    if options.json:
        print_json(
            {
                "consent_sha256": done.record.sha256,
                "purposes": list(done.record.purposes),
                "expires_s": done.record.expires_s,
                "vault": str(home.folder),
                "receipt": str(page),
                "recordings": recordings,
                "segments": done.segments,
                "words_checked": done.examination.words_checked,
                "recogniser": done.examination.recogniser,
                "checks": [_plain(finding) for finding in checks],
            }
        )
    for one in done.examination.summary():
        say(f"passed  {one.line()}")
    if not done.examination.words_checked:
        complain("the words of the statement were not checked; the record says so")
    say(f"Enrolled: {recordings} recordings, {done.segments} segments, in {home.folder}")
    say(f"Receipt: {page}. `chorister consent withdraw` ends it all, at any time.")


def _plain(finding: Finding) -> dict[str, object]:
    return {"subject": finding.subject, **finding.figure.to_plain()}


def _record(options: argparse.Namespace, prompts: Sequence[str]) -> tuple[Recording, ...]:
    from chorister.client.record_audio import Microphone, record_prompts

    return record_prompts(prompts, lambda: Microphone(options.device), Terminal()).takes


class Terminal:
    """The person at the terminal: Enter starts a take, Enter ends it, r takes it again."""

    def ready(self, number: int, count: int, prompt: str) -> None:
        """Show a prompt, and return when Enter was pressed."""
        say(f"\n{number} of {count}:\n\n    {prompt}\n")
        _line("Press Enter, read it aloud, and press Enter when you have finished. ")

    def level(self, dbfs: float) -> None:
        """Show how loud it is now."""
        from chorister.client.record_audio import meter

        sys.stderr.write(f"\r{meter(dbfs):<60}")
        sys.stderr.flush()

    def stopped(self) -> bool:
        """Return whether Enter was pressed."""
        pressed = bool(select.select([sys.stdin], [], [], 0.0)[0])
        if pressed:
            sys.stdin.readline()
        return pressed

    def keep(self, quality: Quality) -> bool:
        """Show the figures of a take, and return whether it is kept."""
        sys.stderr.write("\n")
        say(
            f"{quality.seconds:.1f} s, {quality.speech_s:.1f} s of speech, "
            f"{quality.snr_db:.0f} dB over the noise, {quality.clipped:.2%} clipped"
        )
        return _line("Enter keeps it, r takes it again: ").strip().lower() != "r"


def _line(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise UsageError(
            "Recording asks a person at a terminal.", "the end of its input",
            "Run it on a terminal, or name recordings instead of --record.",
        )  # fmt: skip
    return line
