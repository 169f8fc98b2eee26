"""Refusals that a server provokes: all are counted, few are written, whatever it sends."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from chorister.client import app, contribute, refusals
from chorister.client.refusals import NotListening, check_patience, note_refusal
from chorister.server.inspection import inspect
from chorister.shared.errors import ProtocolViolation
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.records import pack

DAY_S = 86_400
NOON_S = 20_000 * DAY_S + DAY_S // 2
MOST = 4


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return LedgerFile(
        tmp_path / "ledger.jsonl", owner="me", federation="choir", clock=lambda: NOON_S
    )


def written(ledger):
    lines = [json.loads(line) for line in read_lines(ledger.path)]
    return [e["fields"] for e in lines if e["kind"] == "refusal"]


def provoke(ledger, times, now_s=NOON_S, most=MOST):
    for _ in range(times):
        note_refusal(ledger, now_s, most, rule="r", found="f")


def test_the_first_of_a_day_are_written_and_then_each_doubling(ledger):
    provoke(ledger, 40)
    assert [f["number"] for f in written(ledger)] == [1, 2, 3, 4, 5, 8, 16, 32]
    provoke(ledger, 2, NOON_S + DAY_S)
    last = written(ledger)[-2:]
    assert [(f["number"], f["today"]) for f in last] == [(41, 1), (42, 2)]


def test_a_day_of_a_million_is_a_few_lines(ledger):
    beside = ledger.path.with_suffix(".refusals.json")
    provoke(ledger, 3)
    beside.write_text(json.dumps({"number": 10**6, "day": NOON_S // DAY_S, "today": 10**6}))
    provoke(ledger, 100)
    assert len(written(ledger)) == 3
    provoke(ledger, 1, NOON_S + DAY_S)
    assert written(ledger)[-1]["number"] == 10**6 + 101


def test_a_clock_that_is_set_back_begins_no_new_day(ledger):
    provoke(ledger, MOST)
    provoke(ledger, 3, NOON_S - 2 * DAY_S)
    assert len(written(ledger)) == MOST + 1
    with pytest.raises(NotListening):
        check_patience(ledger, NOON_S - 2 * DAY_S, MOST)


def test_a_clock_that_was_ahead_closes_a_device_for_a_day_and_not_until_then(ledger):
    provoke(ledger, MOST, NOON_S + 4000 * DAY_S)
    with pytest.raises(NotListening):
        check_patience(ledger, NOON_S, MOST)
    check_patience(ledger, NOON_S + DAY_S, MOST)
    provoke(ledger, 1, NOON_S + DAY_S)
    assert written(ledger)[-1]["number"] == MOST + 1


def test_a_refusal_under_a_clock_that_was_ahead_goes_on_with_the_days_number(ledger):
    provoke(ledger, 1, NOON_S + 4000 * DAY_S)
    provoke(ledger, 1)
    provoke(ledger, 1, NOON_S + DAY_S)
    assert [f["today"] for f in written(ledger)] == [1, 2, 1]


def test_a_device_that_never_refused_reads_its_ledger_once(ledger, monkeypatch):
    ledger.append("consent", action="granted")
    reads = []
    monkeypatch.setattr(refusals, "read_lines", lambda path: reads.append(path) or read_lines(path))
    for _ in range(5):
        check_patience(ledger, NOON_S, MOST)
    assert len(reads) == 1


def test_patience_ends_with_the_days_refusals_and_comes_back(ledger):
    provoke(ledger, MOST - 1)
    check_patience(ledger, NOON_S, MOST)
    provoke(ledger, 1)
    with pytest.raises(NotListening, match=f"After {MOST} refusals"):
        check_patience(ledger, NOON_S, MOST)
    check_patience(ledger, NOON_S + DAY_S, MOST)
    check_patience(ledger, NOON_S, None)


@pytest.mark.parametrize(
    "left",
    [
        None,
        b"",
        b"[]",
        b'{"number":"x"}',
        b'{"number":-9,"day":0,"today":0}',
        b'{"number":0,"day":0,"today":-9}',
        b'{"number":1e9,"day":0,"today":0}',
        b'{"number":%d,"day":0,"today":0}' % 10**40,
    ],
)
def test_a_count_that_is_lost_goes_on_from_the_ledger(ledger, left):
    provoke(ledger, MOST + 1)
    beside = ledger.path.with_suffix(".refusals.json")
    beside.unlink() if left is None else beside.write_bytes(left)
    provoke(ledger, 1)
    with pytest.raises(NotListening):
        check_patience(ledger, NOON_S, MOST)
    provoke(ledger, 1, NOON_S + DAY_S)
    assert written(ledger)[-1]["number"] == MOST + 3


def test_a_kill_at_any_write_leaves_a_sound_ledger_and_no_number_twice(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    for killed_at in range(1, 40):
        folder = tmp_path / str(killed_at)
        folder.mkdir()
        path, count = folder / "ledger.jsonl", [0]
        killed, told = False, 0

        def fsync(handle, count=count, killed_at=killed_at):
            count[0] += 1
            if count[0] == killed_at:
                raise Killed

        monkeypatch.setattr(os, "fsync", fsync)
        for _ in range(2 * MOST + 2):
            try:
                opened = LedgerFile(path, owner="me", federation="choir", clock=lambda: NOON_S)
                note_refusal(opened, NOON_S, MOST, rule="r", found="f")
                told += 1
            except Killed:
                killed = True
        monkeypatch.setattr(os, "fsync", lambda handle: None)
        note_refusal(
            LedgerFile(path, owner="me", federation="choir", clock=lambda: NOON_S + DAY_S),
            NOON_S + DAY_S, MOST, rule="r", found="f",
        )  # fmt: skip
        numbers = [f["number"] for f in written(opened)]
        assert numbers == sorted(set(numbers))
        assert told + 1 <= numbers[-1] <= told + 1 + killed
        assert inspect([path]).sound
    assert not killed, "every write had its turn"


def test_the_privacy_officer_sees_how_many_there_were(ledger):
    provoke(ledger, 20)
    found = inspect([ledger.path])
    assert found.sound
    said = [remark.what for remark in found.remarks if "refusals" in remark.what]
    assert len(said) == 1
    assert "counts 16 refusals of what a server asked, 9 of them without a line" in said[0]


@pytest.mark.parametrize("number", [7, 6, 0, -1, 8.5, "8", True, None, 10**40])
def test_a_number_that_runs_back_or_is_none_is_found(ledger, number):
    ledger.append("refusal", number=3, today=1)
    ledger.append("refusal", number=7, today=2)
    assert inspect([ledger.path]).sound
    ledger.append("refusal", number=number, today=3)
    (problem,) = inspect([ledger.path]).problems
    assert "numbered upwards" in problem.what


def test_a_hostile_server_adds_a_bounded_number_of_lines_and_trains_nobody(
    choir, monkeypatch, tmp_path
):
    (one,) = choir(singers=1).devices.values()
    one = replace(one, most_refusals=MOST)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(app, "find_opener", lambda: lambda config, exchange, round_id: one)
    asked = []

    def step(device, round_id, request):
        asked.append(round_id)
        device.ledger.append("consent", action="granted")
        raise ProtocolViolation("A rule.", "something else", "Stop it.")

    monkeypatch.setattr(contribute, "apply", step)
    TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    words = []
    for number in range(60):
        message = Message(pack(b"request"), 7, "query.advertise", group_id=f"run/{number}")
        context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        words.append(app.app(message, context).error.reason)
    assert words == ["protocol"] * MOST + ["unavailable"] * (60 - MOST)
    assert len(asked) == MOST, "beyond, nothing is read or computed"
    assert len(list(read_lines(one.ledger.path))) <= 3 * MOST + 10
    assert written(one.ledger)[-1]["number"] == 32
