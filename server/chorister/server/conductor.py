"""A running server: it lets members in, starts rounds when the plan says so, and tells how it is.

One step a second, each of them bounded: whatever it finds is on the disk, so that a server that is
killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from chorister.server.members import Membership, members
from chorister.server.plan import Now, Plan, after_start, read_plan, what_holds_up, write_plan
from chorister.server.rounds import ROUNDS_FILE
from chorister.server.server_folder import ServerFolder
from chorister.server.server_log import ServerLog, redact
from chorister.shared.errors import ChoristerError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock

STEP_S = 1.0
STATUS_EVERY_S = 2.0
MEMBERS_EVERY_S = 60.0  # an admission ends by the clock too


class Link(Protocol):
    """What a conductor needs of a SuperLink."""

    def alive(self) -> bool:
        """Return whether it works."""

    def forget_connections(self) -> None:
        """Count nobody as connected until it is heard of."""

    def online(self) -> int:
        """Return how many devices are connected."""

    def register(self, public_key_pem: bytes, name: str) -> int:
        """Let a device's connection in."""

    def unregister(self, public_key_pem: bytes) -> None:
        """Let a device's connection in no more."""

    def registered(self) -> list[bytes]:
        """Return the keys that are let in, also those from before this process."""

    def start_run(self) -> int:
        """Start a ServerApp."""

    def end_run(self, run_id: int) -> None:
        """Stop a ServerApp."""

    def unfinished_runs(self) -> list[int]:
        """Return the ServerApps that are waiting or at work."""

    def how_ended(self, run_id: int) -> str:
        """Return why a ServerApp ended; '' where it ended as it should."""


@dataclass(slots=True)
class Running:
    """What the server knows of itself.

    Attributes:
        pid: of its process.
        started_s: Unix time.
        told_s: when this was written, Unix time.
        online: devices connected.
        members: devices admitted.
        holds_up: why no round begins; None while one is being started.
        unfit: admissions that admit nobody, file name to reason.
    """

    pid: int
    started_s: int
    told_s: int = 0
    online: int = 0
    members: int = 0
    holds_up: str | None = None
    unfit: dict[str, str] | None = None


class Conductor:
    """Decides once a second what a server does next.

    Args:
        folder: of the server.
        link: that is listening.
        log: for what happens.
        clock: Unix time.
    """

    def __init__(
        self,
        folder: ServerFolder,
        link: Link,
        log: ServerLog,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        self._folder = folder
        self._link = link
        self._log = log
        self._clock = clock
        self._federation = folder.federation().name
        self._registered: dict[str, bytes] = {}
        self._seen: tuple[object, ...] = ()
        self._fault: tuple[object, ...] | None = None  # of the members' files, as it was told
        self._members_at = self._told_at = float("-inf")
        self._failures = self._failed_s = 0
        self._under_way: int | None = None
        self._done_before = 0
        self._running = Running(os.getpid(), clock())

    def begin(self) -> None:
        """Drop what an earlier process of this server left in Flower's books."""
        self._link.forget_connections()
        for run_id in self._link.unfinished_runs():
            self._link.end_run(run_id)
            self._log.tell("dropped", run=str(run_id))

    def step(self) -> bool:
        """Do what is due; return whether the server goes on."""
        self._log.take_app()
        self._let_members_in()
        self._follow_run()
        plan, now = read_plan(self._folder.plan_file), self._now()
        held = what_holds_up(plan, now)
        self._running.holds_up = held
        if held is None:
            self._start(plan, now)
        self._tell(plan)
        return not (held == "stopping" and not now.running)

    def run(self, stopped: Callable[[], bool]) -> int:
        """Step until the plan, a signal or a fault of Flower's ends it; return the exit status."""
        while not stopped():
            if not self._link.alive():
                self._log.tell("fault", text="Flower's SuperLink or SuperExec ended")
                return 1
            if not self.step():
                return 0
            time.sleep(STEP_S)
        return 0

    def _now(self) -> Now:
        return Now(
            done=count_rounds(self._folder), online=self._running.online, time_s=self._clock(),
            running=self._under_way is not None, failures=self._failures, failed_s=self._failed_s,
        )  # fmt: skip

    def _start(self, plan: Plan, now: Now) -> None:
        self._done_before = now.done
        self._under_way = self._link.start_run()
        self._running.holds_up = None
        if plan.every_s:
            # What the operator said while the run was started holds: only the time is changed.
            after = after_start(plan, now.time_s)
            said = read_plan(self._folder.plan_file)
            if said.every_s and said.next_s == plan.next_s:
                write_plan(self._folder.plan_file, replace(said, next_s=after.next_s))
        self._log.tell(
            "start", run=str(self._under_way), after_round=now.done, target=plan.target,
            online=now.online,
        )  # fmt: skip

    def _follow_run(self) -> None:
        self._running.online = self._link.online()
        if self._under_way is None or self._under_way in self._link.unfinished_runs():
            return
        done = count_rounds(self._folder)
        if done > self._done_before:
            self._failures = 0
        else:
            self._failures += 1
            self._failed_s = self._clock()
        why = redact(self._link.how_ended(self._under_way))
        self._log.tell("end", run=str(self._under_way), rounds=done - self._done_before, why=why)
        self._under_way = None

    def _let_members_in(self) -> None:
        seen = (_state_of(self._folder.members), _state_of(self._folder.revoked_file))
        if seen == self._seen and time.monotonic() - self._members_at < MEMBERS_EVERY_S:
            return
        self._members_at = time.monotonic()
        try:
            found = members(self._folder, self._federation, self._clock())
        except ChoristerError as error:
            # Nobody new comes in; the round itself reads the same list, and does not begin.
            # They are read again every second, but what is the same is said once.
            if self._fault != (seen, str(error)):
                self._log.tell("fault", text=str(error)[:300])
            self._fault = (seen, str(error))
            return
        self._seen = seen
        self._register(found)

    def _register(self, found: Membership) -> None:
        wanted = {device: admission.pem() for device, admission in found.admitted.items()}
        for device, key in wanted.items():
            if self._registered.get(device) != key:
                self._link.register(key, device)
        let_in = set(wanted.values())
        for key in self._link.registered():
            # Also one that ended or was revoked while no server ran.
            if key not in let_in:
                self._link.unregister(key)
        if self._registered != wanted or self._fault is not None:
            self._log.tell("members", admitted=len(wanted), revoked=len(found.revoked))
        self._registered, self._fault = wanted, None
        self._running.members = len(wanted)
        self._running.unfit = dict(found.unfit)

    def _tell(self, plan: Plan) -> None:
        if time.monotonic() - self._told_at < STATUS_EVERY_S:
            return
        self._told_at = time.monotonic()
        self._running = replace(self._running, told_s=self._clock())
        plain = {**asdict(self._running), "plan": asdict(plan)}
        write_atomically(self._folder.status_file, json.dumps(plain).encode())


def count_rounds(folder: ServerFolder) -> int:
    """Return how many rounds are committed, by the number of lines."""
    try:
        return (folder.state / ROUNDS_FILE).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
