"""A device that takes part: the vault, the connection and the conditions behind the loop."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from chorister.client import compute, installed
from chorister.client.agreement import Agreement, folder_of
from chorister.client.bundle_guard import BundleGuard
from chorister.client.conditions import Conditions, JoinSettings, slept_s
from chorister.client.consent import refusal_of
from chorister.client.daemon import LOCK_FILE, Clocks, Daemon, is_paused
from chorister.client.device import ENVIRONMENT
from chorister.client.home import Home, reopen
from chorister.client.membership import node_key_of
from chorister.client.outbox import refuse_if_withdrawn
from chorister.client.supernode import SuperNode, connected
from chorister.client.vault import WITHDRAWN_FILE, read_marker
from chorister.shared.console import say
from chorister.shared.errors import ChoristerError, UsageError
from chorister.shared.records import ADVERTISE, HELLO

log = logging.getLogger("chorister.client")


def take_part(
    home: Home, agreed: Agreement, settings: JoinSettings, *, for_s: float | None = None
) -> str:
    """Take part until a signal or the time ends it, and return why it ended.

    Args:
        home: opened by its owner.
        agreed: with the federation.
        settings: when and how.
        for_s: end by itself after so many seconds; None for not.

    Raises:
        UsageError: no certificate yet, another process takes part from this vault already, or a
            device to compute on that is not there.
    """
    federation = agreed.federation
    _, certificate = installed.require_member(home, federation)
    compute.best_device(settings.device)  # refused now, not in the first round
    compute.limit_process(settings.threads, settings.memory_gib)
    with contextlib.suppress(OSError):
        os.nice(settings.niceness)
    os.environ[ENVIRONMENT] = installed.KIND
    installed.unlock(home, settings.device)
    own = folder_of(home.folder, federation)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(own):
        over, line = threading.Event(), Line(home, federation)
        daemon = Daemon(
            federation=federation,
            folder=own,
            connect=line.connect,  # type: ignore[arg-type]
            reason_to_wait=partial(
                reason_to_wait, home, federation, Conditions(settings)
            ),
            ledger=partial(installed.open_ledger, home, federation, certificate.device_id),
            moved=line.moved,
            ended=partial(_told_of_withdrawal, home.folder),
            over=over,
            check_every_s=settings.check_every_s,
            clocks=Clocks(slept=slept_s),
            on_change=_say_state,
        )  # fmt: skip
        say(f"Device {certificate.device_id} takes part in '{federation}'. Ctrl-C ends it.")
        with _until_told(over, for_s):
            return daemon.run()


class Line:
    """The connection as the newest invitation in the vault describes it, without a restart.

    Args:
        home: opened by its owner.
        federation: that this device is a member of.

    Raises:
        UsageError: it is no member.
    """

    def __init__(self, home: Home, federation: str) -> None:
        self._home = home
        self._federation = federation
        self._key = node_key_of(home, federation)
        self._dialled = self._newest(home)

    def connect(self) -> AbstractContextManager[SuperNode]:
        """Return a connection to the server, to be entered."""
        # A vault that was withdrawn says nothing any more, and the server has to hear of it.
        with contextlib.suppress(ChoristerError):
            self._dialled = self._newest(reopen(self._home))
        server, root_certificate, bundles = self._dialled
        return connected(server, root_certificate, self._key, BundleGuard(bundles))

    def moved(self) -> bool:
        """Return whether there is an invitation to somewhere else, or to other bundles."""
        with contextlib.suppress(ChoristerError):
            return self._newest(reopen(self._home)) != self._dialled
        return False

    def _newest(self, home: Home) -> tuple[str, str, tuple[str, ...]]:
        invite = installed.require_member(home, self._federation)[0].invite
        return invite.server, invite.root_certificate, tuple(invite.bundles)


def reason_to_wait(home: Home, federation: str, conditions: Conditions) -> str | None:
    """Return why a device may not train now; what its owner decided comes before the machine.

    A speaker who withdrew is no reason: the server has to hear of it.
    """
    folder = home.folder
    if read_marker(folder, WITHDRAWN_FILE) is not None:
        with contextlib.suppress(ChoristerError):
            refuse_if_withdrawn(folder, federation)
            return "the consent was withdrawn, and there is no notice for this federation"
        return None
    if is_paused(folder):
        return "its owner paused it (chorister join --resume)"
    try:
        reason = _unfit(reopen(home), federation)
    except ChoristerError as error:
        return error.found
    return reason or conditions.reason_to_wait()


def _unfit(home: Home, federation: str) -> str | None:
    agreed, certificate = installed.require_member(home, federation)
    certificate.check(agreed.invite.authority, federation, home.now_s())
    reason = refusal_of(home.consent, "training", home.device, home.now_s())
    if reason is not None:
        return reason
    budget = installed.open_budget(home, agreed, certificate.device_id)
    rounds = agreed.invite.terms.rounds
    if len(budget.events("speaker")) >= rounds:
        return f"all {rounds} rounds that were agreed to are done; a new invitation may ask more"
    for unit, spent, most in (
        ("speaker", budget.epsilon_speaker(), agreed.speaker_limit().epsilon_max),
        ("segment", budget.epsilon_segment(), agreed.segment_limit().epsilon_max),
    ):
        if spent >= most:
            return f"the budget of the {unit} unit is used up: {spent:.3f} of {most:g}"
    return None


def _told_of_withdrawal(folder: Path, exchange: str, word: str) -> str | None:
    if word == "answered" and exchange in (HELLO, ADVERTISE) and (folder / WITHDRAWN_FILE).exists():
        return "the speaker withdrew, and the server was told"
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold this device for one process: two would answer for one another."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UsageError(
            "One process takes part for a device.", "another one that does",
            "See `chorister status`; end it with Ctrl-C or `systemctl --user stop chorister-join`.",
        ) from None  # fmt: skip
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _until_told(over: threading.Event, for_s: float | None) -> Iterator[None]:
    """Set `over` on SIGINT, SIGTERM or after a while; a second signal ends at once."""

    def stop(number: int, frame: object) -> None:
        if over.is_set():
            raise KeyboardInterrupt
        log.info("Told to end: what is under way is finished first.")
        over.set()

    before: list[tuple[int, object]] = []
    if threading.current_thread() is threading.main_thread():
        before = [(n, signal.signal(n, stop)) for n in (signal.SIGINT, signal.SIGTERM)]
    timer = None if for_s is None else threading.Timer(for_s, over.set)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _say_state(state: str, reason: str) -> None:
    say(f"{state}{': ' + reason if reason else ''}")
