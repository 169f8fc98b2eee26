"""When a round begins: as the plan says, and not because a clock or a count is odd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorister.server.plan import (
    MAX_ROUNDS,
    Now,
    Plan,
    add_rounds,
    after_start,
    last_round,
    pause_s,
    read_plan,
    what_holds_up,
    write_plan,
)
from chorister.shared.errors import UsageError

READY = Now(done=0, online=5, time_s=1000, running=False)
WANTED = Plan(target=3, least_devices=5)


def test_a_round_begins_when_nothing_holds_it_up():
    assert what_holds_up(WANTED, READY) is None


@pytest.mark.parametrize(
    ("plan", "now", "reason"),
    [
        (Plan(), READY, "no rounds are wanted"),
        (WANTED, Now(3, 5, 1000, False), "no rounds are wanted"),
        (WANTED, Now(0, 4, 1000, False), "too few devices"),
        (WANTED, Now(0, 5, 1000, True), "a round is under way"),
        (Plan(3, 5, next_s=1001), READY, "not yet time"),
        (Plan(3, 5, stopping=True), READY, "stopping"),
        (Plan(3, 5, stopping=True), Now(0, 5, 1000, True), "a round is under way"),
        (WANTED, Now(0, 5, 1000, False, failures=1, failed_s=999), "waiting after a failure"),
    ],
)
def test_what_holds_a_round_up(plan, now, reason):
    assert what_holds_up(plan, now) == reason


def test_after_a_failure_it_tries_again_and_less_and_less_often():
    waits = [pause_s(failures) for failures in range(1, 12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5, 600)
    late = Now(0, 5, 1004 + 1, False, failures=1, failed_s=1000)
    assert what_holds_up(WANTED, late) is None


def test_a_timed_plan_runs_one_round_at_a_time():
    assert last_round(Plan(target=9), 2) == 9
    assert last_round(Plan(target=9, every_s=3600), 2) == 3
    assert last_round(Plan(target=3, every_s=3600), 3) == 3


@given(st.integers(60, 10**6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_next_round_is_due_in_the_future_and_on_the_grid(every_s, due_s, now_s):
    plan = after_start(Plan(5, 2, every_s, due_s), now_s)
    assert now_s < plan.next_s <= max(now_s, due_s) + every_s
    if due_s:
        assert (plan.next_s - due_s) % every_s == 0


def test_rounds_add_up_and_a_stopped_server_goes_on():
    plan = add_rounds(Plan(target=4, stopping=True), 2, 3, least_devices=7)
    assert (plan.target, plan.least_devices, plan.stopping) == (7, 7, False)


@pytest.mark.parametrize("rounds", [0, -1, MAX_ROUNDS + 1])
def test_no_absurd_number_of_rounds(rounds):
    with pytest.raises(UsageError):
        add_rounds(Plan(), 0, rounds)


def test_a_plan_survives_a_restart(tmp_path):
    plan = Plan(9, 4, 3600, 12345, True)
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    assert read_plan(tmp_path / "none.json") == Plan()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format": 2}', '{"format": 1, "target": -1}', '{"format": 1, "target": "x"}',
     '{"format": 1, "more": 1}', '{"format": 1, "stopping": 1}'],
)  # fmt: skip
def test_a_damaged_plan_starts_nothing(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="Say it again"):
        read_plan(path)
