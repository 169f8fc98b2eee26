"""What an enrolment has to pass, each check with its figure, its reason and what to do about it.

Everything is examined before anything is stored, and everything that fails is listed at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from chorister.client.consent_record import CheckFigure
from chorister.client.quality import Quality, measure_quality
from chorister.client.recogniser import Heard, Recogniser
from chorister.client.same_speaker import (
    CONSISTENCY_LIMIT,
    DIGITS_LIMIT,
    RECORDING_LIMIT,
    STATEMENT_LIMIT,
    VoicePrint,
    consistency,
    likeness,
    speech_from,
    stray_likenesses,
    take_print,
)
from chorister.client.statement import DIGITS, Challenge, find_template
from chorister.shared.errors import ConsentRefused
from chorister.shared.settings import Positive, Settings, Share
from chorister.shared.types import Recording
from chorister.shared.voice.speaker import SpeakerEncoder

STATEMENT = "statement"
EVERYTHING = "all recordings"
# One digit misheard and one heard too many do not end an honest attempt. Other digits than those
# that were shown pass so less than once in a thousand times (consent benchmark --digits).
MOST_MISHEARD = 1
MOST_EXTRA = 1
# Of each purpose's own words: a purpose that was left out is not heard then, and of the synthetic
# statements whose other key words were heard none fell short (docs/enrolment.md).
PURPOSE_HEARD = 0.5
_SHORTEST_PRINT_S = 0.3


class EnrolmentPolicy(Settings):
    """What the owner of a device asks of an enrolment.

    Attributes:
        statement: whether the consent has to be spoken.
        words: whether digits and key words have to be heard by a recogniser; with 'if possible' a
            statement in a language without one passes, and the record says so.
        challenge_life_s: how long a challenge can be answered.
        challenges_an_hour: how many are shown, answered or not.
        least_speech_s: speech in all recordings together.
        least_statement_s: speech in the statement.
        least_snr_db: of every recording.
        most_clipped: share of a recording's samples.
        least_bandwidth_hz: telephone speech ends below 4000 Hz.
        least_speech_share: of every recording.
        least_key_words: share of the key words that are heard.
    """

    statement: Literal["required", "optional"] = "required"
    words: Literal["required", "if possible"] = "required"
    challenge_life_s: Annotated[int, Field(ge=60, le=3600)] = 300
    challenges_an_hour: Annotated[int, Field(ge=1, le=1000)] = 20
    least_speech_s: Annotated[float, Field(ge=10.0, le=3600.0)] = 20.0
    least_statement_s: Annotated[float, Field(ge=3.0, le=60.0)] = 5.0
    least_snr_db: Positive = 15.0
    most_clipped: Share = 0.002
    least_bandwidth_hz: Annotated[float, Field(gt=0.0, le=7500.0)] = 5000.0
    least_speech_share: Share = 0.3
    least_key_words: Share = 0.7


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one thing.

    Attributes:
        subject: 'statement', a recording's name, or 'all recordings'.
        figure: what was measured, and the limit.
        reason: what it means, in words; '' where it passed.
        advice: how to fix it; '' where it passed.
    """

    subject: str
    figure: CheckFigure
    reason: str = ""
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Whether this check was passed."""
        return self.figure.passed

    def line(self) -> str:
        """Return the finding as a line for a person."""
        text = f"{self.subject}: {self.figure.line()}"
        return text if self.passed else f"{text}: {self.reason}. {self.advice}"


class EnrolmentRefused(ConsentRefused):
    """An enrolment failed at least one check; nothing was stored.

    Args:
        findings: all of them.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        failed = [one for one in findings if not one.passed]
        super().__init__(
            "An enrolment passes every check.",
            f"{len(failed)} of {len(findings)} failed; " + "; ".join(one.line() for one in failed),
            "Nothing was stored.",
        )


@dataclass(frozen=True, slots=True)
class Examination:
    """What the checks found.

    Attributes:
        findings: in the order of the checks.
        words_checked: whether a recogniser heard the statement.
        recogniser: its name, '' without one.
    """

    findings: tuple[Finding, ...]
    words_checked: bool
    recogniser: str

    def require(self) -> None:
        """Return if every check was passed.

        Raises:
            EnrolmentRefused: one was not.
        """
        if not all(finding.passed for finding in self.findings):
            raise EnrolmentRefused(self.findings)

    def summary(self) -> tuple[CheckFigure, ...]:
        """Return the figures for the record: of each check the one nearest to failing."""
        worst: dict[str, CheckFigure] = {}
        for finding in self.findings:
            where = STATEMENT if finding.subject == STATEMENT else "recordings"
            name = f"{where}: {finding.figure.name}"
            known = worst.get(name)
            if known is None or _room(finding.figure) < _room(known):
                one = finding.figure
                worst[name] = CheckFigure(name, one.figure, one.limit, one.unit, one.passed)
        return tuple(worst.values())


