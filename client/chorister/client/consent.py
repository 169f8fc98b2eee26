"""Consent as a key: a signed record that every use of a voice has to be permitted by.

`permit` is the one way to a `Permit`, and training, conversion, speech and export take one as an
argument: a use without consent is a type error before it is a refusal.

The record itself is in `consent_record`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chorister.client.consent_record import (
    PURPOSES,
    CheckFigure,
    ConsentRecord,
    Purpose,
    SpokenStatement,
)
from chorister.shared.enrolment import ConsentToken, Withdrawal
from chorister.shared.errors import BadSignature, ConsentRefused, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.signing import SigningKey, VerifyKey

# A record's types are at home in `consent_record`; users of consents find them here.
__all__ = [
    "PURPOSES", "CheckFigure", "ConsentRecord", "Permit", "Purpose", "SpokenStatement",
    "consent_token", "give", "narrow", "permit", "renew", "withdraw",
]  # fmt: skip

TOKEN_LIFE_S = 600
CLOCK_SLACK_S = 300  # a clock is put right by so much without anybody meaning to gain time
STORAGE = "encrypted in a vault on the speaker's own device, nowhere else"
RETENTION = "until the consent ends or is withdrawn, whichever is first"
WITHDRAWAL = "chorister consent withdraw, on this device, at any time"


class Permit:
    """A granted use of a voice. Only `permit` makes one.

    Attributes:
        purpose: what it is for.
        consent_sha256: the record that it rests on.
        until_s: Unix time at which it ends.
    """

    __slots__ = ("consent_sha256", "purpose", "until_s")

    def __init__(self, purpose: Purpose, consent_sha256: str, until_s: int, *, made_by: object):
        if made_by is not _PERMIT:
            raise TypeError("a Permit comes from chorister.client.consent.permit and nowhere else")
        self.purpose = purpose
        self.consent_sha256 = consent_sha256
        self.until_s = until_s

    def require(self, purpose: Purpose, now_s: int) -> None:
        """Return if this permit is for a purpose and still holds; its user calls this first.

        Raises:
            ConsentRefused: it is for another purpose, or it has ended.
        """
        if self.purpose != purpose or now_s >= self.until_s:
            raise ConsentRefused(
                f"A permit for '{purpose}' that has not ended is needed.",
                f"one for '{self.purpose}' that ends at {self.until_s} (now {now_s}, Unix time)",
                "Ask for a new permit for this purpose.",
            )


_PERMIT = object()


def give(
    key: SigningKey,
    *,
    controller: str,
    purposes: Iterable[Purpose],
    given_s: int,
    expires_s: int,
    jurisdiction: str,
    statement: SpokenStatement | None = None,
    storage: str = STORAGE,
    retention: str = RETENTION,
    withdrawal: str = WITHDRAWAL,
    replaces: str | None = None,
) -> ConsentRecord:
    """Return a speaker's consent, signed by the speaker's device.

    Args:
        key: of the device.
        controller: who is allowed.
        purposes: what for.
        given_s: Unix time.
        expires_s: Unix time.
        jurisdiction: whose law.
        statement: how it was spoken and checked; None if it was not spoken.
        storage: where the voice is kept and how.
        retention: how long.
        withdrawal: how to withdraw.
        replaces: digest of the record in whose place this one comes.

    Raises:
        UsageError: no purpose or an unknown one, no controller, or an expiry that is not later.
    """
    wanted = tuple(sorted(set(purposes)))
    if not wanted or not set(wanted) <= set(PURPOSES):
        raise UsageError(
            f"Consent names purposes among {', '.join(PURPOSES)}.",
            ", ".join(wanted) or "none",
            "Name at least one of these.",
        )
    if not controller.strip():
        raise UsageError(
            "Consent names the controller.", "an empty name", "Say who may use the voice."
        )
    if expires_s <= given_s:
        raise UsageError(
            "Consent ends after it was given.",
            f"given {given_s}, expires {expires_s} (Unix time)",
            "Choose a later expiry.",
        )
    unsigned = ConsentRecord(
        subject=key.verify_key().name,
        controller=controller,
        purposes=wanted,
        given_s=given_s,
        expires_s=expires_s,
        statement=statement,
        jurisdiction=jurisdiction,
        storage=storage,
        retention=retention,
        withdrawal=withdrawal,
        replaces=replaces,
        signature=b"",
    )
    return unsigned.signed(key)


def narrow(
    record: ConsentRecord, key: SigningKey, *, purposes: Iterable[Purpose], now_s: int
) -> ConsentRecord:
    """Return a consent to fewer purposes that replaces a record; the expiry stays.

    Raises:
        UsageError: not fewer purposes, or none (that is a withdrawal).
    """
    kept = tuple(sorted(set(purposes)))
    if not kept or not set(kept) < set(record.purposes):
        raise UsageError(
            f"Narrowing keeps some of the purposes {', '.join(record.purposes)}, and not all.",
            ", ".join(kept) or "none",
            "Withdraw to keep none; give a new consent to allow more.",
        )
    narrowed = replace(record, purposes=kept, given_s=now_s, replaces=record.sha256)
    return narrowed.signed(key)


def renew(record: ConsentRecord, key: SigningKey, *, given_s: int, expires_s: int) -> ConsentRecord:
    """Return a consent to the same purposes that ends later and replaces a record.

    Raises:
        UsageError: it does not end later than the record, or than it was given.
    """
    if expires_s <= max(given_s, record.expires_s):
        raise UsageError(
            "A renewed consent ends later than before.",
            f"expires {expires_s}, where it expires {record.expires_s} now (Unix time)",
            "Choose a later expiry; to end it earlier, withdraw.",
        )
    renewed = replace(record, given_s=given_s, expires_s=expires_s, replaces=record.sha256)
    return renewed.signed(key)


def withdraw(record: ConsentRecord, key: SigningKey, *, now_s: int) -> Withdrawal:
    """Return the signed end of a consent. It always succeeds: withdrawing is as easy as giving."""
    return Withdrawal.sign(key, record.sha256, now_s)


def permit(
    record: ConsentRecord | None,
    purpose: Purpose,
    *,
    device: VerifyKey,
    now_s: int,
    ledger: LedgerFile,
    withdrawal: Withdrawal | None = None,
) -> Permit:
    """Return the permit for one use of the voice, if its owner's consent covers it.

    Grant and refusal are both in the ledger before this returns or raises.

    Args:
        record: the consent that the device holds, None if it holds none.
        purpose: what the voice is to be used for.
        device: the device's own public key, which must have signed the record.
        now_s: Unix time.
        ledger: the device's ledger.
        withdrawal: the end of this consent, None if it was not withdrawn.

    Raises:
        ConsentRefused: no record, another device's or an altered one, another purpose, expired,
            given in the future or used at a later time before (the clock was set back), or
            withdrawn.
    """
    reason = refusal_of(record, purpose, device, now_s, withdrawal)
    if reason is None and now_s < ledger.latest_s - CLOCK_SLACK_S:
        reason = f"the clock was set back: {now_s} after {ledger.latest_s} (Unix time)"
    if record is None or reason is not None:
        consent = None if record is None else record.sha256
        ledger.append("refusal", purpose=purpose, reason=reason, consent=consent)
        raise ConsentRefused(
            f"Using a voice for {purpose.replace('_', ' ')} needs its owner's valid consent.",
            str(reason),
            "Ask the speaker to give consent with `chorister enrol`; nothing was done.",
        )
    ledger.append("consent", action="granted", purpose=purpose, consent=record.sha256)
    return Permit(purpose, record.sha256, record.expires_s, made_by=_PERMIT)


def consent_token(
    key: SigningKey,
    training: Permit,
    *,
    federation: str,
    round_id: str,
    terms_sha256: str,
    now_s: int,
) -> ConsentToken:
    """Return the token that admits this device to one round under the terms that it read.

    Raises:
        ConsentRefused: the permit is not for training, or it has ended.
    """
    training.require("training", now_s)
    return ConsentToken.sign(
        key,
        federation=federation,
        round_id=round_id,
        terms_sha256=terms_sha256,
        consent_sha256=training.consent_sha256,
        expires_s=min(now_s + TOKEN_LIFE_S, training.until_s),
    )


def refusal_of(
    record: ConsentRecord | None,
    purpose: Purpose,
    device: VerifyKey,
    now_s: int,
    withdrawal: Withdrawal | None = None,
) -> str | None:
    """Return why a consent does not cover a use, None if it does; no permit, and nothing is noted.

    Args:
        record: the consent, None if there is none.
        purpose: what the voice is to be used for.
        device: that must have signed the record.
        now_s: Unix time.
        withdrawal: the end of this consent, None if it was not withdrawn.
    """
    if record is None:
        return "no consent was given"
    try:
        record.check(device)
    except BadSignature:
        return "a consent that this device did not sign for its speaker"
    # A withdrawal needs no proof to be obeyed: when in doubt, the voice is not used.
    if withdrawal is not None:
        return f"the consent was withdrawn at {withdrawal.at_s} (Unix time)"
    if purpose not in record.purposes:
        return f"the consent covers {', '.join(record.purposes)} only"
    if now_s >= record.expires_s:
        return f"the consent expired at {record.expires_s} (Unix time)"
    if now_s < record.given_s:
        return f"the consent is from {record.given_s}, after the clock's {now_s} (Unix time)"
    return None
