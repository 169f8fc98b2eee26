"""The vault's key file: 32 bytes, sealed under a passphrase or under a secret in the keyring.

A passphrase goes through Argon2id with the second recommended option of RFC 9106; the system's
keyring holds 32 random bytes in its place. Changing the passphrase seals the same key anew in one
atomic write. Whoever kept a copy of the old file and knows the old passphrase still has the key.

A wrong passphrase takes as long as a right one: the derivation always runs in full, and the tag of
AES-GCM is compared in constant time. Waiting after wrong ones survives a restart: the attempt is
counted on the disk before it is made. That holds up who types at this machine. Who copied the
folder does not wait, and is held up by Argon2id alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chorister.client.vault_index import NONCE_BYTES, VaultError
from chorister.shared.errors import UsageError
from chorister.shared.files import exclusive_lock, sync_folder, write_atomically
from chorister.shared.randomness import Randomness

FORMAT = 1
KEY_FILE = "vault.json"
ATTEMPTS_FILE = "attempts.json"
ARGON2 = {"iterations": 3, "lanes": 4, "memory_kib": 65_536}
FREE_ATTEMPTS = 3
LONGEST_WAIT_S = 300
KEYRING_SERVICE = "chorister vault"


def seal_key(folder: Path, key: bytes, passphrase: str | None, randomness: Randomness) -> None:
    """Write the key file; a crash leaves the old one or the new one.

    Args:
        folder: of the vault.
        key: 32 bytes.
        passphrase: what opens it from now on; None for the system's keyring.
        randomness: of salt, nonce and the keyring's secret.

    Raises:
        UsageError: an empty passphrase, or no keyring on this machine.
    """
    if passphrase == "":
        raise UsageError("A vault has a passphrase.", "an empty one", "Choose a longer one.")
    nonce = randomness.bytes(NONCE_BYTES)
    plain: dict[str, Any] = {"format": FORMAT}
    if passphrase is not None:
        salt = randomness.bytes(16)
        plain |= {"kdf": "argon2id", "salt": salt.hex(), **ARGON2}
        wrapping = stretch(passphrase, salt, ARGON2)
    else:
        account, wrapping = randomness.bytes(8).hex(), randomness.bytes(32)
        plain |= {"kdf": "keyring", "account": account}
        _keyring().set_password(KEYRING_SERVICE, account, wrapping.hex())
    sealed = AESGCM(wrapping).encrypt(nonce, key, KEY_FILE.encode())
    plain["sealed_key"] = (nonce + sealed).hex()
    before = keyring_account(folder) if (folder / KEY_FILE).exists() else None
    write_atomically(folder / KEY_FILE, json.dumps(plain, indent=1).encode())
    if before is not None:
        _forget_in_keyring(before)


def open_key(
    folder: Path, passphrase: str | None, *, clock: Callable[[], float] = time.time
) -> bytes:
    """Return a vault's 32-byte key.

    Args:
        folder: of the vault.
        passphrase: None where the system's keyring opens it.
        clock: Unix time, for the wait after wrong passphrases.

    Raises:
        VaultError: the key file is damaged; the passphrase is wrong (which a damaged file looks
            like too); too many wrong ones before; or the keyring does not have the secret.
    """
    plain = _read(folder)
    if plain["kdf"] == "keyring":
        return _unwrap(folder, plain, _from_keyring(plain["account"]))
    if passphrase is None:
        raise VaultError(
            "This vault opens with a passphrase.", "none given", "Give its passphrase."
        )
    attempts = folder / ATTEMPTS_FILE
    with exclusive_lock(folder / f".{ATTEMPTS_FILE}.lock"):
        failures = _wait_over(attempts, clock())
        # Counted before it is made: a process killed in between gains no attempt.
        _count(attempts, failures + 1, clock())
        wrapping = stretch(passphrase, plain["salt"], plain["costs"])
        try:
            key = _unwrap(folder, plain, wrapping)
        except VaultError:
            _count(attempts, failures + 1, clock())  # the wait begins now: that took a while
            raise
        attempts.unlink()
        sync_folder(folder)
        return key


def uses_keyring(folder: Path) -> bool:
    """Return whether a vault opens by the system's keyring, without a passphrase.

    Raises:
        VaultError: the key file is damaged.
    """
    return bool(_read(folder)["kdf"] == "keyring")


def forget_key(folder: Path) -> None:
    """Destroy a vault's key: the keyring's secret, then the key file. Nothing opens it again."""
    path = folder / KEY_FILE
    try:
        plain = _read(folder) if path.exists() else {"kdf": ""}
    except VaultError:
        plain = {"kdf": ""}  # damaged: nothing more to forget than the file
    if plain["kdf"] == "keyring":
        _forget_in_keyring(plain["account"])
    path.unlink(missing_ok=True)
    (folder / ATTEMPTS_FILE).unlink(missing_ok=True)
    sync_folder(folder)


def keyring_account(folder: Path) -> str | None:
    """Return where in the keyring a vault's secret lies, None if it opens with a passphrase."""
    plain = _read(folder)
    return str(plain["account"]) if plain["kdf"] == "keyring" else None


