"""A file that only a passphrase opens: sealed in chunks, so that no cut, swap or change passes.

    "chorister-backup-1\\n"   how long the header is, 4 bytes   header: JSON, readable by anybody
    chunks of 64 KiB, each sealed under the passphrase's key, its number and whether it is the last

The key comes from Argon2id with the second recommended option of RFC 9106; the chunks follow the
STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015), with the header as associated data.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chorister.shared.errors import UsageError
from chorister.shared.randomness import Randomness

MAGIC = b"chorister-backup-1\n"
CHUNK = 65_536
LEAST_PASSPHRASE = 12
ARGON2 = {"iterations": 3, "lanes": 4, "memory_kib": 65_536}
_TAG = 16
_MAX_HEADER = 65_536
_MOST_ARGON2 = {"iterations": 16, "lanes": 16, "memory_kib": 2**20}


def seal(data: bytes, passphrase: str, header: dict[str, Any], randomness: Randomness) -> bytes:
    """Return a sealed file.

    Args:
        data: to be sealed.
        passphrase: 12 characters or more.
        header: plain JSON that everybody may read, and nobody change.
        randomness: of the salt, so that no key is used twice.

    Raises:
        UsageError: the passphrase is too short.
    """
    if len(passphrase) < LEAST_PASSPHRASE:
        raise UsageError(
            f"A backup's passphrase has {LEAST_PASSPHRASE} characters or more.",
            f"one of {len(passphrase)}", "Choose a longer one: a few words are good.",
        )  # fmt: skip
    salt = randomness.bytes(16)
    whole = json.dumps({**header, "salt": salt.hex(), **ARGON2}, sort_keys=True).encode()
    cipher = ChaCha20Poly1305(_stretch(passphrase, salt, ARGON2))
    parts = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)] or [b""]
    last = len(parts) - 1
    sealed = [cipher.encrypt(_nonce(i, i == last), part, whole) for i, part in enumerate(parts)]
    return b"".join([MAGIC, len(whole).to_bytes(4, "big"), whole, *sealed])


def read_header(sealed: bytes) -> dict[str, Any]:
    """Return what a sealed file says to everybody; it is proved only when the file is opened.

    Raises:
        UsageError: it is no such file.
    """
    return _split(sealed)[0]


def open_sealed(sealed: bytes, passphrase: str) -> bytes:
    """Return what was sealed.

    Raises:
        UsageError: no such file, another passphrase, or any bit of it was changed or cut off.
    """
    plain, header, body = _split(sealed)
    try:
        settings = {name: int(plain[name]) for name in ARGON2}
        salt = bytes.fromhex(plain["salt"])
        sound = all(1 <= value <= _MOST_ARGON2[name] for name, value in settings.items())
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound or len(salt) != 16:
        raise _no_backup()
    try:
        cipher = ChaCha20Poly1305(_stretch(passphrase, salt, settings))
    except ValueError:  # settings that do not fit each other
        raise _no_backup() from None
    size = CHUNK + _TAG
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    last = len(parts) - 1
    try:
        return b"".join(
            cipher.decrypt(_nonce(i, i == last), part, header) for i, part in enumerate(parts)
        )
    except InvalidTag:
        raise UsageError(
            "A backup opens with its passphrase, whole and unchanged.",
            "another passphrase, or a damaged file", "Try again, or take an earlier backup.",
        ) from None  # fmt: skip


def _split(sealed: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    start = len(MAGIC) + 4
    size = int.from_bytes(sealed[len(MAGIC) : start], "big")
    header, body = sealed[start : start + size], sealed[start + size :]
    try:
        if not sealed.startswith(MAGIC) or size > _MAX_HEADER or not body:
            raise ValueError
        plain = json.loads(header)
        if not isinstance(plain, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise _no_backup() from None
    return plain, header, body


def _stretch(passphrase: str, salt: bytes, settings: dict[str, int]) -> bytes:
    return Argon2id(
        salt=salt, length=32, iterations=settings["iterations"], lanes=settings["lanes"],
        memory_cost=settings["memory_kib"],
    ).derive(passphrase.encode())  # fmt: skip


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _no_backup() -> UsageError:
    return UsageError(
        "A backup is a file that `chorister server backup` wrote.", "something else",
        "Check the path.",
    )  # fmt: skip
