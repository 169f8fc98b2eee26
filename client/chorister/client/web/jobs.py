"""Work that takes longer than a request: one thing at a time, in order, with progress and an end.

A job ends early by an exception out of its own progress call, so whatever it runs stops between two
steps and cleans up as it does after any other error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

from chorister.shared.console import complain
from chorister.shared.errors import ChoristerError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
MOST_KEPT = 60
MOST_WAITING = 12
_STOP_S = 20.0
_LOOK_S = 0.05


class Cancelled(ChoristerError):
    """A job was cancelled by the person who asked for it."""


class Busy(ChoristerError):
    """Too much work waits already."""


Step = Callable[[int], None]
Work = Callable[[Step], dict[str, Any]]


@dataclass(slots=True)
class Job:
    """One piece of work.

    Attributes:
        id: its number.
        kind: 'enrol', 'personalise' or 'convert'.
        title: for a person.
        total: steps; 0 where nobody knows.
        done: steps that were done.
        state: where it stands.
        result: plain JSON, once it is done.
        error: what went wrong.
    """

    id: int
    kind: str
    title: str
    total: int
    work: Work
    done: int = 0
    state: State = "waiting"
    result: dict[str, Any] | None = None
    error: ChoristerError | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    def step(self, more: int = 1) -> None:
        """Count steps.

        Raises:
            Cancelled: somebody cancelled it.
        """
        if self.cancel.is_set():
            raise Cancelled("A job runs until it is done.", "it was cancelled", "Begin it again.")
        self.done = min(self.done + more, self.total)


class Worker:
    """A thread that does jobs in the order in which they were asked for."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._next = 1
        self._thread = threading.Thread(target=self._run, name="chorister work", daemon=True)
        self._thread.start()

    def add(self, kind: str, title: str, total: int, work: Work) -> Job:
        """Return a new job, which waits for those before it.

        Args:
            kind: as in `Job`.
            title: for a person.
            total: how many steps it will count.
            work: what to do, given what counts steps; returns plain JSON.

        Raises:
            Busy: too many wait.
        """
        with self._lock:
            if sum(job.active for job in self._jobs.values()) >= MOST_WAITING:
                raise Busy(
                    f"At most {MOST_WAITING} pieces of work wait.", "as many",
                    "Wait for one to end, or cancel one.",
                )  # fmt: skip
            job = Job(self._next, kind, title, total, work)
            self._next += 1
            for old in [one.id for one in self._jobs.values() if not one.active]:
                if len(self._jobs) >= MOST_KEPT:
                    del self._jobs[old]
            self._jobs[job.id] = job
        self._queue.put(job)
        return job

    def find(self, number: int) -> Job | None:
        """Return a job by its number, None if it is unknown or was long ago."""
        return self._jobs.get(number)

    def jobs(self) -> tuple[Job, ...]:
        """Return all jobs, oldest first."""
        with self._lock:
            return tuple(self._jobs.values())

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return any(job.active for job in self.jobs())

    def cancel_all(self) -> None:
        """Cancel everything that waits or runs; what runs ends at its next step."""
        for job in self.jobs():
            job.cancel.set()

    def wait(self, seconds: float = _STOP_S) -> None:
        """Return once nothing waits or runs, at the latest after so many seconds."""
        end_s = time.monotonic() + seconds
        while self.busy and time.monotonic() < end_s:
            time.sleep(_LOOK_S)

    def forget(self) -> None:
        """Cancel everything, and drop what is over."""
        self.cancel_all()
        with self._lock:
            self._jobs = {number: job for number, job in self._jobs.items() if job.active}

    def stop(self) -> None:
        """Cancel everything and end the thread, as soon as what runs lets it."""
        self.cancel_all()
        self._queue.put(None)
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.cancel.is_set():
                job.state = "cancelled"
                continue
            job.state = "running"
            try:
                job.result = job.work(job.step)
                job.state = "done"
            except Cancelled:
                job.state = "cancelled"
            except ChoristerError as error:
                job.error, job.state = error, "failed"
            except Exception as error:  # a defect ends this job, not the page
                complain(f"{job.kind} failed by a defect: {type(error).__name__}: {error}")
                job.error = ChoristerError(
                    "Work ends with a result or a reason.",
                    f"a defect ({type(error).__name__})",
                    "The terminal says more; please report it.",
                )
                job.state = "failed"
