"""Sealed voices: a voice file that opens with its owner's vault alone, and not after the consent.

    magic | length | head: voice, vault, consent, expiry, pseudonym | AES-256-GCM of voice.onnx

Each file has a key of its own, in the vault, with the consent that it was sealed under. Without
that key every copy of the file is noise: deleting it is what a withdrawal does to copies that it
cannot find. The file's head is part of what is authenticated. A renewed consent is written beside
the key, not into the file.

Plain files are kept in the same list, so that a withdrawal deletes those too where they still lie.
A copy of a plain file cannot be recalled.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chorister.client import home as homes
from chorister.client.consent import Permit, Purpose
from chorister.client.home import Home
from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadWeights, ConsentRefused, UsageError
from chorister.shared.files import write_atomically
from chorister.shared.randomness import Randomness, SystemRandomness

if TYPE_CHECKING:
    from chorister.client.stream_voice import LiveVoice
    from chorister.client.voice import Voice

MAGIC = b"chorister sealed voice 1\n"
SUFFIX = ".voice"
_ITEM = "voice-{}"
VOICE_KIND = "voice"
_VOICE = re.compile(r"[0-9a-f]{16}")
_HEAD = {
    "voice": str, "vault": str, "consent": str, "expires_s": int, "target": str, "nonce": bytes,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """A voice file that was written, as the vault lists it.

    Attributes:
        voice: its name, 16 hexadecimal digits.
        path: where it was written.
        sha256: of the file; empty for a plain one that was never finished.
        consent_sha256: the consent that it is used under now.
        expires_s: Unix time at which that ends.
        key: 32 bytes; empty for a plain file.
    """

    voice: str
    path: str
    sha256: str
    consent_sha256: str
    expires_s: int
    key: bytes

    def __repr__(self) -> str:
        return f"Exported({self.voice}, {'plain' if self.plain else 'sealed'})"

    @property
    def plain(self) -> bool:
        """Whether anybody with a copy can use it."""
        return not self.key


@dataclass(frozen=True, slots=True)
class Head:
    """What a sealed file says about itself to anybody.

    Attributes:
        voice: its name.
        vault: id of the vault that opens it.
        consent_sha256: the consent that it was sealed under.
        expires_s: when that ends, Unix time.
        target: pseudonym of the speaker.
    """

    voice: str
    vault: str
    consent_sha256: str
    expires_s: int
    target: str


def seal_voice(
    home: Home, data: bytes, path: Path, permit: Permit, randomness: Randomness | None = None
) -> Exported:
    """Write a voice so that this vault alone opens it, and list it.

    Args:
        home: of the speaker.
        data: a voice file's content, as `build_voice` makes it.
        path: where to; replaced if it exists.
        permit: for 'conversion'.
        randomness: of key, name and nonce; the operating system's if None.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
        UsageError: the file cannot be written.
    """
    permit.require("conversion", home.now_s())
    source = randomness or SystemRandomness()
    voice, key, nonce = source.bytes(8).hex(), source.bytes(32), source.bytes(12)
    head = codec.encode(
        {
            "voice": voice,
            "vault": home.vault.id,
            "consent": permit.consent_sha256,
            "expires_s": permit.until_s,
            "target": home.device.name,
            "nonce": nonce,
        }
    )
    front = MAGIC + len(head).to_bytes(4, "big") + head
    sealed = front + AESGCM(key).encrypt(nonce, data, front)
    sha256 = hashlib.sha256(sealed).hexdigest()
    made = Exported(
        voice, str(path.absolute()), sha256, permit.consent_sha256, permit.until_s, key
    )  # fmt: skip
    # The key first: a file whose key a crash lost would be noise for ever.
    _list(home, made)
    _write(path, sealed)
    home.ledger.append("export", voice=sha256, consent=permit.consent_sha256, form="sealed")
    return made


def announce_plain(home: Home, path: Path, permit: Permit) -> Exported:
    """List a plain voice file before it is written: a crash leaves none that nobody lists.

    Args:
        home: of the speaker.
        path: of the file.
        permit: for 'plain_export'.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
    """
    permit.require("plain_export", home.now_s())
    voice = SystemRandomness().bytes(8).hex()
    made = Exported(
        voice, str(path.absolute()), "", permit.consent_sha256, permit.until_s, b""
    )  # fmt: skip
    _list(home, made)
    return made


def plain_is_written(home: Home, announced: Exported, sha256: str) -> Exported:
    """Note the digest of an announced plain file, in the list and in the ledger."""
    made = replace(announced, sha256=sha256)
    _list(home, made)
    home.ledger.append(
        "export", voice=sha256, consent=made.consent_sha256, form="plain, cannot be recalled"
    )
    return made


def exported(home: Home) -> tuple[Exported, ...]:
    """Return every voice file that was written from this vault."""
    names = [item.name for item in home.vault.items() if item.kind == VOICE_KIND]
    return tuple(exported_from(codec.decode(home.vault.get(name))) for name in names)


def carry_over(home: Home) -> None:
    """Let voices that were made under a consent be used under the one that took its place.

    A new enrolment names one only where it allows the same controller no more than before.

    Args:
        home: with the consent that renewed or narrowed another.
    """
    record = home.consent
    if record is None or record.replaces is None:
        return
    for made in exported(home):
        if made.consent_sha256 == record.replaces:
            _list(home, replace(made, consent_sha256=record.sha256, expires_s=record.expires_s))


def is_sealed(path: Path) -> bool:
    """Return whether a file says that it is a sealed voice; a missing one does not."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_head(path: Path) -> Head:
    """Return what a sealed voice says about itself; nothing of it is verified yet.

    Raises:
        BadWeights: no sealed voice, or cut off.
    """
    return _parse(path)[0]


