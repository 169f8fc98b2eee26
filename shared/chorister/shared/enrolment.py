"""What a device signs for others: it holds its key, its owner consents to a round, or withdraws."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.node_key import node_public
from chorister.shared.signing import Certificate, SigningKey, VerifyKey

SIGNATURE_BYTES = 64
TOKEN_PREFIX = "chorister-token-1."  # noqa: S105 (what a token begins with)
_MAX_TOKEN = 1024
POSSESSION = "chorister/1 proof of possession"
WITHDRAWAL = "chorister/1 consent withdrawal"
CONSENT_TOKEN = "chorister/1 consent token"  # noqa: S105 (a label, not a secret)


@dataclass(frozen=True, slots=True)
class PossessionProof:
    """A device's answer to the enrolment authority's challenge.

    Attributes:
        device_key: the key that it proves to hold.
        federation: the federation it wants to join.
        challenge: the authority's 32 random bytes, used once.
        signature: by the device key, over the other fields.
        node_key: public key of its connection, 49 bytes; empty for a device without one, as a
            simulated device is.
    """

    device_key: VerifyKey
    federation: str
    challenge: bytes
    signature: bytes
    node_key: bytes = b""

    @classmethod
    def make(
        cls, key: SigningKey, federation: str, challenge: bytes, node_key: bytes = b""
    ) -> PossessionProof:
        """Return the signed answer to a challenge."""
        unsigned = cls(key.verify_key(), federation, challenge, b"", node_key)
        return replace(unsigned, signature=key.sign(POSSESSION, unsigned._body()))

    def check(self) -> None:
        """Return if the named key signed this.

        Raises:
            BadSignature: it did not.
        """
        self.device_key.verify(POSSESSION, self._body(), self.signature)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            {
                "device_key": self.device_key.raw,
                "federation": self.federation,
                "challenge": self.challenge,
                "signature": self.signature,
                "node_key": self.node_key,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> PossessionProof:
        """Return the proof in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        kinds: dict[str, type] = {
            "device_key": bytes, "federation": str, "challenge": bytes, "signature": bytes,
            "node_key": bytes,
        }  # fmt: skip
        plain = _fields(codec.decode(data, max_bytes=1024), "A proof of possession", kinds)
        if plain["node_key"]:
            node_public(plain["node_key"])
        return cls(
            VerifyKey(plain["device_key"]),
            plain["federation"],
            plain["challenge"],
            plain["signature"],
            plain["node_key"],
        )

    def _body(self) -> bytes:
        return codec.encode(
            {
                "federation": self.federation,
                "challenge": self.challenge,
                "node_key": self.node_key,
            }
        )


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """What the authority gives one speaker, by a way that both trust: it enrols one device, once.

    Attributes:
        federation: that it enrols for.
        authority: the authority's public key, which the device pins from here on.
        challenge: 32 random bytes, which the device's proof answers.
        expires_s: Unix time.
    """

    federation: str
    authority: VerifyKey
    challenge: bytes
    expires_s: int

    def __repr__(self) -> str:
        return f"EnrolmentToken({self.federation!r}, secret)"

    def to_text(self) -> str:
        """Return one line that can be sent and pasted."""
        plain: codec.Plain = {
            "federation": self.federation,
            "authority": self.authority.raw,
            "challenge": self.challenge,
            "expires_s": self.expires_s,
        }
        return TOKEN_PREFIX + base64.urlsafe_b64encode(codec.encode(plain)).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> EnrolmentToken:
        """Return the token in a line.

        Raises:
            BadMessage: it is none, or was cut off.
        """
        kinds = {"federation": str, "authority": bytes, "challenge": bytes, "expires_s": int}
        body = text.strip().removeprefix(TOKEN_PREFIX)
        try:
            data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            if not text.strip().startswith(TOKEN_PREFIX) or len(body) > _MAX_TOKEN:
                raise ValueError
            plain = codec.fields(codec.decode(data), kinds, "A token")
            if len(plain["authority"]) != 32 or len(plain["challenge"]) != 32:
                raise ValueError
        except (ValueError, BadMessage):
            raise BadMessage(
                f"A token is one line that begins with {TOKEN_PREFIX}",
                "something else, or one that was cut off",
                "Copy the whole line that the authority gave you.",
            ) from None
        return cls(
            plain["federation"],
            VerifyKey(plain["authority"]),
            plain["challenge"],
            plain["expires_s"],
        )


