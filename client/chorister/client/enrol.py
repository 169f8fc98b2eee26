"""Enrolment, top to bottom: a challenge, a spoken answer, the checks, and only then the vault.

1 a sentence with random digits is shown, and waits in the vault for minutes
2 the speaker says it, and brings recordings
3 everything is checked; what fails is listed, and nothing is stored
4 recordings and what is made of them go into the vault, the consent last: a crash on the way
  leaves a voice that nothing may use
5 the speaker gets a receipt to read
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soundfile

from chorister.client import consent
from chorister.client.consent_record import ConsentRecord, Purpose, SpokenStatement
from chorister.client.enrolment_checks import EnrolmentPolicy, Examination, examine
from chorister.client.home import PROFILE, RECORDING, STATEMENT, Home
from chorister.client.material import analyse
from chorister.client.prepare import clean_enrolment, divide, enrolment_gain, level_by, segments
from chorister.client.recogniser import Recogniser
from chorister.client.source import keep_source, known_source
from chorister.client.statement import Challenge, make_challenge
from chorister.shared import codec
from chorister.shared.errors import BadAudio, ConsentRefused
from chorister.shared.randomness import Randomness
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.profile import Listener, profile_from
from chorister.shared.voice.speaker import SpeakerEncoder

CHALLENGE = "challenge"
CHALLENGE_TIMES = "challenge-times"
CHALLENGE_REFUSED = "challenge-refused"
_HOUR_S = 3600
GAIN = "gain"
TRAINING = "training"
HELD_OUT = "held_out"
DAY_S = 86_400
_SCALE = 32768.0
_NAMELESS = "(name)"
_RECORDINGS = RECORDING.partition("{")[0]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the speaker is asked to allow.

    Attributes:
        speaker: the name as it is said; it goes nowhere but the vault.
        controller: who may use the voice.
        purposes: what for.
        locale: language of the statement.
        jurisdiction: whose law.
        days: how long it holds, at least 1.
    """

    speaker: str
    controller: str
    purposes: tuple[Purpose, ...]
    locale: str = "en"
    jurisdiction: str = "EU"
    days: int = 365


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A voice whose owner consented.

    Attributes:
        home: with the new consent.
        record: the consent.
        examination: what the checks found.
        segments: how many training segments there are.
        sentence: what was said, the name left out; None where nothing was.
    """

    home: Home
    record: ConsentRecord
    examination: Examination
    segments: int
    sentence: str | None


def ask(home: Home, wanted: Wanted, randomness: Randomness, policy: EnrolmentPolicy) -> Challenge:
    """Return a fresh challenge; it waits in the vault, in place of one that waited before.

    Raises:
        UsageError: an unknown locale or purpose, or a name that cannot be said.
        ConsentRefused: policy allows no further one within the hour; the first refusal of an hour
            is in the ledger.
    """
    challenge = make_challenge(
        randomness,
        locale=wanted.locale,
        speaker=wanted.speaker,
        controller=wanted.controller,
        purposes=wanted.purposes,
        now_s=home.now_s(),
        life_s=policy.challenge_life_s,
    )
    _count_challenge(home, policy.challenges_an_hour)
    home.vault.put(CHALLENGE, challenge.to_bytes(), "challenge")
    return challenge


def waiting_challenge(home: Home) -> Challenge:
    """Return the challenge that waits for its answer.

    Raises:
        ConsentRefused: there is none (it was answered), it has expired, or the clock was set back.
    """
    if not home.vault.has(CHALLENGE):
        raise ConsentRefused(
            "A statement answers a challenge, and each challenge is answered once.",
            "no challenge that waits for an answer",
            "Ask for one with `chorister enrol --challenge`, and say what it shows.",
        )
    challenge = Challenge.from_bytes(home.vault.get(CHALLENGE))
    challenge.check_time(home.now_s())
    return challenge


def enrol(
    home: Home,
    wanted: Wanted,
    statement: Recording | None,
    recordings: Sequence[Recording],
    *,
    encoder: SpeakerEncoder,
    listener: Listener,
    recogniser: Recogniser | None,
    policy: EnrolmentPolicy,
    denoise: bool = False,
    silero: bool | None = None,
) -> Enrolled:
    """Check everything; if all of it passes, store the voice and the consent.

    Args:
        home: of the speaker.
        wanted: what is to be allowed.
        statement: the answer to the waiting challenge; None only where policy asks for none.
        recordings: of the speaker, of any number and length.
        encoder: names voices.
        listener: the base model, which hears what the recordings say.
        recogniser: hears the statement's words; None where there is none for the locale.
        policy: the limits.
        denoise: take steady noise out of what the voice's statistics come from; never out of what
            is trained on, where each segment stands for itself.
        silero: as in `voice_activity.speech_frames`.

    Raises:
        ConsentRefused: no statement where one is required, no challenge for it, one that was for
            other terms, answered, expired or from the future; nothing was stored.
        EnrolmentRefused: a check failed; nothing was stored.
        BadAudio: no recordings.
    """
    try:
        challenge = _challenge_for(home, wanted, statement, policy)
    except ConsentRefused as error:
        _note_refusal(home, error.found)
        raise
    if not recordings:
        raise BadAudio(
            "An enrolment comes with recordings.", "none", "Name audio files, or use --record."
        )
    examination = examine(
        statement, challenge, recordings, encoder, recogniser, policy, silero=silero
    )
    # Names of checks alone: what a finding says may hold a file's name, and the ledger outlives it.
    failed = [check.name for check in examination.summary() if not check.passed]
    if failed:
        _note_refusal(home, f"failed checks: {', '.join(failed)}")
    examination.require()
    spoken = None
    if statement is not None:
        spoken = SpokenStatement(
            sha256=pcm_sha256(statement.samples),
            locale=wanted.locale,
            words_checked=examination.words_checked,
            recogniser=examination.recogniser,
            checks=examination.summary(),
        )
    now_s = home.now_s()
    record = consent.give(
        home.key,
        controller=wanted.controller,
        purposes=wanted.purposes,
        given_s=now_s,
        expires_s=now_s + wanted.days * DAY_S,
        jurisdiction=wanted.jurisdiction,
        statement=spoken,
        replaces=_continued(home, wanted),
    )
    count = _keep_voice(home, statement, recordings, encoder, listener, denoise=denoise)
    # Answered: whoever comes with the same recording again finds no challenge.
    home.vault.delete(CHALLENGE)
    sentence = None if challenge is None else replace(challenge, speaker=_NAMELESS).sentence
    return Enrolled(home.keep_consent(record, "given"), record, examination, count, sentence)


def enrolled_recordings(home: Home) -> tuple[Recording, ...]:
    """Return the recordings that were enrolled, as they were checked, without the statement."""
    names = [name for name in home.vault.names() if name.startswith(_RECORDINGS)]
    return tuple(from_flac(home.vault.get(name), name) for name in names)


def pcm_sha256(samples: FloatArray) -> str:
    """Return the digest of samples as 16-bit PCM at 16 kHz, 64 hexadecimal digits."""
    return hashlib.sha256(_pcm(samples).tobytes()).hexdigest()


def to_flac(recording: Recording) -> bytes:
    """Return a recording as lossless 16-bit FLAC."""
    file = io.BytesIO()
    soundfile.write(file, _pcm(recording.samples), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def from_flac(data: bytes, name: str) -> Recording:
    """Return what `to_flac` wrote."""
    pcm, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    return Recording((pcm / np.float32(_SCALE)).astype(np.float32), name)


def _count_challenge(home: Home, most: int) -> None:
    """Note that a challenge is made, before it is shown: whoever guesses digits needs many."""
    with home.ledger.locked():  # two that ask at once are counted as two
        now_s = home.now_s()
        recent = _within_an_hour(home, CHALLENGE_TIMES, now_s)[-most:]
        if len(recent) < most:
            home.vault.put(CHALLENGE_TIMES, codec.encode([*recent, now_s]), "challenge")
            return
        # Written as they were read, so that those from far ahead are over in an hour.
        home.vault.put(CHALLENGE_TIMES, codec.encode(list(recent)), "challenge")
        noted = _within_an_hour(home, CHALLENGE_REFUSED, now_s)
        home.vault.put(CHALLENGE_REFUSED, codec.encode([noted[0] if noted else now_s]), "challenge")
        if not noted:  # one line an hour, however often somebody tries
            reason = f"{most} challenges within an hour"
            home.ledger.append_locked("refusal", {"action": "enrolment", "reason": reason})
    raise ConsentRefused(
        f"A device shows at most {most} challenges an hour.", f"{len(recent)} of them",
        f"Another can be asked for in {-(-(recent[0] + _HOUR_S - now_s) // 60)} min.",
    )  # fmt: skip


def _within_an_hour(home: Home, name: str, now_s: int) -> list[int]:
    """Return the Unix times in an item that are less than an hour ago, oldest first.

    One from the future counts: a clock that was set back gives no more challenges. One from more
    than an hour ahead is taken for now: a clock that was wrong once closes nothing until then.
    """
    times = codec.decode(home.vault.get(name)) if home.vault.has(name) else []
    near = (at_s if at_s <= now_s + _HOUR_S else now_s for at_s in times)
    return sorted(at_s for at_s in near if at_s > now_s - _HOUR_S)


def _note_refusal(home: Home, reason: str) -> None:
    home.ledger.append("refusal", action="enrolment", reason=reason)


def _challenge_for(
    home: Home, wanted: Wanted, statement: Recording | None, policy: EnrolmentPolicy
) -> Challenge | None:
    if statement is None:
        if policy.statement == "required":
            raise ConsentRefused(
                "Consent is spoken.",
                "no statement",
                "Ask for a sentence with `chorister enrol --challenge`, record it, and name the "
                "file with --statement; or enrol by microphone with --record.",
            )
        return None
    challenge = waiting_challenge(home)
    asked = (challenge.speaker, challenge.controller, challenge.purposes, challenge.locale)
    if asked != (
        wanted.speaker.strip(),
        wanted.controller.strip(),
        tuple(sorted(set(wanted.purposes))),
        wanted.locale,
    ):
        raise ConsentRefused(
            "A statement is for the terms that were shown.",
            "another name, controller, locale or other purposes than the challenge's",
            "Repeat them, or ask for another challenge with the new ones.",
        )
    return challenge


def _continued(home: Home, wanted: Wanted) -> str | None:
    """The consent that this one renews or narrows: its voices may be used under the new one.

    Other terms start afresh: what was made for one controller is not for another.
    """
    former = home.consent
    if former is None or former.subject != home.device.name:
        return None
    same = (former.controller.strip(), former.jurisdiction) == (
        wanted.controller.strip(),
        wanted.jurisdiction,
    )
    return former.sha256 if same and set(wanted.purposes) <= set(former.purposes) else None


def _keep_voice(
    home: Home,
    statement: Recording | None,
    recordings: Sequence[Recording],
    encoder: SpeakerEncoder,
    listener: Listener,
    *,
    denoise: bool,
) -> int:
    """Store recordings and what is made of them; return how many training segments there are."""
    stored = {RECORDING.format(at): to_flac(one) for at, one in enumerate(recordings)}
    # From what is stored, not from what was read: so all of it can be made again.
    kept = [from_flac(data, name) for name, data in stored.items()]
    parts = divide(kept)
    # Of the enrolment part: a gain of all recordings would tie protected segments to each other.
    gain = enrolment_gain(parts.enrolment)
    own = [level_by(one, gain) for one in parts.enrolment]
    if denoise:
        own = [clean_enrolment(one, trim=False) for one in own]
    profile = profile_from(own, encoder, listener)
    training = analyse(segments(parts.training, gain=gain))
    held_out = analyse(segments(parts.held_out, gain=gain))
    before = [name for name in home.vault.names() if name.startswith(_RECORDINGS)]
    for name, data in stored.items():
        home.vault.put(name, data, "recording")
    for name in set(before) - stored.keys():
        home.vault.delete(name)
    if statement is not None:
        home.vault.put(STATEMENT, to_flac(statement), "recording")
    home.vault.put(GAIN, np.array([gain], dtype="<f8").tobytes(), "features")
    home.vault.put(PROFILE, profile.to_bytes(), "features")
    keep_source(home, known_source(profile, parts.enrolment, gain))
    home.vault.put(TRAINING, training.to_bytes(), "features")
    home.vault.put(HELD_OUT, held_out.to_bytes(), "features")
    return len(training)


def _pcm(samples: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    scaled = np.round(samples.astype(np.float64) * _SCALE)
    return np.clip(scaled, -_SCALE, _SCALE - 1).astype(np.int16)