def open_sealed(
    home: Home, path: Path, *, purpose: Purpose = "conversion", threads: int = 1
) -> Voice:
    """Return a sealed voice, ready to speak with; it is in the clear in memory only.

    Args:
        home: of the speaker.
        path: of the file.
        purpose: what it is wanted for.
        threads: for onnxruntime.

    Raises:
        ConsentRefused: the consent does not cover it, has ended or was withdrawn, the voice is
            another vault's, or its key was destroyed. The refusal is in the ledger.
        BadWeights: no sealed voice, cut off or altered.
    """
    from chorister.client.voice import Voice

    return Voice(unsealed(home, path, purpose=purpose), path.name, threads=threads)


def unsealed(home: Home, path: Path, *, purpose: Purpose = "conversion") -> bytes:
    """Return the content of a sealed voice file, which is not to be written anywhere.

    Args:
        home: of the speaker.
        path: of the file.
        purpose: what it is wanted for.

    Raises:
        ConsentRefused, BadWeights: as `open_sealed`.
    """
    return _unsealed(home, path, purpose)[0]


def _unsealed(home: Home, path: Path, purpose: Purpose) -> tuple[bytes, Permit]:
    head, nonce, front, sealed = _parse(path)
    home.require_in_use(purpose)
    item = _ITEM.format(head.voice)
    reason = None
    if head.vault != home.vault.id:
        reason = f"a voice of the vault {head.vault}, not of {home.vault.id}"
    elif not home.vault.has(item):
        reason = "a voice whose key is no longer in the vault"
    if reason is not None:
        raise _refused(home, purpose, reason)
    permit = home.permit(purpose)
    carry_over(home)  # a renewal may have been interrupted before it came to this voice
    made = exported_from(codec.decode(home.vault.get(item)))
    if made.consent_sha256 != permit.consent_sha256:
        raise _refused(home, purpose, "a voice under a consent that another one took the place of")
    if home.now_s() >= made.expires_s:
        raise _refused(home, purpose, f"a voice that expired at {made.expires_s} (Unix time)")
    try:
        data = AESGCM(made.key).decrypt(nonce, sealed, front)
    except (InvalidTag, ValueError):
        raise BadWeights(
            "A sealed voice is as it was written.",
            f"{path.name}, cut off or altered",
            "Copy it again from where it came, or export it again.",
        ) from None
    home.ledger.append(
        "conversion", voice=made.sha256, consent=permit.consent_sha256, purpose=purpose
    )
    return data, permit


def open_any_voice(
    path: Path,
    options: argparse.Namespace,
    *,
    purpose: Purpose = "conversion",
    home: Home | None = None,
    threads: int = 1,
) -> Voice:
    """Return the voice in a file: a sealed one by the vault, a plain one as it is.

    Args:
        path: of the file.
        options: of a command with `home.add_vault_options`.
        purpose: what a sealed voice is wanted for.
        home: a vault that is open already; used where it is the one that the options name.
        threads: for onnxruntime.

    Raises:
        ConsentRefused, BadWeights: as `open_sealed`.
        VaultError: the vault cannot be opened.
    """
    if is_sealed(path):
        opened = _same_vault(home, options) or homes.open_from(options)
        return open_sealed(opened, path, purpose=purpose, threads=threads)
    from chorister.client.voice import open_voice

    return open_voice(path, threads=threads)


