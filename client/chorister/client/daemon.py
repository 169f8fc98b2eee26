"""The loop of a device that takes part: wait, connect, answer, come back after whatever happens.

    waiting      it may not train now: battery, somebody at the machine, hours, pause, consent
    connected    the server knows that it is there, and asks
    away         the server cannot be reached; it tries again, less and less often

A round that has begun is finished even if the conditions end meanwhile: leaving it would cost the
speaker's budget, and the others their round, for nothing. No server keeps a device from looking at
them for longer than an hour with that. Whatever ends this process, what is on
the disk is enough to go on, or to leave the round with nothing revealed twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chorister.client.bundle_guard import BadBundle
from chorister.client.refusals import MOST_A_DAY, note_refusal
from chorister.shared.errors import BadMessage, ChoristerError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import LedgerFile

STATUS_FILE = "status.json"
PAUSE_FILE = "paused"
LOCK_FILE = ".daemon.lock"  # held by whoever takes part
LEAST_BACK_OFF_S = 2.0
MOST_BACK_OFF_S = 300.0
# Between two questions to the server: quickly after a message, then less and less often, since a
# question in vain costs the server as much as one with an answer (docs/scale.md).
QUICK_S = 0.5
SLOW_S = 3.0  # at most, while a round is under way
IDLE_S = 10.0  # at most, otherwise
_GROWTH = 1.3
_ROUND_FOLLOWS_S = 60.0
# A server chooses how long it says that a round takes, and when it begins the next: beyond this a
# pause, the conditions and a new invitation come first. Five stages of 600 s end within it.
MOST_ROUND_S = 3600.0
_SLEPT_S = 5.0
_BEAT_S = 10.0
_END = "query.reveal"
_FIRST = "query.advertise"
log = logging.getLogger("chorister.client")


class Envelope(Protocol):
    """What a daemon has to know of a message."""

    @property
    def exchange(self) -> str:
        """The message type."""

    @property
    def round_id(self) -> str:
        """The round, '' outside of one."""

    @property
    def ends_s(self) -> float:
        """Unix time at which nobody waits for an answer any more."""


class Node(Protocol):
    """A connection, as `chorister.client.supernode` makes it."""

    def pull(self) -> Envelope | None:
        """Return a message that waits."""

    def answer(self, letter: Envelope, federation: str, clock: Callable[[], float]) -> str:
        """Answer it, and return the word that the server was told."""


@dataclass(slots=True)
class Clocks:
    """Where time comes from, and where it goes; a test brings its own.

    Attributes:
        monotonic: seconds that do not count a suspended machine.
        wall: Unix time.
        slept: seconds that the machine has been suspended in all.
        wait: sleeps, at most so many seconds, until the event is set.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    slept: Callable[[], float] = lambda: 0.0
    wait: Callable[[threading.Event, float], object] = lambda over, s: over.wait(s)


