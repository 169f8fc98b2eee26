"""The person at the terminal, as keys on a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from chorister.client.enrol_cli import Terminal
from chorister.client.quality import Quality
from chorister.shared.errors import UsageError

QUALITY = Quality(seconds=4.0, speech_s=3.5, snr_db=30.0, clipped=0.0, bandwidth_hz=8000.0)
Keys = Callable[[str], None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """Types on a terminal that is a pipe; an empty text is the end of all typing."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as terminal, os.fdopen(writing, "w") as keyboard:
        monkeypatch.setattr(sys, "stdin", terminal)

        def type_in(text: str) -> None:
            if text:
                keyboard.write(text)
                keyboard.flush()
            else:
                keyboard.close()

        yield type_in


def test_a_take_runs_until_enter_is_pressed(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    person = Terminal()
    keys("\n")
    person.ready(1, 12, "Fresh bread and sharp cheese.")
    assert "1 of 12" in capsys.readouterr().out
    person.level(-20.0)
    assert "####" in capsys.readouterr().err
    assert not person.stopped()
    keys("\n")
    assert person.stopped()
    assert not person.stopped()


@pytest.mark.parametrize(("typed", "kept"), [("\n", True), ("r\n", False), (" R \n", False)])
def test_r_takes_it_again(keys: Keys, typed: str, kept: bool) -> None:
    keys(typed)
    assert Terminal().keep(QUALITY) == kept


def test_nobody_at_the_terminal_ends_the_session(keys: Keys) -> None:
    keys("")
    with pytest.raises(UsageError, match="a person at a terminal"):
        Terminal().ready(1, 12, "Fresh bread and sharp cheese.")