def open_any_live_voice(
    path: Path,
    options: argparse.Namespace,
    *,
    purpose: Purpose = "conversion",
    home: Home | None = None,
    threads: int = 1,
) -> tuple[LiveVoice, Callable[[], None]]:
    """Return the live voice in a file, and what is called now and again while it speaks.

    That call returns while the voice may still be used; it raises ConsentRefused or VaultError once
    its consent ended or was withdrawn, or its vault was moved. A plain voice may always be used.
    Arguments and errors as of `open_any_voice`.
    """
    from chorister.client.stream_voice import LiveVoice, open_live_voice

    if is_sealed(path):
        opened = _same_vault(home, options) or homes.open_from(options)
        data, permit = _unsealed(opened, path, purpose)
        return LiveVoice(data, path.name, threads=threads), lambda: _still(opened, permit)
    return open_live_voice(path, threads=threads), lambda: None


def _same_vault(home: Home | None, options: argparse.Namespace) -> Home | None:
    """Return an open home if it is the one that the options name: nobody is asked twice."""
    named = homes.vault_folder(options).resolve()
    return home if home is not None and home.folder.resolve() == named else None


def _still(home: Home, permit: Permit) -> None:
    """Return while a permit that was granted still holds; its end is in the ledger."""
    home.require_in_use(permit.purpose)
    if home.now_s() >= permit.until_s:
        reason = f"the consent expired at {permit.until_s} (Unix time)"
        home.ledger.append("refusal", purpose=permit.purpose, reason=reason)
        raise ConsentRefused(
            "A voice speaks as long as its owner's consent lasts.",
            reason,
            "Renew it with `chorister consent renew`, and begin again.",
        )


def _refused(home: Home, purpose: str, reason: str) -> ConsentRefused:
    home.ledger.append("refusal", purpose=purpose, reason=reason)
    return ConsentRefused(
        "A sealed voice opens with its own vault, under the consent that it was made for.",
        reason,
        "Name its vault with --vault, or make the voice again with `chorister personalise`.",
    )


def _list(home: Home, made: Exported) -> None:
    plain = {name: getattr(made, name) for name in Exported.__dataclass_fields__}
    home.vault.put(_ITEM.format(made.voice), codec.encode(plain), VOICE_KIND)


def exported_from(plain: Any) -> Exported:
    """Return a voice file as the vault lists it, from what was decoded.

    Raises:
        BadMessage: other fields.
    """
    kinds = {
        "voice": str, "path": str, "sha256": str, "consent_sha256": str, "expires_s": int,
        "key": bytes,
    }  # fmt: skip
    return Exported(**codec.fields(plain, kinds, "A listed voice"))


def _parse(path: Path) -> tuple[Head, bytes, bytes, bytes]:
    """Return head, nonce, what is authenticated beside the content, and the sealed content."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadWeights(
            "The voice file must exist and be readable.",
            f"{path}, {error.strerror or error}",
            "Check the path; `chorister personalise` writes one.",
        ) from error
    body = data.removeprefix(MAGIC)
    end = len(MAGIC) + 4 + int.from_bytes(body[:4], "big")
    try:
        if len(body) == len(data):
            raise ValueError  # another file's beginning
        head = codec.decode(data[len(MAGIC) + 4 : end], max_bytes=4096)
        fields = codec.fields(head, _HEAD, "A sealed voice's head")
        if not _VOICE.fullmatch(fields["voice"]):
            raise ValueError
    except (ValueError, BadMessage):
        raise BadWeights(
            "A sealed voice is a file that `chorister personalise` wrote.",
            f"{path.name}, which is something else or cut off",
            "Copy it again from where it came, or export it again.",
        ) from None
    found = Head(
        fields["voice"], fields["vault"], fields["consent"], fields["expires_s"], fields["target"]
    )
    return found, fields["nonce"], data[:end], data[end:]


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(
            "The voice file must be writable.",
            f"{path}: {error.strerror or error}",
            "Create the folder, free some space or choose another place.",
        ) from error
