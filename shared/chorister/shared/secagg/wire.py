"""What the protocol's messages have in common: one form, a bound on size, strict fields."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadMessage
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.shared.signing import Certificate, VerifyKey

SIGNATURE_BYTES = 64
SEALED_BYTES = 82
"""Two shares of 33 bytes and the 16-byte tag of AES-256-GCM."""
SHARE_BYTES = 33
MAX_MESSAGE_BYTES = {
    "advertisement": 1024,
    "roster": MAX_COHORT * 640,
    "bundle": MAX_COHORT * 192 + 1024,
    "inbox": MAX_COHORT * 192 + 1024,
    "masked": codec.MAX_MESSAGE_BYTES,
    "survivors": 1024,
    "vote": 256,
    "unmask": MAX_COHORT * 96 + 1024,
    "reveal": MAX_COHORT * 64 + 1024,
}


def verify(device: VerifyKey, label: str, payload: bytes, signature: bytes) -> None:
    """Return if the signature verifies; what verified once in this process is not checked again.

    Raises:
        BadSignature: it does not verify.
    """
    _verified(device.raw, label, payload, signature)


def verify_certificate(authority: VerifyKey, certificate: Certificate, federation: str) -> None:
    """Return if the authority signed the certificate for the federation, whatever the time is.

    Raises:
        BadSignature: it did not.
    """
    _verified_certificate(authority.raw, certificate, federation)


# A signature's validity is a pure function of its inputs, and failures are not remembered. A device
# verifies each signature once; a simulation, where n devices share one process, saves a factor n.
@lru_cache(maxsize=8192)
def _verified(raw: bytes, label: str, payload: bytes, signature: bytes) -> None:
    VerifyKey(raw).verify(label, payload, signature)


@lru_cache(maxsize=8192)
def _verified_certificate(authority: bytes, certificate: Certificate, federation: str) -> None:
    certificate.check(VerifyKey(authority), federation, certificate.not_after_s)


def forget_verified() -> None:
    """Forget which signatures verified, so that a benchmark measures a device that is alone."""
    _verified.cache_clear()
    _verified_certificate.cache_clear()


def encode(name: str, fields: list[Any]) -> bytes:
    """Return the canonical bytes of a message.

    Args:
        name: which message.
        fields: its content, plain data.
    """
    return codec.encode([name, *fields])


def decode(data: bytes, name: str, max_bytes: int | None = None) -> Any:
    """Return the fields of a message in canonical bytes.

    Args:
        data: what arrived.
        name: which message it must be.
        max_bytes: a tighter bound on its size than the message's own.

    Raises:
        BadMessage: too long, another form, or another message.
    """
    limit = MAX_MESSAGE_BYTES[name] if max_bytes is None else max_bytes
    plain = codec.decode(data, max_bytes=limit)
    expect(isinstance(plain, list) and len(plain) > 0 and plain[0] == name, f"a message '{name}'")
    return plain[1:]


def expect(holds: bool, rule: str) -> None:
    """Return if a condition on a decoded message holds, or raise BadMessage."""
    if not holds:
        raise BadMessage(f"The protocol expects {rule}.", "something else", "Drop the message.")


def expect_ascending(indices: list[int]) -> None:
    """Return if indices ascend strictly, or raise BadMessage."""
    expect(all(a < b for a, b in pairwise(indices)), "ascending order")


def is_bytes(value: Any, length: int) -> bool:
    """Return whether a decoded value is so many bytes."""
    return type(value) is bytes and len(value) == length


def is_index(value: Any) -> bool:
    """Return whether a decoded value can be an index in a roster."""
    return type(value) is int and 0 <= value < MAX_COHORT
