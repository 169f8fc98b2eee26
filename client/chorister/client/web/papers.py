"""What the page shows of consent, budget and ledger, and what may be done to a consent."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from chorister.client.budget_cli import Seen, budgets_of, look, together_of
from chorister.client.consent_acts import narrow_to, renew_for
from chorister.client.consent_receipt import FILE as CONSENT_RECEIPT
from chorister.client.consent_receipt import PURPOSE_TEXTS, facts, rights
from chorister.client.consent_record import Purpose
from chorister.client.home import LEDGER_FILE
from chorister.client.receipt import FILE as WITHDRAWAL_RECEIPT
from chorister.client.sealed import exported
from chorister.client.vault import WITHDRAWN_FILE, destroy, read_marker
from chorister.client.web.studio import Studio
from chorister.client.withdraw import withdraw_vault
from chorister.shared.errors import ChoristerError, UsageError
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.settings import Settings

WORD = "withdraw"
RECEIPTS = {"consent": CONSENT_RECEIPT, "withdrawal": WITHDRAWAL_RECEIPT}
_MOST_ENTRIES = 500
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_DIGEST_SHOWN = 16


class Fewer(Settings):
    """Which purposes stay allowed."""

    purposes: tuple[Purpose, ...]


class Longer(Settings):
    """How many days from now the consent holds."""

    days: Annotated[int, Field(ge=1, le=3660)] = 365


class End(Settings):
    """The word that says that a withdrawal is meant, and what opens the vault if it is locked."""

    word: Annotated[str, Field(max_length=20)]
    passphrase: Annotated[str, Field(max_length=1000)] = ""


def consent(studio: Studio) -> dict[str, Any] | None:
    """Return the consent as plain JSON, None before one was given."""
    home = studio.home
    record = home.consent
    if record is None:
        return None
    now_s = home.now_s()
    return {
        "sha256": record.sha256,
        "valid": record.given_s <= now_s < record.expires_s,
        "purposes": [{"name": one, "text": PURPOSE_TEXTS[one]} for one in record.purposes],
        "controller": record.controller,
        "ends": _day(record.expires_s),
        "facts": [list(pair) for pair in facts(record)],
        "rights": list(rights(record.withdrawal)),
        "checks": []
        if record.statement is None
        else [one.to_plain() for one in record.statement.checks],
        "words_checked": record.statement is not None and record.statement.words_checked,
        "files": [
            {"path": made.path, "plain": made.plain, "there": Path(made.path).is_file()}
            for made in exported(home)
        ],
        "items": len(home.vault.items()),
    }


def narrow(studio: Studio, fewer: Fewer) -> dict[str, Any]:
    """Allow fewer purposes from now on."""
    narrow_to(studio.home, fewer.purposes)
    return {}


def renew(studio: Studio, longer: Longer) -> dict[str, Any]:
    """Let the consent end later."""
    renew_for(studio.home, longer.days)
    return {}


def withdraw(studio: Studio, end: End) -> dict[str, Any]:
    """End the consent and destroy the voice.

    Raises:
        UsageError: the word is not there: nothing was done.
        ChoristerError: as `withdraw_vault`.
    """
    if end.word.strip().lower() != WORD:
        raise UsageError(
            "A withdrawal cannot be taken back, so it is asked for by a word.",
            "another word, or none",
            f"Type '{WORD}'. Nothing was done.",
        )
    state = studio.state()
    if state == "withdrawn":
        destroy(studio.place.folder)  # what an interrupted withdrawal left
        return {"unread": [], "files": [], "items": 0, "rounds": 0}
    vault = studio.vault_to_withdraw(end.passphrase)
    # A voice file that is being written would be listed too late to be deleted.
    studio.worker.cancel_all()
    studio.worker.wait()
    done = withdraw_vault(vault)
    studio.close()
    return {
        "items": done.items,
        "files": [{"path": path, "outcome": outcome} for path, outcome in done.files],
        "notices": [str(path) for path in done.notices],
        "rounds": done.rounds,
        "unread": list(done.unread),
    }


def withdrawn(studio: Studio) -> dict[str, Any] | None:
    """Return what is known of a withdrawal that is over, None if there was none."""
    marker = read_marker(studio.place.folder, WITHDRAWN_FILE)
    if marker is None:
        return None
    at_s = marker.get("at_s")
    return {"at": _day(at_s) if isinstance(at_s, int) else "an unknown time"}


def budget(studio: Studio) -> dict[str, Any]:
    """Return the budgets of this voice as plain JSON: each account with its figures."""
    folder = studio.home.folder
    paths = [path for path in budgets_of(folder) if path.is_file()]
    seen = [look(path) for path in paths]
    return {
        "budgets": [_budget(path, folder, one) for path, one in zip(paths, seen, strict=True)],
        "together": {name: _finite(value) for name, value in together_of(seen).items()}
        if len(seen) > 1
        else None,
    }


def _budget(path: Path, folder: Path, seen: Seen) -> dict[str, Any]:
    unfinished, finished = seen.facts.book.outcomes()
    return {
        "where": "on this device" if path.parent == folder else path.parent.name,
        "rows": [
            {name: _finite(value) for name, value in asdict(row).items()} for row in seen.rows
        ],
        "problems": seen.problems,
        "finished": finished,
        "unfinished": unfinished,
    }


def ledger(studio: Studio) -> dict[str, Any]:
    """Return the ledger's newest entries, newest first, and whether its chain holds.

    It is read while the vault is locked or gone as well: it holds no voice and no name.
    """
    path = studio.place.folder / LEDGER_FILE
    if not path.is_file():
        return {"entries": [], "count": 0, "broken": None}
    entries: list[dict[str, Any]] = []
    broken = None
    try:
        verify(
            read_lines(path),
            on_entry=lambda entry: entries.append(
                {
                    "index": entry.index,
                    "time": _day(entry.time_s),
                    "kind": entry.kind,
                    "fields": [[name, _short(value)] for name, value in entry.fields.items()],
                }
            ),
        )
    except ChoristerError as error:
        broken = error.found
    newest = list(islice(reversed(entries), _MOST_ENTRIES))
    return {"entries": newest, "count": len(entries), "broken": broken}


def receipts(studio: Studio) -> list[str]:
    """Return which receipts there are to read."""
    return [name for name, file in RECEIPTS.items() if _receipt(studio, file, ".html").is_file()]


def receipt_page(studio: Studio, name: str) -> tuple[str, str]:
    """Return a receipt's page, and the policy that lets it use its own stylesheet and no more.

    Raises:
        UsageError: there is no such receipt.
    """
    page = _read(studio, name, ".html")
    digests = [
        base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        for style in _STYLE.findall(page)
    ]
    styles = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'"
    return page, f"{policy}; frame-ancestors 'none'; sandbox allow-modals"


def receipt_json(studio: Studio, name: str) -> str:
    """Return a receipt's signed form.

    Raises:
        UsageError: there is no such receipt.
    """
    return _read(studio, name, ".json")


def _read(studio: Studio, name: str, suffix: str) -> str:
    path = _receipt(studio, RECEIPTS[name], suffix) if name in RECEIPTS else None
    if path is None or not path.is_file():
        raise UsageError(
            "There is a receipt of what was given or withdrawn.", "none", "Reload the page."
        )
    return path.read_text(encoding="utf-8")


def _receipt(studio: Studio, file: str, suffix: str) -> Path:
    return studio.place.folder / f"{file}{suffix}"


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    is_digest = len(text) >= 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:_DIGEST_SHOWN]}…" if is_digest else text


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not isfinite(value) else value


def _day(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%d %b %Y, %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"  # somebody wrote another number into the file
