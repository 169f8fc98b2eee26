"""Who may take part in a round: a certified device with a fresh consent to exactly this round."""

from __future__ import annotations

from collections.abc import Container

from chorister.shared.enrolment import ConsentToken
from chorister.shared.errors import BadSignature, ChoristerError, ConsentRefused, ProtocolViolation
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.signing import Certificate, VerifyKey

MAX_TOKEN_LIFE_S = 3600
MAX_REASON = 200  # characters of a refusal in the ledger; a peer may have chosen some of them


class Admission:
    """The door of one round.

    Args:
        authority: the enrolment authority's pinned key.
        federation: the federation's name.
        round_id: the round; ids are never used twice.
        terms_sha256: digest of the terms that the server announced.
        revoked: device ids that the authority revoked.
        withdrawn: device ids whose speakers withdrew.
        ledger: gets every admission, with the device's signature, and every refusal.
    """

    def __init__(
        self,
        *,
        authority: VerifyKey,
        federation: str,
        round_id: str,
        terms_sha256: str,
        revoked: Container[str],
        withdrawn: Container[str],
        ledger: LedgerFile,
    ) -> None:
        self._authority = authority
        self._federation = federation
        self._round_id = round_id
        self._terms_sha256 = terms_sha256
        self._revoked = revoked
        self._withdrawn = withdrawn
        self._ledger = ledger
        self._admitted: set[str] = set()

    def admit(self, certificate: Certificate, token: ConsentToken, now_s: int) -> str:
        """Return the pseudonym of a device that may take part.

        Raises:
            BadSignature: certificate or token is not what it claims, or the certificate ended.
            ConsentRefused: revoked, withdrawn, or a token that has ended or lives too long.
            ProtocolViolation: a token of another round or under other terms, or used before.
        """
        device_id = certificate.device_id
        try:
            self._check(certificate, token, now_s)
        except ChoristerError as error:
            self._ledger.append(
                "refusal",
                round=self._round_id,
                device=device_id,
                reason=error.found[:MAX_REASON],
                rule=error.rule[:MAX_REASON],
            )
            raise
        self._admitted.add(device_id)
        self._ledger.append(
            "admission",
            round=self._round_id,
            device=device_id,
            device_key=certificate.device_key.raw.hex(),
            certificate={
                "not_after_s": certificate.not_after_s,
                "signature": certificate.signature.hex(),
            },
            terms=token.terms_sha256,
            consent=token.consent_sha256,
            expires_s=token.expires_s,
            signature=token.signature.hex(),
        )
        return device_id

    def _check(self, certificate: Certificate, token: ConsentToken, now_s: int) -> None:
        device_id = certificate.device_id
        certificate.check(self._authority, self._federation, now_s)
        if device_id in self._revoked:
            raise ConsentRefused(
                "A device's certificate was not revoked.",
                f"device {device_id}, revoked",
                "Enrol again with the authority.",
            )
        if device_id in self._withdrawn:
            raise ConsentRefused(
                "A speaker who withdrew takes part in nothing.",
                f"device {device_id}, withdrawn",
                "Leave the device out of every cohort.",
            )
        try:
            token.check(certificate.device_key)
        except BadSignature as error:
            raise BadSignature(
                error.rule, "a consent token that it did not sign", error.advice
            ) from None
        named = (token.federation, token.round_id, token.terms_sha256)
        if named != (self._federation, self._round_id, self._terms_sha256):
            raise ProtocolViolation(
                f"A consent token is for round '{self._round_id}' under its announced terms.",
                f"one for round '{token.round_id}' of '{token.federation}'"
                + (", other terms" if token.terms_sha256 != self._terms_sha256 else ""),
                "Leave the device out of this round.",
            )
        if not now_s < token.expires_s <= now_s + MAX_TOKEN_LIFE_S:
            raise ConsentRefused(
                f"A consent token ends within {MAX_TOKEN_LIFE_S} s, and not yet.",
                f"one that ends {token.expires_s - now_s} s from now",
                "Check both clocks; the device asks for a new round.",
            )
        if device_id in self._admitted:
            raise ProtocolViolation(
                "A consent token admits once.",
                f"a second use by device {device_id}",
                "Drop the message: it was replayed.",
            )
