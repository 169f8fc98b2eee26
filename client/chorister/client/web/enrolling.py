"""Enrolment at the page: terms, takes, the sentence of the moment, signature."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from chorister.client.consent_receipt import PURPOSE_TEXTS, rights, write_receipt
from chorister.client.consent_record import PURPOSES, Purpose
from chorister.client.enrol import Wanted, ask, enrol
from chorister.client.enrolment_checks import (
    EVERYTHING,
    STATEMENT,
    EnrolmentRefused,
    Finding,
    enough_speech,
    quality_findings,
)
from chorister.client.quality import measure_quality
from chorister.client.recogniser import find_recogniser
from chorister.client.record_audio import LONGEST_TAKE_S, reading_prompts
from chorister.client.statement import make_challenge, templates
from chorister.client.web.jobs import Job, Step
from chorister.client.web.sounds import peaks_of, read_take
from chorister.client.web.studio import Draft, Studio, Take
from chorister.shared.errors import BadAudio, ConsentRefused, UsageError
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Settings
from chorister.shared.types import Recording

Text = Annotated[str, Field(max_length=200)]


class Terms(Settings):
    """What the speaker is asked to allow, as the page's form says it."""

    name: Text
    controller: Text
    purposes: tuple[Purpose, ...]
    locale: Text = "en"
    jurisdiction: Text = "EU"
    days: Annotated[int, Field(ge=1, le=3660)] = 365


class Answer(Settings):
    """Which challenge a page shows: another window may have asked for a newer one."""

    challenge: Text


class Nothing(Settings):
    """No fields."""


def choices() -> dict[str, Any]:
    """Return what a person may choose among."""
    return {
        "purposes": [{"name": one, "text": PURPOSE_TEXTS[one]} for one in PURPOSES],
        "locales": [{"name": one.locale, "language": one.language} for one in templates().values()],
    }


def begin(studio: Studio, terms: Terms) -> dict[str, Any]:
    """Begin an enrolment under terms, or go on with its takes under changed ones.

    Raises:
        UsageError: terms that no challenge could be made for.
        ConsentRefused: the vault is locked.
    """
    studio.home  # noqa: B018 (it must be open)
    wanted = Wanted(
        terms.name, terms.controller, terms.purposes, terms.locale, terms.jurisdiction, terms.days
    )
    if not terms.jurisdiction.strip():
        raise UsageError("A consent names whose law holds.", "nothing", "Name it, e.g. EU.")
    # Refused now, and not after twelve prompts were read.
    place = studio.place
    if (
        place.policy.words == "required"
        and place.recogniser is None
        and find_recogniser(wanted.locale) is None
        and wanted.locale in templates()
    ):
        raise UsageError(
            "The words of a statement are heard by a recogniser on this machine.",
            f"none for the locale '{wanted.locale}'",
            "Choose English, or start the page with --recogniser whisper:FOLDER or vosk:FOLDER.",
        )
    make_challenge(
        SystemRandomness(),
        locale=wanted.locale,
        speaker=wanted.speaker,
        controller=wanted.controller,
        purposes=wanted.purposes,
        now_s=0,
    )
    kept = studio.draft
    takes = kept.takes if kept is not None and kept.wanted.locale == wanted.locale else {}
    studio.draft = Draft(wanted, takes)
    return {}


def discard(studio: Studio, nothing: Nothing) -> dict[str, Any]:
    """Drop an enrolment that is under way; nothing of it was stored."""
    studio.draft = None
    return {}


def take(studio: Studio, number: int, data: bytes) -> dict[str, Any]:
    """Keep the take of one prompt, in place of an earlier one.

    Args:
        number: of the prompt, from 0.
        data: of an audio file.

    Raises:
        BadAudio: it cannot be used.
        UsageError: there is no such prompt.
    """
    draft = _draft(studio)
    if not 0 <= number < len(reading_prompts(draft.wanted.locale)):
        raise UsageError("A take is of a prompt.", f"number {number}", "Reload the page.")
    draft.takes[number] = _measured(studio, read_take(data, f"take {number + 1:02d}"))
    return {}


def challenge(studio: Studio, nothing: Nothing) -> dict[str, Any]:
    """Show the sentence with the digits of this moment."""
    draft = _draft(studio)
    draft.challenge = ask(studio.home, draft.wanted, SystemRandomness(), studio.place.policy)
    draft.statement = None
    return {}


def statement(studio: Studio, shown: str, data: bytes) -> dict[str, Any]:
    """Keep the spoken statement.

    Args:
        shown: the challenge that the page shows.
        data: of an audio file.
    """
    draft = _answering(studio, shown)
    draft.statement = _measured(studio, read_take(data, STATEMENT))
    return {}


