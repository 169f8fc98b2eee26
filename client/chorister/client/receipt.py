"""The withdrawal's receipt: what ended, what was deleted, what stays, signed by the device.

JSON for whoever checks it and HTML for whoever reads it, side by side. The signature is made before
the device's key is destroyed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from chorister.client.consent import ConsentRecord
from chorister.client.participation import Bound, Contribution
from chorister.shared import codec
from chorister.shared.enrolment import Withdrawal
from chorister.shared.errors import BadSignature
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.signing import SigningKey, VerifyKey

FORMAT = "chorister withdrawal receipt 1"
LABEL = "chorister/1 withdrawal receipt"
FILE = "receipt-withdrawal"
_NEVER_JOINED = (
    "This voice took part in no federation's round: nothing of it was ever sent to anybody."
)
_IN_ADAPTERS = (
    "What rounds have learnt stays in the shared adapters of those rounds and of all later ones. "
    "Nobody can take one speaker out of a sum. The server is told, leaves this device out of every "
    "later round, and can return to the last version without it."
)
_BOUNDED = (
    "The figures below bound what anybody can tell from those adapters about this speaker, by "
    "the noise that was added; the smaller epsilon, the less."
)
_UNBOUNDED = (
    "No noise was booked for these rounds: nothing bounds what their adapters say of this speaker."
)
_UNREAD = (
    "Not everything that this device noted could be read or written, so rounds or figures may be "
    "missing here: {}. The voice was destroyed all the same. What rounds have learnt, if there "
    "were more, stays in the shared adapters."
)
_PLAIN = "A plain voice file works for whoever has a copy. It was deleted where it was written."
_BACKUPS = (
    "Backups of the vault's folder that were made before hold its key file: delete them. Other "
    "copies of the recordings were never Chorister's."
)
_EXPORTED = (
    "An exported vault file, and the folder it was exported from, hold the key: delete the file, "
    "and run `chorister consent withdraw` there too."
)
_MOVED = (
    "This vault was exported or imported, so its key lies in more than one place, and this voice "
    "can be opened again there. " + _EXPORTED + " The same holds for the folder that it was "
    "imported into."
)
_CONVERTED = "Audio that was already made with this voice stays where it is: nobody keeps a list."


@dataclass(frozen=True, slots=True)
class Facts:
    """What a receipt is made of.

    Attributes:
        consent: that ended; None where it could not be read.
        withdrawal: signed, unless the device's key could not be read.
        items: kind to how many were destroyed in the vault.
        files: path and what became of it, for each voice file that was written.
        rounds: that the speaker took part in.
        bounds: on what they can have learnt.
        federations: whose servers are told.
        ledger: the device's signature under its ledger, this withdrawal included; None where the
            ledger could not be read.
        unread: what could not be read or written of vault, ledgers and journals, in words.
        moved: whether the vault was exported from this folder or imported into it.
    """

    consent: ConsentRecord | None
    withdrawal: Withdrawal
    items: Mapping[str, int]
    files: tuple[tuple[str, str], ...]
    rounds: tuple[Contribution, ...]
    bounds: tuple[Bound, ...]
    federations: tuple[str, ...]
    ledger: Checkpoint | None
    unread: tuple[str, ...] = ()
    moved: bool = False


def write(folder: Path, key: SigningKey | None, facts: Facts) -> Path:
    """Write a receipt and its readable form, and return the former's path.

    Args:
        folder: where to.
        key: of the device; None where it could not be read, and the receipt is not signed.
        facts: what happened.
    """
    plain = _plain(facts, None if key is None else key.verify_key())
    if key is not None:
        plain["signature"] = key.sign(LABEL, codec.encode(plain)).hex()
    path = folder / f"{FILE}.json"
    text = json.dumps(plain, indent=2, sort_keys=True) + "\n"
    write_atomically(path, text.encode())
    write_atomically(folder / f"{FILE}.html", to_html(plain).encode())
    return path


def check(plain: Mapping[str, Any]) -> None:
    """Return if a receipt, read from its JSON, was signed by the device that it names.

    Raises:
        BadSignature: it was not.
    """
    body = dict(plain)
    try:
        signature = bytes.fromhex(body.pop("signature"))
        device = VerifyKey(bytes.fromhex(body["device_key"]))
        encoded = codec.encode(body)
    except (KeyError, ValueError, TypeError):
        raise BadSignature(
            "A receipt names its device and carries its signature.",
            "something else",
            "Use the file as `chorister consent withdraw` wrote it.",
        ) from None
    device.verify(LABEL, encoded, signature)
    if device.name != body["device"]:
        raise BadSignature(
            "A receipt's device is the key that signed it.", str(body["device"]), "Do not trust it."
        )


def to_html(plain: Mapping[str, Any]) -> str:
    """Return a receipt as one page that needs nothing but itself."""
    consent, destroyed = plain["consent"], plain["destroyed"]
    deleted = [f"{count} × {kind}" for kind, count in sorted(destroyed["items"].items())]
    parts = [
        f"<p>{_of_consent(plain)} ended on <b>{_text(plain['at'])}</b>.</p>",
        "<h2>Destroyed on this device</h2>",
        f"<p>{_text(destroyed['keys'])}</p>",
        _list([*deleted, *(f"{f['path']}: {f['outcome']}" for f in destroyed["files"])]),
        "<h2>Who is told</h2>",
        _list([f"{name}: {plain['told'][name]}" for name in sorted(plain["told"])])
        or "<p>No federation was joined.</p>",
        "<h2>Rounds that this voice took part in</h2>",
        _rounds(plain["rounds"]),
        "<h2>What cannot be undone</h2>",
        _list(plain["cannot_be_undone"]),
        _list([f"{b['federation']}: {b['sentence']}" for b in plain["bounds"]]),
        "<h2>Checking it</h2>",
        f"<p>{_of_signature(plain)} Consent <code>{_text(consent['sha256'])}</code>.</p>",
    ]
    return _PAGE.replace("BODY", "\n".join(part for part in parts if part))


def _of_consent(plain: Mapping[str, Any]) -> str:
    consent, device = plain["consent"], f"<b>{_text(plain['device'])}</b>"
    if consent["controller"] is None:
        return f"The consent of {device}, whose record could not be read,"
    purposes = _text(", ".join(consent["purposes"]))
    return f"The consent of {device} to {_text(consent['controller'])} for {purposes}"


def _of_signature(plain: Mapping[str, Any]) -> str:
    if plain["device_key"] is None:
        return "Not signed: the device's key could not be read, and nothing else can sign for it."
    return (
        f"Signed with Ed25519 by device key <code>{_text(plain['device_key'])}</code>; the signed "
        f"form is {FILE}.json beside this page."
    )


def _plain(facts: Facts, device: VerifyKey | None) -> dict[str, Any]:
    consent, withdrawal = facts.consent, facts.withdrawal
    limits = [_CONVERTED, _BACKUPS, _EXPORTED]
    if facts.moved:
        limits = [_MOVED, _CONVERTED, _BACKUPS]
    if any("plain" in outcome for _, outcome in facts.files):
        limits.insert(0, _PLAIN)
    if facts.bounds and (facts.rounds or facts.unread):
        limits.insert(0, _BOUNDED)
    elif facts.rounds and not facts.unread:
        limits.insert(0, _UNBOUNDED)
    if facts.rounds:
        limits.insert(0, _IN_ADAPTERS)
    elif not facts.unread:
        limits.insert(0, _NEVER_JOINED)
    if facts.unread:
        limits.insert(0, _UNREAD.format("; ".join(facts.unread)))
    told = "a signed notice waits, and is given to its server when that next asks this device"
    return {
        "format": FORMAT,
        "device": withdrawal.device_id,
        "device_key": None if device is None else device.raw.hex(),
        "at_s": withdrawal.at_s,
        "at": datetime.fromtimestamp(withdrawal.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "withdrawal_signature": withdrawal.signature.hex(),
        "consent": {
            "sha256": withdrawal.consent_sha256,
            "controller": None if consent is None else consent.controller,
            "purposes": [] if consent is None else list(consent.purposes),
            "given_s": None if consent is None else consent.given_s,
            "expires_s": None if consent is None else consent.expires_s,
        },
        "destroyed": {
            "keys": "The vault's key first, with the keys of the sealed voices inside; then every "
            "item. If this was interrupted, `chorister consent withdraw` finishes it.",
            "items": dict(facts.items),
            "files": [{"path": path, "outcome": outcome} for path, outcome in facts.files],
        },
        "told": dict.fromkeys(facts.federations, told),
        "rounds": [asdict(contribution) for contribution in facts.rounds],
        "bounds": [_bound(bound) for bound in facts.bounds],
        "cannot_be_undone": limits,
        "ledger": None if facts.ledger is None else facts.ledger.to_plain(),
    }


def _bound(bound: Bound) -> dict[str, Any]:
    figure = bound.figure
    finite = figure.epsilon < float("inf")
    return {
        "federation": bound.federation,
        "unit": figure.unit,
        "relation": figure.relation,
        "epsilon": figure.epsilon if finite else None,
        "delta": figure.delta,
        "sentence": figure.sentence(),
    }


def _rounds(rounds: list[dict[str, Any]]) -> str:
    if not rounds:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{_text(r['federation'])}</td><td>{_text(r['round_id'])}</td>"
        f"<td><code>{_text(r['trained_from'][:16])}</code></td>"
        f"<td><code>{_text((r['seen_after'] or 'not seen')[:16])}</code></td></tr>"
        for r in rounds
    )
    return (
        "<table><caption>Versions of the shared adapter, by the beginning of their digests. The "
        "server knows whether this device was in the sum.</caption><tr><th>Federation</th>"
        "<th>Round</th><th>Trained from</th><th>Next version seen</th></tr>" + rows + "</table>"
    )


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _text(value: object) -> str:
    return escape(str(value))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Withdrawal receipt</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#111}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem;border:1px solid #777}
caption{text-align:left;font-size:.9rem}code{overflow-wrap:anywhere}
</style></head><body><h1>Withdrawal receipt</h1>
BODY
</body></html>
"""