@dataclass(slots=True)
class Daemon:
    """A device that takes part until it is told to stop.

    Attributes:
        federation: its name.
        folder: of this device's files in it.
        connect: gives a connection.
        reason_to_wait: why this device may not train now, None if it may.
        ledger: opens the ledger, for what is refused before a device is opened.
        moved: whether the server is to be dialled anew, since there is another invitation.
        ended: why it is over for good (a withdrawal that the server was told), None if it is not.
        over: set by whoever wants it to end.
        check_every_s: between two looks at the conditions.
        clocks: of this machine.
        on_change: told of each state and its reason, for a person who watches.
    """

    federation: str
    folder: Path
    connect: Callable[[], AbstractContextManager[Node]]
    reason_to_wait: Callable[[], str | None]
    ledger: Callable[[], LedgerFile]
    moved: Callable[[], bool] = lambda: False
    ended: Callable[[str, str], str | None] = lambda exchange, word: None
    over: threading.Event = field(default_factory=threading.Event)
    check_every_s: float = 30.0
    clocks: Clocks = field(default_factory=Clocks)
    on_change: Callable[[str, str], None] = lambda state, reason: None
    _state: tuple[str, str] = ("", "")
    _since_s: float = 0.0
    _until: float = 0.0  # monotonic: a round under way is waited for until then
    _written: tuple[str, str] = ("", "")
    _written_at: float = 0.0

    def run(self) -> str:
        """Take part until `over` is set, and return why it ended."""
        back_off_s = LEAST_BACK_OFF_S
        while not self.over.is_set():
            reason = self.reason_to_wait()
            if reason is not None:
                self._note("waiting", reason)
                self.clocks.wait(self.over, self.check_every_s)
                continue
            began = self.clocks.monotonic()
            try:
                with self.connect() as node:
                    self._note("connected", "")
                    self._serve(node)
            except ChoristerError as error:
                if self.clocks.monotonic() - began > back_off_s:
                    back_off_s = LEAST_BACK_OFF_S  # it had held: this is a new trouble
                self._note("away", f"{error.found}; again in {back_off_s:.0f} s at most")
                log.info("The connection was lost. %s", error)
                self._wait_for_network(back_off_s)
                back_off_s = min(2 * back_off_s, MOST_BACK_OFF_S)
            else:
                back_off_s = LEAST_BACK_OFF_S
        self._note("stopped", self._state[1] if self._state[0] == "ended" else "")
        return self._state[1]

    def in_round(self) -> bool:
        """Return whether a round that this device applied for is still to be finished."""
        return self.clocks.monotonic() < self._until

    def _serve(self, node: Node) -> None:
        slept, checked = self.clocks.slept(), self.clocks.monotonic()
        in_vain = 0  # questions since the last message
        while not self.over.is_set():
            if self.clocks.slept() - slept > _SLEPT_S:
                return  # the connection is from before the machine slept: a new one is quicker
            every_s = MOST_ROUND_S if self.in_round() else self.check_every_s
            if self.clocks.monotonic() - checked >= every_s:
                checked = self.clocks.monotonic()
                if self.reason_to_wait() is not None or self.moved():
                    self._until = 0.0
                    return
            letter = node.pull()
            if letter is None:
                most_s = SLOW_S if self.in_round() else IDLE_S
                self.clocks.wait(self.over, min(QUICK_S * _GROWTH ** min(in_vain, 20), most_s))
                in_vain += 1
                self._beat()
                continue
            in_vain = 0
            self._answer(node, letter)

    def _answer(self, node: Node, letter: Envelope) -> None:
        if self.clocks.wall() > letter.ends_s:
            log.info("A message came too late: %s of %s.", letter.exchange, letter.round_id[:64])
            return
        try:
            word = node.answer(letter, self.federation, self.clocks.monotonic)
        except (BadBundle, BadMessage) as error:
            self._refuse(letter, error)
            return
        log.info("%s of %s: %s", letter.exchange, letter.round_id[:64] or "no round", word)
        if word == "answered" and letter.round_id:
            left_s = max(0.0, letter.ends_s - self.clocks.wall())
            follows_s = min(max(left_s, _ROUND_FOLLOWS_S), MOST_ROUND_S)
            self._until = self.clocks.monotonic() + follows_s
        if word != "answered" or letter.exchange == _END:
            self._until = 0.0
        reason = self.ended(letter.exchange, word)
        if reason is not None:
            self._note("ended", reason)
            self.over.set()

    def _refuse(self, letter: Envelope, error: ChoristerError) -> None:
        """Put a refusal into the ledger; that of a device cannot be opened for it."""
        log.warning("Refused. %s", error)
        with contextlib.suppress(ChoristerError, OSError):
            note_refusal(
                self.ledger(), int(self.clocks.wall()), MOST_A_DAY, exchange=letter.exchange[:64],
                round=letter.round_id[:64], rule=error.rule[:400], found=error.found[:400],
            )  # fmt: skip

    def _wait_for_network(self, most_s: float) -> None:
        """Wait, but no longer than it takes this machine to wake up: another network, perhaps."""
        slept, until = self.clocks.slept(), self.clocks.monotonic() + most_s
        while self.clocks.monotonic() < until and not self.over.is_set():
            self.clocks.wait(self.over, min(5.0, most_s))
            if self.clocks.slept() - slept > _SLEPT_S:
                return

    def _note(self, state: str, reason: str) -> None:
        if (state, reason) != self._state:
            self._state, self._since_s = (state, reason), self.clocks.wall()
            self.on_change(state, reason)
        self._beat()

    def _beat(self) -> None:
        """Write the status file now and then; a disk that is full must not end the daemon."""
        now, state, reason = self.clocks.monotonic(), *self._state
        if self._state == self._written and now - self._written_at < _BEAT_S:
            return
        self._written, self._written_at = self._state, now
        plain = {
            "state": state, "reason": reason, "since_s": int(self._since_s),
            "seen_s": int(self.clocks.wall()), "pid": os.getpid(), "in_round": self.in_round(),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            write_atomically(self.folder / STATUS_FILE, json.dumps(plain).encode())


def pause(home_folder: Path, *, paused: bool) -> bool:
    """Pause or resume whatever takes part from a vault, and return whether that changed anything.

    It outlives the process: a device that was paused stays so until its owner resumes it.
    """
    path = home_folder / PAUSE_FILE
    was = path.exists()
    if paused and not was:
        write_atomically(path, b"")
    elif not paused:
        path.unlink(missing_ok=True)
    return was != paused


def is_paused(home_folder: Path) -> bool:
    """Return whether its owner paused this device."""
    return (home_folder / PAUSE_FILE).exists()
