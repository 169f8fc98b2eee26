"""One vault at one local page: whether it is open, and what is under way in it.

What the page asks for is done by the functions that the commands use; here is only what a command
holds in its local variables between one question and the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chorister.client import home as homes
from chorister.client.enrol import Wanted
from chorister.client.enrolment_checks import EnrolmentPolicy
from chorister.client.home import Home
from chorister.client.statement import Challenge
from chorister.client.vault import MOVED_FILE, WITHDRAWN_FILE, Vault
from chorister.client.vault_key import KEY_FILE, uses_keyring
from chorister.client.web.jobs import Worker
from chorister.client.web.sounds import Sounds
from chorister.shared.errors import ConsentRefused, UsageError
from chorister.shared.randomness import SystemRandomness
from chorister.shared.types import Recording

VaultState = Literal["absent", "locked", "open", "moved", "unfinished", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Place:
    """What the command line said.

    Attributes:
        folder: of the vault.
        voices: where new voice files go.
        files: further voice files to listen to.
        policy: of an enrolment.
        recogniser: as of `find_recogniser`.
        base: other weights than those shipped; None for those.
        keyring: whether a new vault opens by the system's keyring.
        idle_s: the vault is locked after so long without a request that a person made.
    """

    folder: Path
    voices: Path
    files: tuple[Path, ...] = ()
    policy: EnrolmentPolicy = field(default_factory=EnrolmentPolicy)
    recogniser: str | None = None
    base: Path | None = None
    keyring: bool = False
    idle_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Take:
    """What was said once, and how good the recording of it is.

    Attributes:
        recording: at 16 kHz.
        figures: as plain JSON for the page.
    """

    recording: Recording
    figures: dict[str, Any]


@dataclass(slots=True)
class Draft:
    """An enrolment under way: in memory only, until all of it passed.

    Attributes:
        wanted: the terms.
        takes: by the prompt's number, from 0.
        challenge: that was shown last; None before.
        statement: the answer to it; None before.
    """

    wanted: Wanted
    takes: dict[int, Take] = field(default_factory=dict)
    challenge: Challenge | None = None
    statement: Take | None = None


class Studio:
    """The vault, the draft, the sounds and the worker of one page.

    Every request that changes something holds `lock`, so two windows take turns.

    Args:
        place: what the command line said.
        clock: seconds that only go forward, for the lock after idle time.
    """

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self.place = place
        self.lock = threading.RLock()
        self.worker = Worker()
        self.sounds = Sounds()
        self.draft: Draft | None = None
        self._home: Home | None = None
        self._clock = clock
        self._used_s = clock()
        self.locked_by_time = False

    def __repr__(self) -> str:
        return f"Studio({self.state()})"

    def state(self) -> VaultState:
        """Return where the vault stands now, whoever brought it there."""
        folder = self.place.folder
        has_key = (folder / KEY_FILE).exists()
        if (folder / WITHDRAWN_FILE).exists():
            return "unfinished" if has_key else "withdrawn"
        if (folder / MOVED_FILE).exists():
            return "moved"
        if not has_key:
            return "absent"
        return "locked" if self._home is None else "open"

    @property
    def home(self) -> Home:
        """The open vault, with the consent as it is now.

        Raises:
            ConsentRefused: it is locked, or not there.
        """
        # Whoever reads without a turn must not put back what `close` takes away meanwhile.
        with self.lock:
            if self._home is None:
                raise ConsentRefused(
                    "What is in a vault is seen while it is open.",
                    "a vault that is locked, or none",
                    "Open it with its passphrase.",
                )
            self._home = self._home.reread()
            return self._home

    def needs_passphrase(self) -> bool:
        """Return whether a passphrase opens the vault, or would open a new one."""
        if (self.place.folder / KEY_FILE).exists():
            return not uses_keyring(self.place.folder)
        return not self.place.keyring

    def open(self, passphrase: str | None) -> None:
        """Open the vault.

        Raises:
            VaultError, ConsentRefused, BadLedger: as `open_home`.
        """
        self._home = homes.open_home(self.place.folder, self._given(passphrase))
        self.locked_by_time = False
        self.touch()

    def vault_to_withdraw(self, passphrase: str | None) -> Vault:
        """Return the vault, however damaged, for the one thing that is always allowed.

        Args:
            passphrase: what opens it if it is not open here.

        Raises:
            VaultError: the passphrase is wrong, or the key file damaged.
        """
        if self._home is not None:
            return self._home.vault
        given = self._given(passphrase)
        return Vault.open(self.place.folder, given, SystemRandomness(), even_if_ended=True)

    def create(self, passphrase: str, again: str) -> None:
        """Make a vault, and open it.

        Raises:
            UsageError: the passphrase is too short, not the same twice, or there is a vault.
        """
        chosen = None
        if not self.place.keyring:
            if passphrase != again:
                raise UsageError("Both times the same is typed.", "two passphrases", "Try again.")
            chosen = homes.check_passphrase(passphrase)
        self._home = homes.create_home(self.place.folder, chosen)
        self.touch()

    def close(self) -> None:
        """Lock the vault: what was open of it, takes and sounds are gone from this process."""
        self.worker.forget()
        self._home = self.draft = None
        self.sounds.clear()

    def touch(self) -> None:
        """Note that a person did something."""
        self._used_s = self._clock()

    def lock_if_idle(self) -> None:
        """Lock the vault if nobody did anything for too long, since the last work ended.

        What was made meanwhile would be gone before anybody had heard it.
        """
        if self._home is None:
            return
        if self.worker.busy:
            self.touch()
            return
        if self._clock() - self._used_s >= self.place.idle_s:
            self.close()
            self.locked_by_time = True

    def stop(self) -> None:
        """Lock the vault and end the worker, also where somebody is tired of waiting for it."""
        try:
            self.worker.stop()
        finally:
            self.close()

    def _given(self, passphrase: str | None) -> str | None:
        return passphrase if self.needs_passphrase() else None
