"""A device's secrets between the messages of a round: sealed on disk, gone when the round is.

Each message of a round may run in a fresh process, and Flower's own state is neither erased nor
kept over a restart. So the party's state is sealed (AES-256-GCM) under a key that only the device
has. What may happen once only (revealing shares) is marked on disk before it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chorister.shared.errors import ProtocolViolation
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import Randomness

# Each leaves a mark and some lines in the ledger, and costs no budget where the server aborts it.
MOST_ROUNDS_A_DAY = 300
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class RoundStore:
    """Sealed states of the rounds that are under way.

    Attributes:
        folder: where they lie; it exists.
        key: 32 bytes that never leave the device.
        most_a_day: rounds that may begin within 24 hours; None for no end, as in simulations.
        now_s: Unix time.
    """

    folder: Path
    key: bytes
    most_a_day: int | None = None
    now_s: Callable[[], int] = system_clock

    def __repr__(self) -> str:
        return f"RoundStore({self.folder.name})"

    def begin(self, round_id: str, state: bytes, randomness: Randomness) -> None:
        """Store the first state of a round, and drop what other rounds left behind.

        A device takes part in one round at a time: an earlier one that never came to its end failed
        closed, and its secrets go now.

        Raises:
            ProtocolViolation: this device took part in that round already, or in so many within
                24 hours that the server may be filling its disk.
        """
        mark = self._mark(round_id, "begun")
        if mark.exists():
            raise ProtocolViolation(
                "A device takes part in a round once.",
                "a second invitation to the same round",
                "The server must give each round a new id.",
            )
        self._refuse_too_many()
        for old in self.folder.glob("*.sealed"):
            old.unlink()
        # In the file: a copy of the folder has a new time of its own.
        write_atomically(mark, b"%d" % self.now_s())
        self.keep(round_id, "advertise", state, randomness)

    def keep(self, round_id: str, stage: str, state: bytes, randomness: Randomness) -> None:
        """Replace the state of a round after a stage."""
        nonce = randomness.bytes(12)
        sealed = nonce + AESGCM(self.key).encrypt(nonce, state, _bound(round_id, stage))
        write_atomically(self._sealed(round_id), stage.encode() + b"\n" + sealed)

    def take(self, round_id: str, after: str) -> bytes:
        """Return the state that a stage left.

        Args:
            round_id: the round.
            after: the stage that must have come last.

        Raises:
            ProtocolViolation: another stage came last, or the state is lost or damaged.
        """
        try:
            stage, _, sealed = self._sealed(round_id).read_bytes().partition(b"\n")
        except FileNotFoundError:
            raise ProtocolViolation(
                "A device answers for rounds that it has secrets for.",
                "none for this round",
                "The round goes on without this device.",
            ) from None
        if stage != after.encode():
            raise ProtocolViolation(
                f"This exchange follows '{after}'.",
                f"'{stage.decode(errors='replace')[:20]}' came last",
                "The round goes on without this device.",
            )
        try:
            return AESGCM(self.key).decrypt(sealed[:12], sealed[12:], _bound(round_id, after))
        except (InvalidTag, ValueError):
            raise ProtocolViolation(
                "A round's sealed state opens with this device's key.",
                "one that does not",
                "The round goes on without this device.",
            ) from None

    def end(self, round_id: str) -> None:
        """Mark that the device has revealed in this round, then forget its secrets.

        Raises:
            ProtocolViolation: it has revealed before.
        """
        mark = self._mark(round_id, "revealed")
        if mark.exists():
            raise ProtocolViolation(
                "A device reveals shares once a round.", "a second request", "Nothing was revealed."
            )
        write_atomically(mark, b"")
        self.forget(round_id)

    def forget(self, round_id: str) -> None:
        """Delete the secrets of a round; it goes on without this device."""
        self._sealed(round_id).unlink(missing_ok=True)

    def _refuse_too_many(self) -> None:
        if self.most_a_day is None:
            return
        now_s = self.now_s()
        # One from further ahead was made while the clock was wrong, and is not waited for.
        begun = sum(
            now_s - _DAY_S < _begun_s(mark) <= now_s + _DAY_S
            for mark in self.folder.glob("*.begun")
        )
        if begun >= self.most_a_day:
            raise ProtocolViolation(
                f"A device begins at most {self.most_a_day} rounds in 24 hours.",
                f"{begun} that began",
                "Ask the operator why so many rounds are begun; this device goes on tomorrow.",
            )

    def _sealed(self, round_id: str) -> Path:
        return self.folder / f"{_name(round_id)}.sealed"

    def _mark(self, round_id: str, what: str) -> Path:
        return self.folder / f"{_name(round_id)}.{what}"


def _begun_s(mark: Path) -> int:
    """Return the Unix time in a mark, 0 in one that an earlier version left without."""
    try:
        return int(mark.read_bytes())
    except ValueError:
        return 0


def _name(round_id: str) -> str:
    return hashlib.sha256(round_id.encode()).hexdigest()[:24]


def _bound(round_id: str, stage: str) -> bytes:
    return b"chorister/1 round state\x00" + round_id.encode() + b"\x00" + stage.encode()
