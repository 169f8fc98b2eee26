"""Ed25519 signatures with a label for each purpose, and the certificates of devices.

A signature covers `label || 0x00 || payload`, so one made for a purpose never verifies for another.
Source: RFC 8032; labels after age and Noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.randomness import Randomness


class SigningKey:
    """A private Ed25519 key; it has no readable form but `secret_bytes`."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @classmethod
    def generate(cls, randomness: Randomness) -> SigningKey:
        """Return a new key from 32 random bytes."""
        return cls(randomness.bytes(32))

    def __repr__(self) -> str:
        return "SigningKey(secret)"

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, for a vault and nothing else."""
        return self._key.private_bytes_raw()

    def verify_key(self) -> VerifyKey:
        """Return the public half."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, label: str, payload: bytes) -> bytes:
        """Return 64 bytes that bind the payload to a purpose."""
        return self._key.sign(_labelled(label, payload))


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public Ed25519 key.

    Attributes:
        raw: 32 bytes.
    """

    raw: bytes

    def verify(self, label: str, payload: bytes, signature: bytes) -> None:
        """Return if the signature is this key's for this label and payload.

        Raises:
            BadSignature: it is not.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(
                signature, _labelled(label, payload)
            )
        except (InvalidSignature, ValueError):
            raise BadSignature(
                f"A '{label}' carries a signature by key {self.name}.",
                "a signature that does not verify",
                "Drop it; if it came from your own device, check that it uses its enrolled key.",
            ) from None

    @property
    def name(self) -> str:
        """The key's pseudonym: 16 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]


CERTIFICATE = "chorister/1 device certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The enrolment authority's word that a device key belongs to the federation.

    The device id is the key's pseudonym: no name, no voice, no machine.

    Attributes:
        device_key: the device's Ed25519 public key.
        federation: name of the federation it may join.
        not_after_s: Unix time at which it ends.
        signature: by the authority, over the other fields.
    """

    device_key: VerifyKey
    federation: str
    not_after_s: int
    signature: bytes

    @property
    def device_id(self) -> str:
        """The device's pseudonym."""
        return self.device_key.name

    @classmethod
    def issue(
        cls, authority: SigningKey, device_key: VerifyKey, federation: str, not_after_s: int
    ) -> Certificate:
        """Return a certificate signed by the authority."""
        unsigned = cls(device_key, federation, not_after_s, b"")
        return cls(
            device_key, federation, not_after_s, authority.sign(CERTIFICATE, unsigned._body())
        )

    def check(self, authority: VerifyKey, federation: str, now_s: int) -> None:
        """Return if the authority signed this for the federation and it has not ended.

        Raises:
            BadSignature: another signer, another federation, or expired.
        """
        authority.verify(CERTIFICATE, self._body(), self.signature)
        if self.federation != federation:
            raise BadSignature(
                f"A certificate names the federation '{federation}'.",
                f"'{self.federation}'",
                "Enrol the device with this federation's authority.",
            )
        if now_s > self.not_after_s:
            raise BadSignature(
                "A certificate has not ended.",
                f"one that ended at {self.not_after_s} (Unix time)",
                "Ask the enrolment authority for a new one.",
            )

    def to_plain(self) -> dict[str, Any]:
        """Return the certificate as plain data for the codec."""
        return {
            "device_key": self.device_key.raw,
            "federation": self.federation,
            "not_after_s": self.not_after_s,
            "signature": self.signature,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Certificate:
        """Return the certificate in plain data; nothing is verified yet.

        Raises:
            BadMessage: other fields or other types.
        """
        kinds = {"device_key": bytes, "federation": str, "not_after_s": int, "signature": bytes}
        codec.fields(plain, kinds, "A certificate")
        if len(plain["device_key"]) != 32 or len(plain["signature"]) != 64:
            raise BadMessage(
                "A certificate has a key of 32 and a signature of 64 bytes.",
                "other lengths",
                "Drop the message.",
            )
        return cls(
            VerifyKey(plain["device_key"]),
            plain["federation"],
            plain["not_after_s"],
            plain["signature"],
        )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self.to_plain())

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Return the certificate in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        return cls.from_plain(codec.decode(data, max_bytes=1024))

    def _body(self) -> bytes:
        return codec.encode(
            {
                "device_key": self.device_key.raw,
                "federation": self.federation,
                "not_after_s": self.not_after_s,
            }
        )


def _labelled(label: str, payload: bytes) -> bytes:
    return label.encode() + b"\x00" + payload