@dataclass(frozen=True, slots=True)
class ConsentToken:
    """A device's word to the server: a valid consent to training covers this round and its terms.

    It says no more about the consent than its digest, and it is good for one round.

    Attributes:
        federation: whose round.
        round_id: which round.
        terms_sha256: digest of the round's terms (noise, clip, cohort), as the device read them.
        consent_sha256: digest of the consent record.
        expires_s: Unix time; minutes away, not days.
        signature: by the device key, over the other fields.
    """

    federation: str
    round_id: str
    terms_sha256: str
    consent_sha256: str
    expires_s: int
    signature: bytes

    @classmethod
    def sign(
        cls,
        key: SigningKey,
        *,
        federation: str,
        round_id: str,
        terms_sha256: str,
        consent_sha256: str,
        expires_s: int,
    ) -> ConsentToken:
        """Return a signed token; devices call `chorister.client.consent.consent_token` instead."""
        unsigned = cls(federation, round_id, terms_sha256, consent_sha256, expires_s, b"")
        return replace(unsigned, signature=key.sign(CONSENT_TOKEN, unsigned._body()))

    def check(self, device_key: VerifyKey) -> None:
        """Return if the device signed this.

        Raises:
            BadSignature: it did not.
        """
        device_key.verify(CONSENT_TOKEN, self._body(), self.signature)

    def to_plain(self) -> dict[str, Any]:
        """Return the token as plain data for the codec."""
        return {
            "federation": self.federation,
            "round_id": self.round_id,
            "terms_sha256": self.terms_sha256,
            "consent_sha256": self.consent_sha256,
            "expires_s": self.expires_s,
            "signature": self.signature,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> ConsentToken:
        """Return the token in plain data; nothing is verified yet.

        Raises:
            BadMessage: other fields or other types.
        """
        kinds = {
            "federation": str,
            "round_id": str,
            "terms_sha256": str,
            "consent_sha256": str,
            "expires_s": int,
            "signature": bytes,
        }
        return cls(**_fields(plain, "A consent token", kinds))

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self.to_plain())

    @classmethod
    def from_bytes(cls, data: bytes) -> ConsentToken:
        """Return the token in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        return cls.from_plain(codec.decode(data))

    def _body(self) -> bytes:
        plain = self.to_plain()
        del plain["signature"]
        return codec.encode(plain)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A speaker's signed word that a consent has ended.

    Attributes:
        device_id: the device's pseudonym.
        consent_sha256: digest of the record that ended.
        at_s: Unix time.
        signature: by the device key, over the other fields.
    """

    device_id: str
    consent_sha256: str
    at_s: int
    signature: bytes

    @classmethod
    def sign(cls, key: SigningKey, consent_sha256: str, at_s: int) -> Withdrawal:
        """Return a signed withdrawal."""
        unsigned = cls(key.verify_key().name, consent_sha256, at_s, b"")
        return replace(unsigned, signature=key.sign(WITHDRAWAL, unsigned._body()))

    def check(self, device_key: VerifyKey) -> None:
        """Return if the device signed this.

        Raises:
            BadSignature: it did not.
        """
        device_key.verify(WITHDRAWAL, self._body(), self.signature)

    def to_plain(self) -> dict[str, Any]:
        """Return the withdrawal as plain data for the codec."""
        return {
            "device_id": self.device_id,
            "consent_sha256": self.consent_sha256,
            "at_s": self.at_s,
            "signature": self.signature,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Withdrawal:
        """Return the withdrawal in plain data; nothing is verified yet.

        Raises:
            BadMessage: other fields or other types.
        """
        kinds = {"device_id": str, "consent_sha256": str, "at_s": int, "signature": bytes}
        return cls(**_fields(plain, "A withdrawal", kinds))

    def _body(self) -> bytes:
        plain = self.to_plain()
        del plain["signature"]
        return codec.encode(plain)


@dataclass(frozen=True, slots=True)
class WithdrawalNotice:
    """What a server is told of a withdrawal: the withdrawal, and whose certificate it ends.

    It needs no fresh signature: it is kept after the device's key was destroyed, and sent until it
    has arrived.

    Attributes:
        certificate: of the device, ended or not.
        withdrawal: signed by the certified key.
    """

    certificate: Certificate
    withdrawal: Withdrawal

    def check(self, authority: VerifyKey, federation: str) -> None:
        """Return if a device of this federation signed it; a certificate that ended will do.

        Raises:
            BadSignature: another authority, federation or device.
        """
        self.certificate.check(authority, federation, self.certificate.not_after_s)
        self.withdrawal.check(self.certificate.device_key)
        if self.withdrawal.device_id != self.certificate.device_id:
            raise BadSignature(
                f"A withdrawal names the device that signed it, {self.certificate.device_id}.",
                self.withdrawal.device_id[:32],
                "Drop the message.",
            )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            {"certificate": self.certificate.to_plain(), "withdrawal": self.withdrawal.to_plain()}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> WithdrawalNotice:
        """Return the notice in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        kinds = {"certificate": dict, "withdrawal": dict}
        plain = codec.fields(codec.decode(data, max_bytes=2048), kinds, "A withdrawal notice")
        return cls(
            Certificate.from_plain(plain["certificate"]),
            Withdrawal.from_plain(plain["withdrawal"]),
        )


def _fields(plain: Any, what: str, kinds: dict[str, type]) -> dict[str, Any]:
    fields = codec.fields(plain, kinds, what)
    if len(fields["signature"]) != SIGNATURE_BYTES:
        raise BadMessage(
            f"{what} has a signature of {SIGNATURE_BYTES} bytes.",
            f"{len(fields['signature'])} bytes",
            "Drop the message.",
        )
    return fields
