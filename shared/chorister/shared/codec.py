"""One byte form for every message and record: canonical CBOR (RFC 8949, section 4.2.1).

Canonical means that equal values have equal bytes, so a digest or a signature can be taken of them.
`decode` accepts only canonical bytes, so a message has exactly one spelling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import cbor2

from chorister.shared.errors import BadMessage

Plain = None | bool | int | float | str | bytes | list["Plain"] | dict[str, "Plain"]

MAX_MESSAGE_BYTES = 64 * 2**20
MAX_DEPTH = 32  # lists in lists: far more than any message has, far less than a stack holds


def encode(value: Plain) -> bytes:
    """Return the canonical CBOR of plain data (no tags, string keys only, integers of 64 bits)."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """Return the plain data in canonical CBOR.

    Raises:
        BadMessage: too long, not CBOR, a tag, too deep, or not the canonical spelling.
    """
    if len(data) > max_bytes:
        raise BadMessage(
            f"A message holds at most {max_bytes} bytes.", f"{len(data)} bytes", "Drop the message."
        )
    try:
        value = cbor2.loads(data)
        canonical = cbor2.dumps(value, canonical=True) == data
    except (
        cbor2.CBORError,
        ValueError,
        TypeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as e:
        raise BadMessage(
            "A message is canonical CBOR.",
            f"bytes that do not decode ({type(e).__name__})",
            "Drop the message.",
        ) from None
    if not canonical or not _is_plain(value):
        raise BadMessage(
            "A message is canonical CBOR of plain data.",
            "another spelling, a tagged value, or one nested too deeply",
            "Drop the message.",
        )
    return value


def digest(value: Plain) -> str:
    """Return the SHA-256 of the canonical bytes, 64 hexadecimal digits."""
    return hashlib.sha256(encode(value)).hexdigest()


def fields(value: Any, kinds: Mapping[str, type], what: str) -> dict[str, Any]:
    """Return the dictionary if it has exactly these fields of exactly these types.

    Args:
        value: decoded data.
        kinds: field name to type.
        what: what to call it in the error, e.g. 'An advertisement'.

    Raises:
        BadMessage: other fields or other types.
    """
    if (
        not isinstance(value, dict)
        or value.keys() != kinds.keys()
        or any(type(value[name]) is not kind for name, kind in kinds.items())
    ):
        raise BadMessage(
            f"{what} has the fields {', '.join(f'{k} ({t.__name__})' for k, t in kinds.items())}.",
            "other fields or types",
            "Drop the message.",
        )
    return value


def _is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    if depth == 0:
        return False
    if isinstance(value, int):
        return -(2**64) <= value < 2**64  # beyond, CBOR has tags, and numbers of any length
    if value is None or isinstance(value, float | str | bytes):
        return True
    if isinstance(value, list):
        return all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v, depth - 1) for k, v in value.items())
    return False
