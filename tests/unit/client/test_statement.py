"""The sentence of consent: what it says in each language, and how long its digits are good."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from chorister.client.enrolment_checks import digits_match, fixed_words
from chorister.client.statement import (
    DIGITS,
    Challenge,
    find_template,
    make_challenge,
    templates,
)
from chorister.shared.errors import BadMessage, ConsentRefused, UsageError
from chorister.shared.randomness import Randomness, SystemRandomness

NOON = 1_000_000


class Counting(Randomness):
    """Bytes 0, 1, 2, ... for a test that knows what is drawn."""

    private = False
    statement = "counting"

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, n: int) -> bytes:
        self._next += n
        return bytes(i % 256 for i in range(self._next - n, self._next))

    def fork(self, label: str) -> Counting:
        return self


def challenge(locale: str = "en", **changes: object) -> Challenge:
    terms: dict[str, object] = {
        "locale": locale,
        "speaker": "Anna Miller",
        "controller": "The Choir",
        "purposes": ["training", "conversion"],
        "now_s": NOON,
    }
    return make_challenge(SystemRandomness(), **{**terms, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("locale", sorted(templates()))
def test_each_language_names_speaker_controller_purposes_and_digits(locale: str) -> None:
    asked = challenge(locale)
    template = find_template(locale)
    for said in (
        "Anna Miller",
        "The Choir",
        template.purposes["training"],
        template.purposes["conversion"],
        *asked.digit_words,
    ):
        assert said in asked.sentence
    assert template.purposes["speech"] not in asked.sentence


@pytest.mark.parametrize("locale", sorted(templates()))
def test_every_key_word_is_in_the_sentence_of_its_purpose(locale: str) -> None:
    asked = challenge(locale, purposes=["training", "conversion", "speech", "plain_export"])
    spoken = asked.sentence.lower()
    assert [word for word in asked.key_words if word not in spoken] == []
    assert len(set(find_template(locale).digits)) == 10


def test_names_and_digits_are_not_told_to_a_recogniser() -> None:
    asked = challenge(speaker="Seven Miller")
    words = fixed_words(asked)
    assert not {"seven", "miller", "choir", *asked.digit_words} & set(words)
    assert words[:2] == ("i", "allow")
    assert words[-1] == "are"


def test_digits_are_drawn_evenly_and_neighbours_differ() -> None:
    drawn: Counter[int] = Counter()
    for _ in range(300):
        digits = challenge().digits
        assert len(digits) == DIGITS
        assert all(one != other for one, other in itertools.pairwise(digits))
        drawn.update(digits)
    # 1800 draws: 180 of each on average, with a standard deviation under 14.
    assert min(drawn.values()) > 100
    assert max(drawn.values()) < 260


def test_bytes_that_would_favour_small_digits_are_left_out() -> None:
    source = Counting()
    source.bytes(250)
    digits = make_challenge(
        source, locale="en", speaker="A", controller="B", purposes=["speech"], now_s=NOON
    ).digits
    # 250 to 255 are skipped; counting starts again at 0.
    assert digits == (0, 1, 2, 3, 4, 5)


def test_a_challenge_is_good_for_minutes_and_never_before_it_was_made() -> None:
    asked = challenge(life_s=60)
    asked.check_time(NOON)
    asked.check_time(NOON + 59)
    with pytest.raises(ConsentRefused, match="expired 0 s ago"):
        asked.check_time(NOON + 60)
    with pytest.raises(ConsentRefused, match="set back"):
        asked.check_time(NOON - 1)


def test_a_challenge_survives_the_vault() -> None:
    asked = challenge("zh")
    assert Challenge.from_bytes(asked.to_bytes()) == asked
    with pytest.raises(BadMessage):
        Challenge.from_bytes(asked.to_bytes()[:-1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"locale": "xx"}, "Choose --locale among de, en, zh"),
        ({"purposes": []}, "none"),
        ({"purposes": ["resale"]}, "resale"),
        ({"speaker": " "}, "Give --name"),
        ({"speaker": "A\nB"}, "printable"),
        ({"controller": "x" * 81}, "at most 80"),
    ],
)
def test_a_challenge_that_cannot_be_said_is_not_made(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        challenge(**changes)


def test_braces_in_a_name_are_said_as_they_are() -> None:
    assert "{digits}" in challenge(speaker="{digits}").sentence


@pytest.mark.parametrize(
    ("heard", "match"),
    [
        ((4, 7, 1, 9, 0, 3), True),
        ((8, 4, 7, 1, 9, 0, 3), True),
        ((8, 4, 7, 1, 9, 0, 2, 3), False),
        ((4, 7, 1, 9, 0), True),
        ((4, 7, 1, 9, 0, 5), True),
        ((4, 7, 2, 1, 9, 0, 5), True),
        ((4, 7, 1, 9, 6, 5), False),
        ((7, 4, 1, 9, 0, 3), True),
        ((7, 4, 9, 1, 0, 3), False),
        ((4, 7, 1, 9), False),
        ((3, 0, 9, 1, 7, 4), False),
        ((), False),
        # Whoever says every digit again and again would hit any six.
        (tuple(range(10)) * 6, False),
    ],
)
def test_digits_match_in_their_order_but_for_one_misheard_and_one_extra(
    heard: tuple[int, ...], match: bool
) -> None:
    assert digits_match((4, 7, 1, 9, 0, 3), heard) == match
