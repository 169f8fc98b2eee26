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
MAX_ITEMS = 2**17  # the longest message, the roster of 4096 devices, has a third of it


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
    _check_heads(data)
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
    if not canonical:
        raise _not_plain("another spelling")
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


def _check_heads(data: bytes) -> None:
    """Return if the bytes are CBOR of plain data; nothing is built from them yet.

    The library decodes tags into numbers of any length, fractions, patterns and dates, and small
    integers into objects of eight bytes each: what a peer sends must not reach it, or a few bytes
    could cost hours, and a few megabytes a gigabyte.

    Raises:
        BadMessage: a tag, an undefined or unbounded item, a length beyond the end, a key that is no
            string, too many items or too deep.
    """
    position, items, length = 0, 0, len(data)
    # What the innermost open list or map still waits for, and the same of those around it.
    left, keyed = 1, False
    around: list[tuple[int, bool]] = []
    while left or around:
        if not left:
            left, keyed = around.pop()
            continue
        if position >= length:
            raise _not_plain("bytes that end too early")
        kind, number = data[position] >> 5, data[position] & 31
        position += 1
        if keyed and kind != 3 and not left & 1:
            raise _not_plain("a key that is no string")
        left -= 1
        items += 1
        if kind == 6 or number > 27 or (kind == 7 and number not in _PLAIN_SIMPLE):
            raise _not_plain("a tag, or a value that is undefined or without an end")
        if number > 23:
            width = 1 << (number - 24)
            number = int.from_bytes(data[position : position + width], "big")
            position += width
        if kind in (2, 3):
            position += number
        elif kind in (4, 5):
            if number > length - position or len(around) == MAX_DEPTH:
                raise _not_plain("more items than bytes, or one nested too deeply")
            around.append((left, keyed))
            left, keyed = (number, False) if kind == 4 else (2 * number, True)
        if items > MAX_ITEMS or position > length:
            raise _not_plain(f"more than {MAX_ITEMS} items, or bytes that end too early")
    if position != length:
        raise _not_plain("bytes after the end")


_PLAIN_SIMPLE = (20, 21, 22, 25, 26, 27)  # false, true, null, floating-point numbers


def _not_plain(found: str) -> BadMessage:
    return BadMessage("A message is canonical CBOR of plain data.", found, "Drop the message.")
