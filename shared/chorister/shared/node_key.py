"""The key by which Flower knows a device's connection, and the authority's word for it.

Flower signs requests with an EC key of its own kind; it admits a connection and nothing more. Who
takes part in a round is said by the device's Ed25519 key and certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.randomness import Randomness
from chorister.shared.signing import SigningKey, VerifyKey

CURVE = ec.SECP384R1()
# Of the curve's group; SP 800-186, 3.2.1.4.
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
SECRET_BYTES = 48
PUBLIC_BYTES = 49  # a compressed point: it has one spelling
ADMISSION = "chorister/1 node admission"
MAX_ADMISSION_BYTES = 1024


class NodeKey:
    """A private P-384 key; it has no readable form but `secret_bytes`."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        try:
            if len(secret) != SECRET_BYTES:
                raise ValueError
            self._key = ec.derive_private_key(int.from_bytes(secret, "big"), CURVE)
        except ValueError:
            raise BadMessage(
                f"A connection's key is a number of {SECRET_BYTES} bytes on P-384.",
                "something else",
                "Ask the authority for a new token, and request membership again.",
            ) from None

    @classmethod
    def generate(cls, randomness: Randomness) -> NodeKey:
        """Return a new key.

        Source: FIPS 186-5, A.2.1: 8 bytes more than the order has, reduced.
        """
        drawn = int.from_bytes(randomness.bytes(SECRET_BYTES + 8), "big")
        return cls((drawn % (ORDER - 1) + 1).to_bytes(SECRET_BYTES, "big"))

    def __repr__(self) -> str:
        return "NodeKey(secret)"

    def secret_bytes(self) -> bytes:
        """Return the 48 secret bytes, for a vault and nothing else."""
        return self._key.private_numbers().private_value.to_bytes(SECRET_BYTES, "big")

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key as Flower signs with it."""
        return self._key

    def public_bytes(self) -> bytes:
        """Return the public half, 49 bytes."""
        return self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def node_public(raw: bytes) -> EllipticCurvePublicKey:
    """Return a public key from its 49 bytes.

    Raises:
        BadMessage: they are no point of the curve.
    """
    try:
        if len(raw) != PUBLIC_BYTES:
            raise ValueError
        return EllipticCurvePublicKey.from_encoded_point(CURVE, raw)
    except ValueError:
        raise BadMessage(
            f"A connection's public key is a point of P-384 in {PUBLIC_BYTES} bytes.",
            f"{len(raw)} bytes that are none",
            "Drop the message.",
        ) from None


@dataclass(frozen=True, slots=True)
class NodeAdmission:
    """The authority's word that a connection is a certified device's; the server registers it.

    Attributes:
        federation: that it is admitted to.
        device_id: pseudonym of the device.
        node_key: its connection's public key, 49 bytes.
        issued_s: when the authority answered the device's request, Unix time: a server takes none
            that is older than the one it has.
        not_after_s: when the device's certificate ends, Unix time.
        signature: by the authority, over the other fields.
    """

    federation: str
    device_id: str
    node_key: bytes
    issued_s: int
    not_after_s: int
    signature: bytes

    @classmethod
    def sign(
        cls, authority: SigningKey, federation: str, device_id: str, node_key: bytes, *,
        issued_s: int, not_after_s: int,
    ) -> NodeAdmission:  # fmt: skip
        """Return a signed admission.

        Raises:
            BadMessage: the key is none.
        """
        node_public(node_key)
        unsigned = cls(federation, device_id, node_key, issued_s, not_after_s, b"")
        return replace(unsigned, signature=authority.sign(ADMISSION, unsigned._body()))

    def check(self, authority: VerifyKey, federation: str, now_s: int) -> None:
        """Return if the authority signed this for the federation and it has not ended.

        Raises:
            BadSignature: another signer, another federation, or ended.
            BadMessage: the key is none.
        """
        authority.verify(ADMISSION, self._body(), self.signature)
        node_public(self.node_key)
        if self.federation != federation:
            raise BadSignature(
                f"An admission is to '{federation}'.", f"one to '{self.federation[:64]}'",
                "Ask this federation's authority.",
            )  # fmt: skip
        if now_s > self.not_after_s:
            raise BadSignature(
                "An admission has not ended.", f"one that ended at {self.not_after_s} (Unix time)",
                "Ask the enrolment authority for a new one.",
            )  # fmt: skip

    def ssh_line(self) -> str:
        """Return the key as `flwr supernode register` reads it, with the pseudonym as comment."""
        line = node_public(self.node_key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return f"{line.decode()} {self.device_id}\n"

    def pem(self) -> bytes:
        """Return the key as Flower's Control API takes it."""
        return node_public(self.node_key).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self._plain() | {"signature": self.signature})

    @classmethod
    def from_bytes(cls, data: bytes) -> NodeAdmission:
        """Return the admission in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        kinds: dict[str, type] = {
            "federation": str, "device_id": str, "node_key": bytes, "issued_s": int,
            "not_after_s": int, "signature": bytes,
        }  # fmt: skip
        plain = codec.decode(data, max_bytes=MAX_ADMISSION_BYTES)
        return cls(**codec.fields(plain, kinds, "A node admission"))

    def _plain(self) -> dict[str, Any]:
        return {
            "federation": self.federation,
            "device_id": self.device_id,
            "node_key": self.node_key,
            "issued_s": self.issued_s,
            "not_after_s": self.not_after_s,
        }

    def _body(self) -> bytes:
        return codec.encode(self._plain())
