"""The receipt: all of the consent in words, and nothing that a page could smuggle."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chorister.client.consent import CheckFigure, ConsentRecord, Purpose, SpokenStatement, give
from chorister.client.consent_receipt import to_html, write_receipt
from chorister.shared.signing import SigningKey

KEY = SigningKey(bytes(32))
FIGURE = CheckFigure("statement: same speaker", 0.9712, 0.933, "", True)


def record(
    *, checked: bool = True, spoken: bool = True, controller: str = "The Choir",
    purposes: tuple[Purpose, ...] = ("training", "plain_export"),
) -> ConsentRecord:  # fmt: skip
    name = "pocketsphinx en-us" if checked else ""
    statement = SpokenStatement("0" * 64, "de", checked, name, (FIGURE,))
    return give(
        KEY, controller=controller, purposes=purposes, given_s=1_795_200_000,
        expires_s=1_826_736_000, jurisdiction="EU", statement=statement if spoken else None,
    )  # fmt: skip


class Elements(HTMLParser):
    """Names of all elements, and whatever they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [name for name, _ in attrs if name in ("src", "href", "style", "onclick")]


def test_the_page_says_who_what_until_when_and_how_to_end_it() -> None:
    page = to_html(record(), "Ich, (name), erlaube The Choir ...")
    for said in (
        "The Choir",
        "which nobody can call back",
        "20 November 2026, 18:40 UTC",
        "20 November 2027, 18:40 UTC",
        "chorister consent withdraw",
        "Ich, (name), erlaube",
        "statement: same speaker",
        "0.9712",
        "heard by pocketsphinx en-us",
        record().sha256,
    ):
        assert said in page


def test_what_was_not_checked_or_not_said_is_said() -> None:
    assert "The words were not checked" in to_html(record(checked=False), "Ich ...")
    assert "without a spoken statement" in to_html(record(spoken=False), None)


@pytest.mark.parametrize("nasty", ["<script>alert(1)</script>", "A & B", '"><img src=x>'])
def test_a_name_is_text_and_never_markup(nasty: str) -> None:
    elements = Elements()
    elements.feed(to_html(record(controller=nasty), nasty))
    assert not elements.names & {"script", "img"}
    assert nasty not in to_html(record(controller=nasty), nasty)


def test_the_page_needs_nothing_but_itself() -> None:
    page = to_html(record(), "Ich ...")
    elements = Elements()
    elements.feed(page)
    assert elements.links == []
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_signed_record_lies_beside_the_page_for_its_owner_alone(tmp_path: Path) -> None:
    page = write_receipt(tmp_path, record(), "Ich ...")
    signed = page.with_suffix(".json")
    ConsentRecord.from_plain(json.loads(signed.read_text())).check(KEY.verify_key())
    assert {path.stat().st_mode & 0o777 for path in (page, signed)} == {0o600}
