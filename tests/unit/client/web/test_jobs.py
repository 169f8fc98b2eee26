"""Work in the background: in order, cancelled between two steps, and no defect ends the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from chorister.client.web.jobs import MOST_WAITING, Busy, Job, Worker
from chorister.shared.errors import UsageError


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker()
    yield found
    found.stop()


def finish(job: Job) -> Job:
    until(lambda: not job.active)
    return job


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_jobs_are_done_in_their_order(worker: Worker) -> None:
    order: list[int] = []
    jobs = [worker.add("x", "", 1, lambda step, n=n: order.append(n) or {"n": n}) for n in range(5)]
    assert [finish(job).result for job in jobs] == [{"n": n} for n in range(5)]
    assert order == list(range(5))
    assert not worker.busy


def test_a_cancelled_job_ends_at_its_next_step_and_cleans_up(worker: Worker) -> None:
    began, cleaned = threading.Event(), threading.Event()

    def work(step: Callable[[int], None]) -> dict[str, object]:
        try:
            while True:
                step(1)
                began.set()
                time.sleep(0.001)
        finally:
            cleaned.set()

    job = worker.add("x", "", 10, work)
    assert began.wait(10)
    assert job.state == "running"
    job.cancel.set()
    assert finish(job).state == "cancelled"
    assert cleaned.is_set()
    assert job.done <= job.total
    assert finish(worker.add("x", "", 1, lambda step: {})).state == "done"


def test_a_job_that_waits_is_cancelled_without_being_begun(worker: Worker) -> None:
    gate = threading.Event()
    first = worker.add("x", "", 1, lambda step: (gate.wait(10) and {}) or {})
    ran: list[int] = []
    second = worker.add("x", "", 1, lambda step: ran.append(1) or {})
    second.cancel.set()
    gate.set()
    finish(first)
    assert finish(second).state == "cancelled"
    assert ran == []


def test_a_refusal_is_kept_and_a_defect_is_named_without_its_details(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(step: object) -> dict[str, object]:
        raise UsageError("A rule.", "a fault", "Advice.")

    def break_down(step: object) -> dict[str, object]:
        raise ZeroDivisionError("/home/anna/secret")

    refused = finish(worker.add("x", "", 1, refuse))
    assert refused.error is not None
    assert (refused.state, refused.error.found) == ("failed", "a fault")
    broken = finish(worker.add("x", "", 1, break_down))
    assert broken.error is not None
    assert "ZeroDivisionError" in broken.error.found
    assert "anna" not in str(broken.error)
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert finish(worker.add("x", "", 1, lambda step: {})).state == "done"


def test_not_everything_waits_at_once(worker: Worker) -> None:
    gate = threading.Event()
    for _ in range(MOST_WAITING):
        worker.add("x", "", 1, lambda step: (gate.wait(10) and {}) or {})
    with pytest.raises(Busy, match="pieces of work wait"):
        worker.add("x", "", 1, lambda step: {})
    gate.set()


def test_stopping_ends_the_thread() -> None:
    worker = Worker()
    entered = threading.Event()

    def work(step: Callable[[int], None]) -> dict[str, object]:
        while True:
            step(0)
            entered.set()
            time.sleep(0.001)

    job = worker.add("x", "", 1, work)
    assert entered.wait(10)
    worker.stop()
    assert job.state == "cancelled"
