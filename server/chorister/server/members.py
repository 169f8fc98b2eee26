"""Whom the enrolment authority admitted, as its signed files say; the authority is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chorister.server.revocations import RevocationList, read_revocations
from chorister.server.server_folder import ServerFolder
from chorister.shared.errors import BadMessage, BadSignature, UsageError
from chorister.shared.files import exclusive_lock, write_atomically
from chorister.shared.node_key import NodeAdmission
from chorister.shared.signing import VerifyKey

SUFFIX = ".admission"


@dataclass(frozen=True, slots=True)
class Membership:
    """Who may connect at one moment.

    Attributes:
        admitted: device to admission, in force and not revoked.
        revoked: pseudonyms that the authority revoked.
        unfit: file names in the members' folder that admit nobody, with the reason.
    """

    admitted: dict[str, NodeAdmission]
    revoked: frozenset[str]
    unfit: dict[str, str]


def admit(folder: ServerFolder, data: bytes, federation: str, now_s: int) -> NodeAdmission:
    """Keep an admission by the pinned authority; a device's later one replaces an earlier one.

    Raises:
        BadMessage, BadSignature: it is none by this authority for this federation, or it ended.
        UsageError: the device was revoked, a later admission of it is here, or the one that is
            here cannot be read.
    """
    authority = folder.server_settings().authority_key
    admission = NodeAdmission.from_bytes(data)
    admission.check(authority, federation, now_s)
    folder.members.mkdir(mode=0o700, parents=True, exist_ok=True)
    with exclusive_lock(folder.members_lock):  # nobody writes between the look and the change
        if admission.device_id in revoked_devices(folder, authority, federation):
            raise UsageError(
                "A revoked device is admitted no more.", f"device {admission.device_id}",
                "It enrols with a new key, in a new vault.",
            )  # fmt: skip
        path = folder.members / f"{_named(admission)}{SUFFIX}"
        known = _genuine(path, authority, federation)
        # Of two of one second none is the newer: either could replace the other again and again.
        if known is not None and known != admission and admission.issued_s <= known.issued_s:
            raise UsageError(
                "A device's admission replaces an older one.",
                f"one of {admission.issued_s}, where that of {known.issued_s} is known (Unix time)",
                "Use the newest that the authority wrote for this device, or have it write one.",
            )
        write_atomically(path, data)
    return admission


def take_revocations(
    folder: ServerFolder, data: bytes, authority: VerifyKey, federation: str
) -> RevocationList:
    """Keep the authority's list of revoked devices, unless the one that is here is newer.

    Raises:
        BadMessage, BadSignature: it is not the authority's list for this federation.
        UsageError: it is older than the one that is here.
    """
    found = RevocationList.from_bytes(data)
    found.check(authority, federation)
    with exclusive_lock(folder.members_lock):
        if folder.revoked_file.exists():
            known = RevocationList.from_bytes(folder.revoked_file.read_bytes())
            known.check(authority, federation)
            if found.issued_s < known.issued_s:
                raise UsageError(
                    "A list of revoked devices replaces an older one.",
                    f"one of {found.issued_s}, where that of {known.issued_s} is known (Unix time)",
                    "Ask the authority for a new list: chorister authority revoked.",
                )
        write_atomically(folder.revoked_file, data)
    return found


def revoked_devices(folder: ServerFolder, authority: VerifyKey, federation: str) -> frozenset[str]:
    """Return who was revoked; nobody while the authority has given no list.

    Raises:
        BadMessage, BadSignature: the file was altered: then no round begins.
    """
    if not folder.revoked_file.exists():
        return frozenset()
    return read_revocations(folder.revoked_file, authority, federation)


def members(folder: ServerFolder, federation: str, now_s: int) -> Membership:
    """Return who may connect now.

    Raises:
        BadMessage, BadSignature: the list of revoked devices was altered.
    """
    authority = folder.server_settings().authority_key
    revoked = revoked_devices(folder, authority, federation)
    admitted, unfit = {}, {}
    for path in sorted(folder.members.glob(f"*{SUFFIX}")):
        try:
            admission = _read(path)
            admission.check(authority, federation, min(now_s, admission.not_after_s))
        except (BadMessage, BadSignature) as error:
            unfit[path.name] = error.found
            continue
        except OSError as error:
            unfit[path.name] = error.strerror or "it cannot be read"
            continue
        if now_s > admission.not_after_s:
            unfit[path.name] = "one that has ended"
            continue
        if admission.device_id not in revoked:
            admitted[admission.device_id] = admission
    return Membership(admitted, revoked, unfit)


def _genuine(path: Path, authority: VerifyKey, federation: str) -> NodeAdmission | None:
    """Return the admission in a file, ended or not; None where there is none of the authority's."""
    try:
        found = _read(path)
        found.check(authority, federation, found.not_after_s)
    except (BadMessage, BadSignature, FileNotFoundError):
        return None
    except OSError as error:
        raise UsageError(
            "A device's admission is a file that can be read.", f"{path}: {error.strerror}",
            "Correct its permissions, or move away what is there; then take it in again.",
        ) from None  # fmt: skip
    return found


def _read(path: Path) -> NodeAdmission:
    return NodeAdmission.from_bytes(path.read_bytes())


def _named(admission: NodeAdmission) -> str:
    # The authority's word, but a file name all the same.
    if not (len(admission.device_id) == 16 and set(admission.device_id) <= set("0123456789abcdef")):
        raise BadMessage(
            "A device is named by 16 hexadecimal digits.", repr(admission.device_id)[:40],
            "Ask the authority for another admission.",
        )  # fmt: skip
    return admission.device_id