def examine(
    statement: Recording | None,
    challenge: Challenge | None,
    recordings: Sequence[Recording],
    encoder: SpeakerEncoder,
    recogniser: Recogniser | None,
    policy: EnrolmentPolicy,
    *,
    silero: bool | None = None,
) -> Examination:
    """Examine a statement and the recordings that come with it.

    Args:
        statement: as it was recorded; None where policy asks for none.
        challenge: that it answers; None if and only if there is no statement.
        recordings: as they were recorded.
        encoder: names voices.
        recogniser: hears words; None where the machine has none for the locale.
        policy: the limits.
        silero: as in `voice_activity.speech_frames`.
    """
    findings: list[Finding] = []
    heard: Heard | None = None
    if statement is not None and challenge is not None:
        quality = measure_quality(statement, silero=silero)
        findings += [
            enough_speech(STATEMENT, quality.speech_s, policy.least_statement_s),
            *quality_findings(STATEMENT, quality, policy),
        ]
        if recogniser is not None:
            template = find_template(challenge.locale)
            heard = recogniser.hear(statement.samples, fixed_words(challenge), template.digits)
        findings += _of_words(challenge, heard, policy)
    begin_s = None if heard is None else heard.digits_from_s
    total_s = 0.0
    for recording in recordings:
        quality = measure_quality(recording, silero=silero)
        total_s += quality.speech_s
        findings += quality_findings(recording.name, quality, policy)
    findings.append(enough_speech(EVERYTHING, total_s, policy.least_speech_s))
    findings += _of_speakers(statement, begin_s, recordings, encoder)
    name = recogniser.name if recogniser is not None and heard is not None else ""
    return Examination(tuple(findings), heard is not None, name)


def fixed_words(challenge: Challenge) -> tuple[str, ...]:
    """Return the words of the sentence in their order, without names and digits."""
    template = find_template(challenge.locale)
    said = (" " + template.last + " ").join(template.purposes[p] for p in challenge.purposes)
    sentence = template.sentence.format(speaker="", controller="", purposes=said, digits="")
    return tuple(re.findall(r"[^\W\d_]+(?:'[a-z]+)?", sentence.lower()))


def digits_match(expected: Sequence[int], heard: Sequence[int]) -> bool:
    """Return whether the digits were heard in their order, but for one misheard and one extra."""
    return _fits(tuple(expected), tuple(heard), MOST_MISHEARD, MOST_EXTRA)


def _fits(expected: tuple[int, ...], heard: tuple[int, ...], missing: int, extra: int) -> bool:
    if not expected:
        return len(heard) <= extra
    if heard and expected[0] == heard[0] and _fits(expected[1:], heard[1:], missing, extra):
        return True
    if missing and any(_fits(expected[1:], heard[n:], missing - 1, extra) for n in (0, 1)):
        return True
    return bool(heard and extra and _fits(expected, heard[1:], missing, extra - 1))


def quality_findings(subject: str, quality: Quality, policy: EnrolmentPolicy) -> list[Finding]:
    """Return the checks that one recording has to pass by its figures alone.

    Args:
        subject: what to call the recording.
        quality: its figures.
        policy: the limits.
    """
    return [
        _at_least(
            subject, "signal to noise", quality.snr_db, policy.least_snr_db, "dB",
            "the noise is nearly as loud as the speech",
            "Record in a quiet room, closer to the microphone",
        ),
        _finding(
            subject, "clipped", quality.clipped, policy.most_clipped, "",
            quality.clipped <= policy.most_clipped,
            "the recording is clipped: its loud parts are cut off",
            "Lower the input level and record it again",
        ),
        _at_least(
            subject, "bandwidth", quality.bandwidth_hz, policy.least_bandwidth_hz, "Hz",
            "nothing above telephone quality (8 kHz sampling) is in it",
            "Record with a microphone at 16 kHz or more; a headset on Bluetooth may be limited",
        ),
        _at_least(
            subject, "speech share", quality.speech_share, policy.least_speech_share, "",
            "hardly any of it is speech",
            "Leave out pauses, music and noise; record speech alone",
        ),
    ]  # fmt: skip


def _of_words(challenge: Challenge, heard: Heard | None, policy: EnrolmentPolicy) -> list[Finding]:
    if heard is None:
        if policy.words == "if possible":
            return []
        return [
            _finding(
                STATEMENT, "words checked", 0.0, 1.0, "", False,
                f"no recogniser on this machine knows the locale '{challenge.locale}'",
                "Name one with --recogniser, or let policy accept unchecked words",
            )
        ]  # fmt: skip
    expected = challenge.key_words
    missing = [word for word in expected if word not in heard.text]
    share = 1.0 - len(missing) / len(expected)
    found = _in_order(challenge.digits, heard.digits)
    purposes = _purposes_heard(challenge, heard)
    unheard = [words for words, share in purposes.items() if share < PURPOSE_HEARD]
    return [
        _at_least(
            STATEMENT, "key words", share, policy.least_key_words, "",
            f"not heard: {', '.join(missing)}",
            "Read the whole sentence as it is shown, calmly and close to the microphone",
        ),
        _at_least(
            STATEMENT, "purposes", min(purposes.values()), PURPOSE_HEARD, "",
            f"not heard: {'; '.join(unheard)}",
            "Say each purpose as it is shown; what is not said is not allowed",
        ),
        _finding(
            STATEMENT, "digits", float(found), float(DIGITS - MOST_MISHEARD), "",
            digits_match(challenge.digits, heard.digits),
            "the digits that were shown were not heard, in their order and alone",
            "Say the digits one by one after the sentence; an older recording does not pass",
        ),
    ]  # fmt: skip


