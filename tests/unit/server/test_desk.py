"""The operator's desk on a real server: opened from its folder, for one process at a time."""

from __future__ import annotations

import json

import pytest

from chorister.server import installed
from chorister.server.installed import desk, open_operator
from chorister.server.operator import ENVIRONMENT
from chorister.server.plan import Plan, write_plan
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.files import hold_lock


@pytest.fixture
def here(office, monkeypatch):
    monkeypatch.setenv("CHORISTER_SERVER", str(office.folder.root))
    monkeypatch.setenv(ENVIRONMENT, "installed")
    monkeypatch.setattr(installed, "LOCK_WAIT_S", 0.0)
    office.folder.logs.mkdir()
    return office


class Clock:
    def __init__(self):
        self.slept_s = 0.0

    def sleep(self, seconds):
        self.slept_s += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(installed, "time", clock)
    return clock


def test_the_entry_point_opens_it(here):
    from chorister.server import operator

    opened = operator.open_operator()
    assert opened.settings.name == "choir"
    assert not opened.simulated
    assert opened.authority == here.authority.verify_key()
    assert opened.registry.latest() is not None
    assert "generator" in opened.randomness.statement


def test_two_processes_never_run_rounds_of_one_server(here):
    assert hold_lock(here.folder.state / ".rounds.lock", 0.0)
    with pytest.raises(UsageError, match="One process"):
        open_operator()


def test_without_a_folder_there_is_no_desk(monkeypatch):
    monkeypatch.delenv("CHORISTER_SERVER", raising=False)
    with pytest.raises(UsageError, match="names a server's folder"):
        open_operator()


def test_it_runs_until_the_last_round_that_is_wanted_now(here):
    write_plan(here.folder.plan_file, Plan(target=7))
    assert desk(here.folder, running=True).settings.rounds == 7
    write_plan(here.folder.plan_file, Plan(target=7, every_s=3600))
    assert desk(here.folder, running=True).settings.rounds == 1
    assert desk(here.folder).settings.rounds == 20


def test_a_round_waits_for_devices_and_not_for_ever(here, clock):
    operator = desk(here.folder, running=True)
    write_plan(here.folder.plan_file, Plan(target=3, least_devices=4))
    counts = iter([1, 2, 4])
    assert operator.may_begin(1, lambda: next(counts))
    assert clock.slept_s == 2.0
    assert not operator.may_begin(1, lambda: 3)
    assert clock.slept_s <= 2.0 + installed.DEVICE_WAIT_S + 1.0


def test_a_plan_that_changed_holds_from_the_next_round_on(here, clock):
    operator = desk(here.folder, running=True)
    write_plan(here.folder.plan_file, Plan(target=1, least_devices=0))
    assert operator.may_begin(1, lambda: 9)
    assert not operator.may_begin(2, lambda: 9)
    write_plan(here.folder.plan_file, Plan(target=9, least_devices=0, stopping=True))
    assert not operator.may_begin(1, lambda: 9)


def test_what_happens_is_told_without_names(here):
    operator = desk(here.folder)
    operator.note("exchange", {"round": "r/1", "exchange": "query.share", "asked": 4})
    (line,) = (here.folder.logs / "app.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["event"], told["asked"]) == ("exchange", 4)


def test_an_altered_ledger_is_no_desk(here):
    data = here.folder.ledger.read_bytes()
    here.folder.ledger.write_bytes(data.replace(b"server", b"sorver", 1))
    with pytest.raises(BadLedger):
        desk(here.folder)
