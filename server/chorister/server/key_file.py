"""Ed25519 keys in files that other programs read as well: PEM, as `openssl genpkey` writes it."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from chorister.shared.console import say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.randomness import Randomness, SystemRandomness
from chorister.shared.signing import SigningKey, VerifyKey


def default_key_path() -> Path:
    """Return where a privacy officer's key lies unless a command says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "chorister" / "audit-key.pem"


def read_signing_key(path: Path) -> SigningKey:
    """Return the private key in a PEM file.

    Raises:
        UsageError: it cannot be read, holds another kind of key, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(
                "A private key's file is for its owner only.", f"{path} that others may open",
                f"chmod 600 {path}",
            )  # fmt: skip
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UsageError(
            "A key file can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            "A signing key is an Ed25519 private key in PEM, without a passphrase.",
            f"something else in {path}",
            "Make one with `openssl genpkey -algorithm ed25519 -out KEY.pem`.",
        )
    return SigningKey(key.private_bytes_raw())


def create_signing_key(path: Path, randomness: Randomness) -> SigningKey:
    """Write a new private key, for its owner only, and return it.

    Raises:
        OSError: the folder cannot be written.
    """
    key = SigningKey.generate(randomness)
    private = Ed25519PrivateKey.from_private_bytes(key.secret_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600
    )
    return key


def choose_signing_key(path: Path | None) -> SigningKey:
    """Return the private key in a file, or the officer's default one, made on first use.

    Raises:
        UsageError: as `read_signing_key`.
    """
    if path is not None:
        return read_signing_key(path)
    default = default_key_path()
    if default.exists():
        return read_signing_key(default)
    key = create_signing_key(default, SystemRandomness())
    say(f"A new key was made to sign reports with: {default}")
    return key


def read_verify_key(text: str) -> VerifyKey:
    """Return the public key that an option names: 64 hexadecimal digits, or a file with it.

    A file holds the digits, a public or a private key in PEM.

    Raises:
        UsageError: it is none.
    """
    raw = _from_hex(text)
    if raw is None and Path(text).is_file():
        raw = _from_file(Path(text))
    if raw is None:
        raise UsageError(
            "A public key is 64 hexadecimal digits, or a file with them or with PEM.",
            repr(text)[:80], "Ask the key's owner for it.",
        )  # fmt: skip
    return VerifyKey(raw)


def _from_hex(text: str) -> bytes | None:
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        return None
    return raw if len(raw) == 32 else None


def _from_file(path: Path) -> bytes | None:
    data = path.read_bytes()
    try:
        public = load_pem_public_key(data)
        return public.public_bytes_raw() if isinstance(public, Ed25519PublicKey) else None
    except ValueError:
        pass
    try:
        private = load_pem_private_key(data, password=None)
        if isinstance(private, Ed25519PrivateKey):
            return private.public_key().public_bytes_raw()
    except (ValueError, TypeError):
        pass
    return _from_hex(data.decode("ascii", errors="replace"))