def _purposes_heard(challenge: Challenge, heard: Heard) -> dict[str, float]:
    """Of each purpose, as it is said, the share of its own key words that was heard."""
    template = find_template(challenge.locale)
    return {
        template.purposes[purpose]: sum(
            word in heard.text for word in template.purpose_words[purpose]
        )
        / len(template.purpose_words[purpose])
        for purpose in challenge.purposes
    }


def _in_order(expected: Sequence[int], heard: Sequence[int]) -> int:
    """How many of the expected digits were heard in their order."""
    best = [0] * (len(heard) + 1)
    for digit in expected:
        row = [0]
        for at, other in enumerate(heard):
            row.append(best[at] + 1 if digit == other else max(best[at + 1], row[at]))
        best = row
    return best[-1]


def _of_speakers(
    statement: Recording | None,
    digits_from_s: float | None,
    recordings: Sequence[Recording],
    encoder: SpeakerEncoder,
) -> list[Finding]:
    named = [r for r in recordings if r.duration_s >= _SHORTEST_PRINT_S]
    prints = [take_print(recording, encoder) for recording in named]
    if not prints:
        return []
    findings = []
    spoken: VoicePrint | None = None
    if statement is not None and statement.duration_s >= _SHORTEST_PRINT_S:
        spoken = take_print(statement, encoder)
        alike = likeness(spoken, prints)
        findings.append(
            _at_least(
                STATEMENT, "same speaker", alike, STATEMENT_LIMIT, "",
                "another voice than in the recordings",
                "The speaker of the recordings has to say the statement, into the same microphone",
            )
        )  # fmt: skip
        if digits_from_s is not None:
            digits = speech_from(statement, digits_from_s)
            # Six digits take seconds: where no speech is found, nothing says whose they are.
            alike = (
                likeness(take_print(digits, encoder), prints)
                if digits.duration_s >= _SHORTEST_PRINT_S
                else 0.0
            )
            findings.append(
                _at_least(
                    STATEMENT, "digits by the same speaker", alike, DIGITS_LIMIT, "",
                    "the digits were said by another voice than the recordings'",
                    "Say sentence and digits in one go, by yourself",
                )
            )  # fmt: skip
        for recording, alike in zip(named, stray_likenesses(spoken, prints), strict=True):
            findings.append(
                _at_least(
                    recording.name, "same speaker", alike, RECORDING_LIMIT, "",
                    "another voice than in the statement and the other recordings",
                    "Leave this file out, or record it again",
                )
            )  # fmt: skip
    parts = [(r.name, [one]) for r, one in zip(named, prints, strict=True)]
    if spoken is not None:
        parts.append((STATEMENT, [spoken]))
    for name, some in [*parts, (EVERYTHING, prints)]:
        alike = consistency(some)
        findings.append(
            _at_least(
                name, "one speaker throughout", alike, CONSISTENCY_LIMIT, "",
                "two voices in turn",
                "Use speech of one person alone; everybody enrols on a device of their own",
            )
        )  # fmt: skip
    return findings


def enough_speech(subject: str, seconds: float, least: float) -> Finding:
    """Return the check of how much speech there is, in seconds.

    Args:
        subject: what to call it.
        seconds: of speech.
        least: how much is asked for.
    """
    return _at_least(
        subject, "speech", seconds, least, "s",
        "too little speech", "Record more: a minute is good, three are better",
    )  # fmt: skip


def _at_least(
    subject: str, name: str, figure: float, limit: float, unit: str, reason: str, advice: str
) -> Finding:
    return _finding(subject, name, figure, limit, unit, figure >= limit, reason, advice)


def _finding(
    subject: str, name: str, figure: float, limit: float, unit: str, passed: bool,
    reason: str, advice: str,
) -> Finding:  # fmt: skip
    # Rounded: a record is read by people, and says nothing of the voice by its last digits.
    kept = CheckFigure(name, round(float(figure), 4), float(limit), unit, bool(passed))
    return Finding(subject, kept) if passed else Finding(subject, kept, reason, advice)


def _room(one: CheckFigure) -> float:
    """How far a figure is from its limit, as a share of it; negative where it failed."""
    room = abs(one.figure - one.limit) / max(abs(one.limit), np.finfo(float).tiny)
    return room if one.passed else -room
