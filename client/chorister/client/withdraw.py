"""The end of a consent, in an order that a crash at any step leaves refusable and finishable.

    1 the signed withdrawal is on the disk      from here on every use is refused
    2 the ledger says so, and notices wait for servers
    3 voice files are deleted where they were written
    4 the receipt is signed and written         the device's key is needed for it
    5 the vault's key is destroyed, then its items

Whoever runs it again after a crash finishes it. A ledger or a journal that was altered stops none
of this: the receipt says that it could not be read. Ledger, budget journals and receipt stay: they
outlive the voice and hold none of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from chorister.client import consent, outbox, receipt
from chorister.client.home import Home
from chorister.client.participation import bounds, contributions
from chorister.client.sealed import Exported, exported, is_sealed, read_head
from chorister.client.vault import MOVED_FILE, WITHDRAWN_FILE
from chorister.client.vault_move import MOVES
from chorister.client.voice_card import FORMAT, LIVE_FORMAT, read_card
from chorister.shared import codec
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import BadMessage, BadWeights, ChoristerError, ConsentRefused
from chorister.shared.files import write_atomically
from chorister.shared.signing import Certificate

CERTIFICATE_KIND = "certificate"
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a withdrawal did.

    Attributes:
        withdrawal: signed.
        receipt: the file, with its readable form beside it (`.html`).
        items: how many items of the vault were destroyed.
        files: path and what became of it, for each voice file that was written.
        notices: files that wait for servers.
        rounds: how many rounds the speaker took part in, as far as its ledgers can be read.
        unread: what could not be read or written of ledgers and journals, in words.
    """

    withdrawal: Withdrawal
    receipt: Path
    items: int
    files: tuple[tuple[str, str], ...]
    notices: tuple[Path, ...]
    rounds: int
    unread: tuple[str, ...]


def withdraw(home: Home) -> Withdrawn:
    """End the consent, delete what was made under it, and leave a signed receipt.

    Args:
        home: of the speaker, opened with `even_if_ended` and without `check_ledger`.

    Raises:
        ConsentRefused: there is no consent to withdraw.
        OSError: a file could not be written or deleted; what was done stays done.
    """
    if home.consent is None:
        raise ConsentRefused(
            "A consent that was given can be withdrawn.",
            "none in this vault",
            "There is nothing to withdraw; delete the vault's folder if you want it gone.",
        )
    unread: list[str] = []
    withdrawal = _begin(home, unread)
    notices = _notices(home, withdrawal)
    files = tuple((made.path, _delete_file(made, home)) for made in exported(home))
    items = home.vault.items()
    rounds = _readable("the ledgers", lambda: contributions(home.folder), unread) or ()
    bounded = _readable("the budgets' journals", lambda: bounds(home.folder), unread) or ()
    signed = _readable("the ledger's end", lambda: home.ledger.checkpoint(home.key), unread)
    written = receipt.write(
        home.folder,
        home.key,
        receipt.Facts(
            consent=home.consent,
            withdrawal=withdrawal,
            items=Counter(item.kind for item in items),
            files=files,
            rounds=rounds,
            bounds=bounded,
            federations=tuple(sorted(federation for federation, _ in notices)),
            ledger=signed,
            unread=tuple(unread),
            moved=any((home.folder / name).exists() for name in (MOVES, MOVED_FILE)),
        ),
    )
    home.vault.destroy()
    return Withdrawn(
        withdrawal,
        written,
        len(items),
        files,
        tuple(path for _, path in notices),
        len(rounds),
        tuple(unread),
    )


def _readable(what: str, act: Callable[[], _Read], unread: list[str]) -> _Read | None:
    """Return what ledgers or journals give; None, and a line in `unread`, where they are damaged.

    Whoever can alter a file beside the vault must not be able to keep the voice in it alive.
    """
    try:
        return act()
    except (ChoristerError, OSError, KeyError, TypeError, ValueError) as error:
        found = error.found if isinstance(error, ChoristerError) else str(error)
        unread.append(f"{what} could not be read: {found}")
        return None


def _begin(home: Home, unread: list[str]) -> Withdrawal:
    """Put the withdrawal on the disk and into the ledger; the first one stays the one."""
    path = home.folder / WITHDRAWN_FILE
    if path.exists():
        found = _read(path)
        if found is not None:
            return found
    record = home.consent
    if record is None:
        raise ConsentRefused("A consent can be withdrawn.", "none", "There is nothing to withdraw.")
    withdrawal = consent.withdraw(record, home.key, now_s=home.now_s())
    plain = withdrawal.to_plain()
    signature = withdrawal.signature.hex()
    # Refused first, noted afterwards: a ledger that cannot be written must not keep a voice alive.
    write_atomically(path, json.dumps(plain | {"signature": signature}, indent=1).encode())
    _readable(
        "the ledger, to note the withdrawal,",
        lambda: home.ledger.append(
            "withdrawal",
            consent=withdrawal.consent_sha256,
            at_s=withdrawal.at_s,
            signature=signature,
        ),
        unread,
    )
    return withdrawal


def _read(path: Path) -> Withdrawal | None:
    """Return the withdrawal that an earlier attempt left, None if the file holds none."""
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        return Withdrawal.from_plain(plain | {"signature": bytes.fromhex(plain["signature"])})
    except (ValueError, KeyError, TypeError, AttributeError, BadMessage):
        return None


def _notices(home: Home, withdrawal: Withdrawal) -> list[tuple[str, Path]]:
    found = []
    for item in home.vault.items():
        if item.kind == CERTIFICATE_KIND:
            certificate = Certificate.from_plain(codec.decode(home.vault.get(item.name)))
            notice = WithdrawalNotice(certificate, withdrawal)
            found.append((certificate.federation, outbox.queue(home.folder, notice)))
    return found


def _delete_file(made: Exported, home: Home) -> str:
    """Delete a voice file where it was written, if it is still that file; say what became of it."""
    path = Path(made.path)
    form = "plain: copies of it cannot be recalled" if made.plain else "sealed: its key is gone"
    if not path.is_file():
        return f"not there any more ({form})"
    if not _is_the_one(path, made, home):
        return f"another file lies there now, and was left ({form})"
    path.unlink()
    return f"deleted ({form})"


def _is_the_one(path: Path, made: Exported, home: Home) -> bool:
    if made.plain and not made.sha256:
        # The export was not finished, or not noted: an older file may lie there still.
        return _speaks_for(path, home.device.name)
    if made.plain:
        return made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return is_sealed(path) and read_head(path).voice == made.voice


def _speaks_for(path: Path, target: str) -> bool:
    """Whether a file is an intact plain voice, live or not, of the speaker of that pseudonym."""
    from chorister.client.voice import open_session  # onnxruntime, which few withdrawals need

    data = path.read_bytes()
    try:
        metadata = open_session(data, path.name, threads=1).get_modelmeta().custom_metadata_map
        kind = LIVE_FORMAT if metadata.get("format") == LIVE_FORMAT else FORMAT
        return read_card(metadata, data, path.name, kind).target == target
    except BadWeights:
        return False
