"""Key agreement and encryption between two devices of a round (docs/protocol.md, section 5).

X25519 (RFC 7748), HKDF-SHA-256 (RFC 5869) and AES-256-GCM come from `cryptography`; this module
only says what is bound to what.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chorister.shared.errors import BadMessage

KEY_BYTES = 32
_NONCE = bytes(12)


class AgreementKey:
    """An X25519 private key of one round and one purpose; it has no readable form."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)

    def __repr__(self) -> str:
        return "AgreementKey(secret)"

    def public(self) -> bytes:
        """Return the public half, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """Return the 32 secret bytes shared with the holder of a public key.

        Raises:
            BadMessage: the peer's key is a point of low order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise BadMessage(
                "A public key is a point of large order.",
                "one of low order",
                "Leave its device out.",
            ) from None


@dataclass(frozen=True, slots=True)
class Binding:
    """What every key of a round is bound to.

    Attributes:
        terms: SHA-256 of the round terms, 32 bytes; they hold protocol version, run and round.
        context: digest of the roster (sealing) or of the view (masking), 32 bytes.
    """

    terms: bytes
    context: bytes

    def sealing_key(self, agreed: bytes, sender: bytes, recipient: bytes) -> bytes:
        """Return the AES-256-GCM key for the one message from sender to recipient.

        Args:
            agreed: X25519 agreement of the two sealing keys, 32 bytes.
            sender: identity key of the sender, 32 bytes.
            recipient: identity key of the recipient, 32 bytes.
        """
        return self._derive(b"chorister/1 share sealing", agreed, sender, recipient)

    def mask_seed(self, agreed: bytes, low: bytes, high: bytes) -> bytes:
        """Return the AES-256-CTR key of the mask that two devices share.

        Args:
            agreed: X25519 agreement of the two masking keys, 32 bytes.
            low: identity key of the device with the lower index, 32 bytes.
            high: identity key of the other, 32 bytes.
        """
        return self._derive(b"chorister/1 pairwise mask", agreed, low, high)

    def _derive(self, label: bytes, agreed: bytes, first: bytes, second: bytes) -> bytes:
        info = label + b"\x00" + self.context + first + second
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=self.terms, info=info).derive(agreed)


def seal(key: bytes, plaintext: bytes) -> bytes:
    """Return ciphertext and tag under a key that encrypts this one message.

    The nonce is constant because the key is fresh; parties, round and roster are in the key.
    """
    return AESGCM(key).encrypt(_NONCE, plaintext, None)


def open_sealed(key: bytes, sealed: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        BadMessage: it was sealed under another key or changed since.
    """
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise BadMessage(
            "Sealed shares open with the key agreed with their sender.",
            "a tag that does not fit",
            "Go on without them.",
        ) from None


def commit_seed(terms: bytes, device: bytes, seed: bytes) -> bytes:
    """Return the commitment to a self-mask seed, 32 bytes; a uniform seed stays hidden."""
    return hashlib.sha256(b"chorister/1 seed commitment\x00" + terms + device + seed).digest()


def commit_share(kind: str, roster: bytes, owner: int, holder: int, share: bytes) -> bytes:
    """Return the commitment to one share, 32 bytes.

    Args:
        kind: 'seed' or 'key'.
        roster: digest of the roster, 32 bytes.
        owner: index of the device whose secret it is.
        holder: index of the device that holds the share.
        share: 33 bytes; fewer than the threshold of them are jointly uniform, so it stays hidden.
    """
    body = roster + owner.to_bytes(2, "big") + holder.to_bytes(2, "big") + share
    return hashlib.sha256(f"chorister/1 {kind} share commitment".encode() + b"\x00" + body).digest()
