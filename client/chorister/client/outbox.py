"""Withdrawals on their way to servers: kept until somebody asks, then told to whoever asks.

A server speaks first, so a withdrawal is told when it next says hello to the device. The notice was
signed before the device's key was destroyed, and holds a pseudonym and digests. It stays: a server
that lost it hears it again, and hearing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from chorister.shared.enrolment import WithdrawalNotice
from chorister.shared.errors import ConsentRefused
from chorister.shared.files import sync_folder, write_atomically

OUTBOX = "outbox"


class Withdrawn(ConsentRefused):
    """The device's speaker withdrew; whoever asks may be told by the notice.

    Args:
        notice: signed, for the federation that asked.
    """

    def __init__(self, notice: WithdrawalNotice) -> None:
        super().__init__(
            "A voice is used only while its owner wants it.",
            f"the consent was withdrawn at {notice.withdrawal.at_s} (Unix time)",
            "Leave this device out of every round.",
        )
        self.notice = notice


def queue(folder: Path, notice: WithdrawalNotice) -> Path:
    """Keep a notice for its federation's server and return its file.

    Args:
        folder: of the vault.
        notice: signed.
    """
    path = _path(folder, notice.certificate.federation)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, notice.to_bytes())
    sync_folder(folder)
    return path


def pending(folder: Path) -> tuple[tuple[Path, WithdrawalNotice], ...]:
    """Return all notices with their files.

    Raises:
        BadMessage: a file holds something else.
    """
    paths = sorted((folder / OUTBOX).glob("withdrawal-*"))
    return tuple((path, WithdrawalNotice.from_bytes(path.read_bytes())) for path in paths)


def refuse_if_withdrawn(folder: Path, federation: str) -> None:
    """Return unless the speaker withdrew from a federation; whoever opens a device asks first.

    Args:
        folder: of the vault.
        federation: that a server asks for.

    Raises:
        Withdrawn: with what the server may be told.
    """
    path = _path(folder, federation)
    if path.exists():
        raise Withdrawn(WithdrawalNotice.from_bytes(path.read_bytes()))


def _path(folder: Path, federation: str) -> Path:
    name = hashlib.sha256(federation.encode()).hexdigest()[:16]
    return folder / OUTBOX / f"withdrawal-{name}"
