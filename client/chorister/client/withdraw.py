"""The end of a consent, in an order that a crash at any step leaves refusable and finishable.

    1 the signed withdrawal is on the disk      from here on every use is refused
    2 the ledger says so, and notices wait for servers
    3 voice files are deleted where they were written
    4 the receipt is signed and written         the device's key is needed for it
    5 the vault's key is destroyed, then its items

Whoever runs it again after a crash finishes it. Nothing that was damaged stops any of this, neither
an item, the index, a ledger nor a journal: the receipt says what could not be read, and is unsigned
only where the device's own key is among that. Ledger, budget journals and receipt stay: they
outlive the voice and hold none of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from chorister.client import outbox, receipt
from chorister.client.home import CONSENT, IDENTITY, Home
from chorister.client.participation import bounds, contributions
from chorister.client.remains import Remains, read_remains
from chorister.client.sealed import VOICE_KIND, Exported, exported_from, is_sealed, read_head
from chorister.client.vault import MOVED_FILE, WITHDRAWN_FILE, Vault
from chorister.client.vault_move import MOVES
from chorister.client.voice_card import FORMAT, LIVE_FORMAT, read_card
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import BadWeights, ChoristerError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.signing import Certificate

CERTIFICATE_KIND = "certificate"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a withdrawal did.

    Attributes:
        withdrawal: signed, unless the device's key could not be read.
        receipt: the file, with its readable form beside it (`.html`).
        items: how many items of the vault were destroyed.
        files: path and what became of it, for each voice file that was written.
        notices: files that wait for servers.
        rounds: how many rounds the speaker took part in, as far as its ledgers can be read.
        unread: what could not be read or written, in words.
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
        home: of the speaker.

    Raises:
        ConsentRefused, OSError: as `withdraw_vault`.
    """
    return withdraw_vault(home.vault, home.now_s)


def withdraw_vault(vault: Vault, clock: Callable[[], int] = system_clock) -> Withdrawn:
    """End the consent of a vault, whatever in it or beside it was damaged.

    Args:
        vault: opened with `even_if_ended`.
        clock: Unix time.

    Raises:
        ConsentRefused: there is no consent to withdraw.
        OSError: the withdrawal or the receipt could not be written; what was done stays done.
    """
    remains = read_remains(vault, clock)
    withdrawal = _begin(remains)
    notices = _notices(remains, withdrawal)
    listed = remains.contents(
        VOICE_KIND, exported_from, "the voice file that it lists was not looked for"
    )
    files = tuple((made.path, _delete_file(made, remains.device)) for made in listed)
    rounds = remains.attempt("the ledgers", lambda: contributions(vault.folder)) or ()
    bounded = remains.attempt("the budgets' journals", lambda: bounds(vault.folder)) or ()
    key = remains.key
    signed = None
    if key is not None:
        signed = remains.attempt("the ledger's end", lambda: remains.ledger.checkpoint(key))
    _name_damaged(remains)
    unread = tuple(dict.fromkeys(remains.unread))
    written = receipt.write(
        vault.folder,
        key,
        receipt.Facts(
            consent=remains.consent,
            withdrawal=withdrawal,
            items=Counter(item.kind for item in remains.items),
            files=files,
            rounds=rounds,
            bounds=bounded,
            federations=tuple(sorted(federation for federation, _ in notices)),
            ledger=signed,
            unread=unread,
            moved=any((vault.folder / name).exists() for name in (MOVES, MOVED_FILE)),
        ),
    )
    vault.destroy()
    return Withdrawn(
        withdrawal,
        written,
        len(remains.items),
        files,
        tuple(path for _, path in notices),
        len(rounds),
        unread,
    )


def _begin(remains: Remains) -> Withdrawal:
    """Put the withdrawal on the disk and into the ledger; the first one stays the one."""
    path = remains.vault.folder / WITHDRAWN_FILE
    if path.exists():
        found = _read(path, remains)
        if found is not None:
            return found
    now_s, consent_sha256 = remains.now_s(), remains.consent_sha256
    if remains.key is None:
        # Nothing can sign any more. It ends every use on this device all the same.
        withdrawal = Withdrawal(remains.device, consent_sha256, now_s, b"")
    else:
        withdrawal = Withdrawal.sign(remains.key, consent_sha256, now_s)
    plain = withdrawal.to_plain()
    signature = withdrawal.signature.hex()
    # Refused first, noted afterwards: a ledger that cannot be written must not keep a voice alive.
    write_atomically(path, json.dumps(plain | {"signature": signature}, indent=1).encode())
    remains.attempt(
        "the ledger, to note the withdrawal,",
        lambda: remains.ledger.append(
            "withdrawal",
            consent=withdrawal.consent_sha256,
            at_s=withdrawal.at_s,
            signature=signature,
        ),
    )
    return withdrawal


def _name_damaged(remains: Remains) -> None:
    """Name what else does not open, although nothing here needed it: its owner may ask for it."""
    looked_at = {IDENTITY, CONSENT}
    for item in remains.items:
        if item.name not in looked_at and item.kind not in (VOICE_KIND, CERTIFICATE_KIND):
            remains.attempt(f"'{item.name}'", partial(remains.vault.get, item.name))


def _read(path: Path, remains: Remains) -> Withdrawal | None:
    """Return the withdrawal that an earlier attempt left, None if the file holds none.

    One that this device's key did not sign is none: no server would hear it, and whoever wrote it
    chose its time and its name. Where the key cannot be read any more, it is believed.
    """
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        found = Withdrawal.from_plain(plain | {"signature": bytes.fromhex(plain["signature"])})
        if remains.key is not None:
            found.check(remains.key.verify_key())
        datetime.fromtimestamp(found.at_s, UTC)  # as the receipt has to say it
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError,
        OSError, ChoristerError,
    ):  # fmt: skip
        return None
    return found


def _notices(remains: Remains, withdrawal: Withdrawal) -> list[tuple[str, Path]]:
    certificates = remains.contents(
        CERTIFICATE_KIND, Certificate.from_plain, "its server is not told"
    )
    if not withdrawal.signature:
        for certificate in certificates:
            remains.unread.append(
                f"the server of {certificate.federation} is not told, since nothing can sign the "
                f"notice: tell its operator the device's name, {certificate.device_id}"
            )
        return []
    folder = remains.vault.folder
    queued = []
    for one in certificates:
        path = remains.attempt(
            f"the outbox (tell the operator of {one.federation} the device's name, "
            f"{one.device_id})",
            partial(outbox.queue, folder, WithdrawalNotice(one, withdrawal)),
        )
        if path is not None:
            queued.append((one.federation, path))
    return queued


def _delete_file(made: Exported, device: str) -> str:
    """Delete a voice file where it was written, if it is still that file; say what became of it."""
    path = Path(made.path)
    form = "plain: copies of it cannot be recalled" if made.plain else "sealed: its key is gone"
    try:
        if not path.is_file():
            return f"not there any more ({form})"
        if not _is_the_one(path, made, device):
            return f"another file lies there now, and was left ({form})"
        path.unlink()
    except OSError as error:
        return f"not deleted, {error.strerror or error}: delete it yourself ({form})"
    return f"deleted ({form})"


def _is_the_one(path: Path, made: Exported, device: str) -> bool:
    if made.plain and not made.sha256:
        # The export was not finished, or not noted: an older file may lie there still.
        return _speaks_for(path, device)
    if made.plain:
        return made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        return is_sealed(path) and read_head(path).voice == made.voice
    except BadWeights:
        return False  # cut off: nobody can say whose it was, and nothing opens it


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