def stretch(passphrase: str, salt: bytes, costs: dict[str, int]) -> bytes:
    """Return 32 bytes of Argon2id."""
    kdf = Argon2id(
        salt=salt,
        length=32,
        iterations=costs["iterations"],
        lanes=costs["lanes"],
        memory_cost=costs["memory_kib"],
    )
    return kdf.derive(passphrase.encode())


def check_costs(plain: Any) -> dict[str, int]:
    """Return the costs of Argon2id in a file's plain part.

    Raises:
        ValueError, KeyError, TypeError: there are none, or they would fill this machine's memory.
    """
    costs = {name: int(plain[name]) for name in ARGON2}
    # A forged file may make this slow, but not fill the memory.
    if any(not 1 <= costs[name] <= 16 * ARGON2[name] for name in ARGON2):
        raise ValueError
    return costs


def _read(folder: Path) -> dict[str, Any]:
    try:
        plain = json.loads((folder / KEY_FILE).read_bytes())
        if plain["format"] != FORMAT or plain["kdf"] not in ("argon2id", "keyring"):
            raise ValueError
        found = {"kdf": plain["kdf"], "sealed": bytes.fromhex(plain["sealed_key"])}
        if plain["kdf"] == "argon2id":
            found |= {"salt": bytes.fromhex(plain["salt"]), "costs": check_costs(plain)}
        else:
            found["account"] = str(plain["account"])
    except FileNotFoundError:
        raise VaultError(
            f"A vault is a folder with {KEY_FILE}.", f"none in '{folder}'", "Enrol first."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VaultError(
            f"{KEY_FILE} has format {FORMAT} with a key under Argon2id or the system's keyring.",
            "something else",
            "Restore it from a backup, or open it with the version that wrote it.",
        ) from None
    return found


def _unwrap(folder: Path, plain: dict[str, Any], wrapping: bytes) -> bytes:
    sealed = plain["sealed"]
    try:
        return AESGCM(wrapping).decrypt(
            sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], KEY_FILE.encode()
        )
    except (InvalidTag, ValueError):
        raise VaultError(
            "The passphrase opens the vault.",
            f"a wrong one for '{folder}', or a damaged {KEY_FILE}",
            "Try again; without the passphrase nobody can open it.",
        ) from None


def _wait_over(path: Path, now_s: float) -> int:
    """Return how many attempts failed before, if the wait after them is over."""
    try:
        plain = json.loads(path.read_bytes())
        failures, last_s = int(plain["failures"]), float(plain["last_s"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        failures, last_s = FREE_ATTEMPTS, now_s  # unreadable: wait, then count on from there
        _count(path, failures, now_s)
    if failures < FREE_ATTEMPTS:
        return failures
    doublings = min(failures - FREE_ATTEMPTS, LONGEST_WAIT_S)  # whatever somebody wrote there
    wait_s = min(2**doublings, LONGEST_WAIT_S)
    if not last_s <= now_s:  # the clock was set back, or it is no number: the wait begins anew
        _count(path, failures, now_s)
        last_s = now_s
    left_s = last_s + wait_s - now_s
    if left_s > 0:
        raise VaultError(
            f"After {FREE_ATTEMPTS} wrong passphrases one waits before the next.",
            f"{failures} wrong ones, {left_s:.0f} s to wait",
            "Try again then; nothing was tried now.",
        )
    return failures


def _count(path: Path, failures: int, now_s: float) -> None:
    write_atomically(path, json.dumps({"failures": failures, "last_s": now_s}).encode())


def _from_keyring(account: str) -> bytes:
    found = _keyring().get_password(KEYRING_SERVICE, account)
    try:
        wrapping = bytes.fromhex(found or "")
    except ValueError:
        wrapping = b""
    if len(wrapping) != 32:
        raise VaultError(
            "The system's keyring holds this vault's secret.",
            f"none under '{KEYRING_SERVICE}', account {account}",
            "Log in as the user who made the vault; without the secret nobody can open it.",
        )
    return wrapping


def _forget_in_keyring(account: str) -> None:
    from keyring.errors import PasswordDeleteError

    ring = _keyring()
    try:
        ring.delete_password(KEYRING_SERVICE, account)
    except PasswordDeleteError:
        if ring.get_password(KEYRING_SERVICE, account) is not None:
            raise


def _keyring() -> Any:
    """Return the package `keyring` with a usable backend."""
    try:
        import keyring
        from keyring.backends.fail import Keyring as NoKeyring
    except ImportError:
        raise UsageError(
            "The system's keyring is used through the package keyring.",
            "it is not installed",
            "Install chorister[keyring], or use a passphrase.",
        ) from None
    if isinstance(keyring.get_keyring(), NoKeyring):
        raise UsageError(
            "This machine has a keyring that is unlocked.", "none", "Use a passphrase."
        )
    return keyring
