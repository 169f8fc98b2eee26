"""What a withdrawal can still read of a vault, whatever was damaged in it or beside it.

Whoever can alter a file must not be able to keep a voice alive. What cannot be read is named, for
the receipt, and stands in nobody's way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from chorister.client.consent_receipt import FILE as CONSENT_RECEIPT
from chorister.client.consent_record import ConsentRecord
from chorister.client.home import CONSENT, IDENTITY, LEDGER_FILE, NO_FEDERATION
from chorister.client.vault import Item, Vault
from chorister.shared import codec
from chorister.shared.errors import ChoristerError, ConsentRefused
from chorister.shared.privacy.ledger import parse
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import SigningKey

UNKNOWN = "unknown"
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left to read.

    Attributes:
        vault: open.
        items: that it lists.
        key: the device's identity; None where it cannot be read, and nothing can be signed.
        device: its pseudonym, 'unknown' where nothing tells it.
        consent: that is to end; None where it cannot be read.
        consent_sha256: its digest, 'unknown' where nothing tells it.
        ledger: of the device, unchecked.
        now_s: Unix time.
        unread: what could not be read, in words; grows.
    """

    vault: Vault
    items: tuple[Item, ...]
    key: SigningKey | None
    device: str
    consent: ConsentRecord | None
    consent_sha256: str
    ledger: LedgerFile
    now_s: Callable[[], int]
    unread: list[str]

    def attempt(self, what: str, act: Callable[[], _Read]) -> _Read | None:
        """Return what an act gives; None, and a line in `unread`, where it finds damage.

        Args:
            what: was to be read or written, in words.
            act: does it.
        """
        return attempt(what, act, self.unread)

    def contents(self, kind: str, read: Callable[[Any], _Read], else_say: str) -> list[_Read]:
        """Return what the items of a kind hold, those left out that do not open.

        Args:
            kind: of the items.
            read: makes something of what was decoded.
            else_say: what follows from one that does not open, for the receipt.
        """
        found = []
        for item in self.items:
            if item.kind == kind:
                content = self.attempt(
                    f"'{item.name}' ({else_say})",
                    partial(_content, self.vault, item.name, read),
                )
                if content is not None:
                    found.append(content)
        return found


def read_remains(vault: Vault, clock: Callable[[], int]) -> Remains:
    """Return what is left of a vault whose consent is to end.

    Args:
        vault: opened with `even_if_ended`.
        clock: Unix time.

    Raises:
        ConsentRefused: nothing says that a consent was ever given here.
    """
    unread: list[str] = []
    items = _items(vault, unread)
    names = {item.name for item in items}
    key = attempt("the device's key", lambda: SigningKey(vault.get(IDENTITY)), unread)
    owner, given = _from_ledger(vault)
    consent = None
    if CONSENT in names or given is not None:
        read = partial(_content, vault, CONSENT, ConsentRecord.from_plain)
        consent = attempt("the consent", read, unread)
    consent = consent or _from_receipt(vault, key, given)
    # Where something is damaged, a consent may have been among it: then it ends as well.
    if consent is None and CONSENT not in names and given is None and not unread:
        raise ConsentRefused(
            "A consent that was given can be withdrawn.",
            "none in this vault",
            "There is nothing to withdraw; delete the vault's folder if you want it gone.",
        )
    device = owner or UNKNOWN if key is None else key.verify_key().name
    if key is None and consent is not None and device == UNKNOWN:
        device = consent.subject
    return Remains(
        vault, items, key, device, consent,
        given or UNKNOWN if consent is None else consent.sha256,
        LedgerFile(vault.folder / LEDGER_FILE, owner=device, federation=NO_FEDERATION,
                   clock=clock, check=False),
        clock, unread,
    )  # fmt: skip


def attempt(what: str, act: Callable[[], _Read], unread: list[str]) -> _Read | None:
    """Return what an act gives; None, and a line in `unread`, where it finds damage."""
    try:
        return act()
    except Exception as error:  # whoever did the damage chose which error it is
        found = error.found if isinstance(error, ChoristerError) else str(error) or repr(error)
        unread.append(f"{what} could not be read: {found}")
        return None


def _content(vault: Vault, name: str, read: Callable[[Any], _Read]) -> _Read:
    return read(codec.decode(vault.get(name)))


def _items(vault: Vault, unread: list[str]) -> tuple[Item, ...]:
    """Return what the vault holds; a damaged index is made anew from the items that open."""
    found = attempt("the vault's index", vault.items, unread)
    if found is not None:
        return found
    made = attempt("the items, to list them anew,", lambda: vault.repair().sound, unread)
    return made or ()


def _from_ledger(vault: Vault) -> tuple[str | None, str | None]:
    """Return owner and last consent as the ledger says them, whether its chain holds or not."""
    owner = given = None
    try:
        for index, line in enumerate(read_lines(vault.folder / LEDGER_FILE)):
            entry = parse(line.rstrip(b"\n"), index)
            if entry.kind == "genesis":
                owner = str(entry.fields.get("owner"))
            elif entry.kind == "consent":
                given = str(entry.fields.get("consent"))
    except (ChoristerError, OSError, ValueError, TypeError):
        pass  # as far as it could be read; that it is damaged is noted where it is used
    return owner, given


def _from_receipt(vault: Vault, key: SigningKey | None, given: str | None) -> ConsentRecord | None:
    """Return the consent from the receipt that its speaker got, if it is that one."""
    try:
        plain = json.loads((vault.folder / f"{CONSENT_RECEIPT}.json").read_bytes())
        record = ConsentRecord.from_plain(plain)
        if key is not None:
            record.check(key.verify_key())
    except (
        ChoristerError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError,
    ):  # fmt: skip
        return None
    return None if given is not None and record.sha256 != given else record
