"""The sentence that a speaker says to consent, and the random digits that make it of this moment.

A recording that was made before does not hold the digits, and one that was made for another
challenge holds others. A challenge lives for minutes and is answered once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from chorister.client.consent_record import PURPOSES, Purpose
from chorister.shared import codec
from chorister.shared.errors import BadMessage, ConsentRefused, UsageError
from chorister.shared.randomness import Randomness

TEMPLATES = Path(__file__).with_name("statements.toml")
DIGITS = 6
LIFE_S = 300
LONGEST_NAME = 80
_LARGEST_FAIR_BYTE = 250


@dataclass(frozen=True, slots=True)
class Template:
    """The sentence of one locale.

    Attributes:
        locale: e.g. 'en'.
        language: what its speakers call it.
        sentence: with {speaker}, {controller}, {purposes} and {digits}.
        joined: between two purposes.
        last: before the last purpose.
        digits: ten words.
        key_words: of the fixed text, lower case.
        purposes: how each purpose is said.
        purpose_words: key words of each purpose.
    """

    locale: str
    language: str
    sentence: str
    joined: str
    last: str
    digits: tuple[str, ...]
    key_words: tuple[str, ...]
    purposes: Mapping[Purpose, str]
    purpose_words: Mapping[Purpose, tuple[str, ...]]


@cache
def templates() -> Mapping[str, Template]:
    """Return the templates by locale."""
    return {
        locale: Template(
            locale,
            plain["language"],
            plain["sentence"],
            plain["joined"],
            plain["last"],
            tuple(plain["digits"]),
            tuple(plain["key_words"]),
            plain["purposes"],
            {purpose: tuple(words) for purpose, words in plain["purpose_words"].items()},
        )
        for locale, plain in tomllib.loads(TEMPLATES.read_text(encoding="utf-8")).items()
    }


def find_template(locale: str) -> Template:
    """Return the template of a locale.

    Raises:
        UsageError: there is none.
    """
    found = templates().get(locale)
    if found is None:
        raise UsageError(
            "The statement is there in some languages.",
            repr(locale)[:20],
            f"Choose --locale among {', '.join(sorted(templates()))}.",
        )
    return found


@dataclass(frozen=True, slots=True)
class Challenge:
    """What one speaker is asked to say now.

    Attributes:
        locale: of the sentence.
        speaker: the speaker's name; it stays in the vault and in the spoken statement.
        controller: who is allowed.
        purposes: sorted.
        digits: six, from a cryptographic generator.
        made_s: Unix time.
        expires_s: Unix time; not answered from then on.
    """

    locale: str
    speaker: str
    controller: str
    purposes: tuple[Purpose, ...]
    digits: tuple[int, ...]
    made_s: int
    expires_s: int

    def __repr__(self) -> str:
        return f"Challenge({self.locale}, expires_s={self.expires_s})"

    @property
    def sentence(self) -> str:
        """What the speaker reads aloud."""
        template = find_template(self.locale)
        said = [template.purposes[purpose] for purpose in self.purposes]
        purposes = (
            template.joined.join(said[:-1]) + template.last + said[-1] if said[1:] else said[0]
        )
        return template.sentence.format(
            speaker=self.speaker,
            controller=self.controller,
            purposes=purposes,
            digits=template.joined.join(self.digit_words),
        )

    @property
    def digit_words(self) -> tuple[str, ...]:
        """The digits as they are said."""
        words = find_template(self.locale).digits
        return tuple(words[digit] for digit in self.digits)

    @property
    def key_words(self) -> tuple[str, ...]:
        """What has to be heard of the sentence, apart from the digits."""
        template = find_template(self.locale)
        return (
            *template.key_words,
            *(word for purpose in self.purposes for word in template.purpose_words[purpose]),
        )

    def check_time(self, now_s: int) -> None:
        """Return if the challenge can be answered now.

        Raises:
            ConsentRefused: it has expired, or the clock was set back.
        """
        if now_s >= self.expires_s:
            raise ConsentRefused(
                "A statement answers a challenge before it expires.",
                f"one that expired {now_s - self.expires_s} s ago",
                "Ask for another with `chorister enrol --challenge`, and record it at once.",
            )
        if now_s < self.made_s:
            raise ConsentRefused(
                "A challenge is from the past.",
                f"one of {self.made_s}, where the clock says {now_s} (Unix time): it was set back",
                "Put the clock right, and ask for another challenge.",
            )

    def to_bytes(self) -> bytes:
        """Return the challenge for the vault."""
        return codec.encode(
            {
                "locale": self.locale,
                "speaker": self.speaker,
                "controller": self.controller,
                "purposes": list(self.purposes),
                "digits": list(self.digits),
                "made_s": self.made_s,
                "expires_s": self.expires_s,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Challenge:
        """Return what `to_bytes` wrote.

        Raises:
            BadMessage: something else.
        """
        kinds = {
            "locale": str, "speaker": str, "controller": str, "purposes": list, "digits": list,
            "made_s": int, "expires_s": int,
        }  # fmt: skip
        plain: dict[str, Any] = codec.fields(codec.decode(data), kinds, "A challenge")
        if not set(plain["purposes"]) <= set(PURPOSES) or not set(plain["digits"]) <= set(
            range(10)
        ):
            raise BadMessage(
                "A challenge names purposes and digits.", "something else", "Make a new one."
            )
        return cls(
            **{**plain, "purposes": tuple(plain["purposes"]), "digits": tuple(plain["digits"])}
        )


def make_challenge(
    randomness: Randomness,
    *,
    locale: str,
    speaker: str,
    controller: str,
    purposes: Iterable[Purpose],
    now_s: int,
    life_s: int = LIFE_S,
) -> Challenge:
    """Return a fresh challenge.

    Args:
        randomness: of the digits.
        locale: of the sentence.
        speaker: the name that the speaker says.
        controller: who is allowed.
        purposes: what for.
        now_s: Unix time.
        life_s: how long it can be answered.

    Raises:
        UsageError: an unknown locale or purpose, none, or a name that cannot be said.
    """
    find_template(locale)
    wanted = tuple(sorted(set(purposes)))
    if not wanted or not set(wanted) <= set(PURPOSES):
        raise UsageError(
            f"Consent names purposes among {', '.join(PURPOSES)}.",
            ", ".join(wanted) or "none",
            "Name at least one of these.",
        )
    for what, name in (("speaker", speaker), ("controller", controller)):
        # Braces and line breaks would change the sentence, not fill it.
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise UsageError(
                f"The {what} is named by at most {LONGEST_NAME} printable characters.",
                repr(name)[: LONGEST_NAME + 2],
                f"Give --{'name' if what == 'speaker' else what} as it is said.",
            )
    digits = _draw_digits(randomness)
    return Challenge(
        locale, speaker.strip(), controller.strip(), wanted, digits, now_s, now_s + life_s
    )


def _draw_digits(randomness: Randomness) -> tuple[int, ...]:
    """Six digits, no two neighbours alike: twins run together when they are spoken fast."""
    digits: list[int] = []
    while len(digits) < DIGITS:
        for byte in randomness.bytes(2 * DIGITS):
            # 250 is a multiple of ten: what is above would favour small digits.
            if byte < _LARGEST_FAIR_BYTE and [byte % 10] != digits[-1:]:
                digits.append(byte % 10)
    return tuple(digits[:DIGITS])