def sign(studio: Studio, answer: Answer) -> Job:
    """Begin the checks; if all are passed the consent is signed and the voice stored.

    Raises:
        ConsentRefused: another challenge, no statement, or the vault is locked.
    """
    draft = _answering(studio, answer.challenge)
    if draft.statement is None:
        raise ConsentRefused("Consent is spoken.", "no statement yet", "Record it first.")
    home = studio.home
    recordings = [draft.takes[number].recording for number in sorted(draft.takes)]
    said, wanted, place = draft.statement.recording, draft.wanted, studio.place

    def work(step: Step) -> dict[str, Any]:
        from chorister.shared.voice.base import load_base
        from chorister.shared.voice.speaker import load_speaker_encoder

        recogniser = find_recogniser(wanted.locale, place.recogniser)
        encoder, listener = load_speaker_encoder(), load_base(place.base)
        step(1)  # the last moment at which it can be cancelled: from here on all or nothing
        try:
            done = enrol(
                home, wanted, said, recordings,
                encoder=encoder, listener=listener, recogniser=recogniser, policy=place.policy,
            )  # fmt: skip
        except EnrolmentRefused as refused:
            return {"enrolled": False, "checks": [_plain(one) for one in refused.findings]}
        write_receipt(done.home.folder, done.record, done.sentence)
        with studio.lock:
            if studio.draft is draft:
                studio.draft = None
        return {
            "enrolled": True,
            "checks": [_plain(one) for one in done.examination.findings],
            "summary": [one.to_plain() for one in done.examination.summary()],
            "segments": done.segments,
            "words_checked": done.examination.words_checked,
            "consent_sha256": done.record.sha256,
        }

    return studio.worker.add("enrol", "Checking and signing", 2, work)


def spoken(studio: Studio, which: str) -> Recording:
    """Return a take to listen to: 'statement' or a prompt's number.

    Raises:
        UsageError: there is none.
    """
    draft = _draft(studio)
    found = draft.statement if which == STATEMENT else draft.takes.get(_number(which))
    if found is None:
        raise UsageError("A take is heard once it was recorded.", "none", "Record it first.")
    return found.recording


def view(studio: Studio) -> dict[str, Any] | None:
    """Return the enrolment under way as plain JSON, None if there is none."""
    draft = studio.draft
    if draft is None:
        return None
    wanted, policy = draft.wanted, studio.place.policy
    takes = {number: one.figures for number, one in sorted(draft.takes.items())}
    total_s = sum(one["speech_s"] for one in takes.values())
    shown = draft.challenge
    return {
        "name": wanted.speaker,
        "controller": wanted.controller,
        "purposes": list(wanted.purposes),
        "locale": wanted.locale,
        "jurisdiction": wanted.jurisdiction,
        "days": wanted.days,
        "prompts": list(reading_prompts(wanted.locale)),
        "takes": {str(number): one for number, one in takes.items()},
        "speech": _plain(enough_speech(EVERYTHING, total_s, policy.least_speech_s)),
        "rights": list(rights("chorister consent withdraw, or this page")),
        "purpose_texts": [PURPOSE_TEXTS[one] for one in wanted.purposes],
        "challenge": None
        if shown is None
        else {
            "id": _name_of(draft),
            "sentence": shown.sentence,
            "digits": list(shown.digits),
            "left_s": max(shown.expires_s - studio.home.now_s(), 0),
        },
        "statement": None if draft.statement is None else draft.statement.figures,
    }


def _measured(studio: Studio, recording: Recording) -> Take:
    if recording.duration_s > LONGEST_TAKE_S:
        raise BadAudio(
            f"A take is at most {LONGEST_TAKE_S:.0f} s long.",
            f"{recording.duration_s:.0f} s",
            "Stop when you have read it.",
        )
    quality, policy = measure_quality(recording), studio.place.policy
    findings = quality_findings(recording.name, quality, policy)
    if recording.name == STATEMENT:
        findings.insert(0, enough_speech(STATEMENT, quality.speech_s, policy.least_statement_s))
    figures = {
        "seconds": round(quality.seconds, 2),
        "speech_s": round(quality.speech_s, 2),
        "peaks": list(peaks_of(np.abs(recording.samples).astype(np.float64))),
        "checks": [_plain(one) for one in findings],
    }
    return Take(recording, figures)


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        **finding.figure.to_plain(),
        "reason": finding.reason,
        "advice": finding.advice,
    }


def _draft(studio: Studio) -> Draft:
    studio.home  # noqa: B018 (it must be open)
    if studio.draft is None:
        raise UsageError(
            "A take belongs to an enrolment.", "none under way", "Say what you allow first."
        )
    return studio.draft


def _answering(studio: Studio, shown: str) -> Draft:
    draft = _draft(studio)
    if draft.challenge is None or shown != _name_of(draft):
        raise ConsentRefused(
            "A statement answers the digits that were shown last.",
            "another page asked for newer ones",
            "Reload the page, and read what it shows.",
        )
    return draft


def _name_of(draft: Draft) -> str:
    shown = draft.challenge
    if shown is None:
        return ""
    return f"{shown.made_s}-" + "".join(str(digit) for digit in shown.digits)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
