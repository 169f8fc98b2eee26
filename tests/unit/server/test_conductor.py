"""A running server, step by step, with a SuperLink that a test plays."""

from __future__ import annotations

import json
import time

import pytest

from chorister.server.conductor import Conductor
from chorister.server.members import admit, take_revocations
from chorister.server.plan import Plan, read_plan, write_plan
from chorister.server.revocations import RevocationList
from chorister.server.server_log import ServerLog


class Link:
    """What a SuperLink would be asked."""

    def __init__(self):
        self.known, self.under_way, self.started, self.connected = {}, [], 0, 0
        self.works, self.forgot, self.why = True, 0, "failed: it says"

    def alive(self):
        return self.works

    def forget_connections(self):
        self.forgot += 1

    def online(self):
        return self.connected

    def register(self, key, name):
        self.known[name] = key
        return 1

    def unregister(self, key):
        self.known = {n: k for n, k in self.known.items() if k != key}

    def registered(self):
        return list(self.known.values())

    def start_run(self):
        self.started += 1
        self.under_way = [self.started]
        return self.started

    def end_run(self, run_id):
        self.under_way.remove(run_id)

    def unfinished_runs(self):
        return list(self.under_way)

    def how_ended(self, run_id):
        return self.why


@pytest.fixture
def link():
    return Link()


class Clock:
    def __init__(self):
        self.now_s = int(time.time())

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def conductor(office, link, clock, monkeypatch):
    monkeypatch.setattr("chorister.server.conductor.STATUS_EVERY_S", 0.0)
    return Conductor(office.folder, link, ServerLog(office.folder.logs, echo=False), clock)


def _done(office, count):
    path = office.folder.state / "rounds.jsonl"
    path.write_text("{}\n" * count)


def test_members_are_let_in_and_out_while_it_runs(office, link, conductor, clock):
    one, two = office.admission(), office.admission()
    admit(office.folder, one.to_bytes(), "choir", clock())
    conductor.step()
    assert link.known == {one.device_id: one.pem()}
    admit(office.folder, two.to_bytes(), "choir", clock())
    conductor.step()
    assert set(link.known) == {one.device_id, two.device_id}
    signed = RevocationList.sign(office.authority, "choir", [one.device_id], clock())
    take_revocations(
        office.folder, signed.to_bytes(), office.authority.verify_key(), "choir"
    )  # fmt: skip
    conductor.step()
    assert set(link.known) == {two.device_id}


def test_rounds_begin_once_enough_devices_are_there(office, link, conductor):
    write_plan(office.folder.plan_file, Plan(target=2, least_devices=3))
    link.connected = 2
    conductor.step()
    assert link.started == 0
    link.connected = 3
    conductor.step()
    conductor.step()
    assert link.started == 1  # and not another while it is under way
    _done(office, 2)
    link.under_way, link.why = [], ""
    conductor.step()
    assert link.started == 1


def test_a_serverapp_that_ends_without_a_round_is_started_again_later(
    office, link, conductor, clock
):
    write_plan(office.folder.plan_file, Plan(target=1, least_devices=0))
    conductor.step()
    link.under_way = []
    conductor.step()
    assert link.started == 1
    clock.now_s += 6
    conductor.step()
    assert link.started == 2
    lines = [json.loads(x) for x in (office.folder.logs / "server.jsonl").read_text().splitlines()]
    assert [x["why"] for x in lines if x["event"] == "end"] == ["failed: it says"]


def test_a_timed_plan_moves_on_by_itself(office, link, conductor, clock):
    write_plan(office.folder.plan_file, Plan(target=5, least_devices=0, every_s=3600))
    conductor.step()
    assert read_plan(office.folder.plan_file).next_s == clock.now_s + 3600
    _done(office, 1)
    link.under_way = []
    conductor.step()
    assert link.started == 1
    clock.now_s += 3600
    conductor.step()
    assert link.started == 2


def test_it_stops_after_the_round_that_is_under_way(office, link, conductor):
    write_plan(office.folder.plan_file, Plan(target=3, least_devices=0))
    assert conductor.step()
    write_plan(office.folder.plan_file, Plan(target=3, least_devices=0, stopping=True))
    assert conductor.step()  # it is still at work
    _done(office, 1)
    link.under_way = []
    assert not conductor.step()


def test_what_an_earlier_process_left_is_dropped(office, link, conductor):
    link.under_way = [7, 8]
    conductor.begin()
    assert (link.under_way, link.forgot) == ([], 1)


def test_a_superlink_that_died_ends_the_server_with_a_fault(link, conductor):
    link.works = False
    assert conductor.run(lambda: False) == 1
    assert conductor.run(lambda: True) == 0


def test_an_altered_list_of_the_revoked_lets_nobody_new_in(office, link, conductor, clock):
    admit(office.folder, office.admission().to_bytes(), "choir", clock())
    office.folder.revoked_file.write_bytes(b"junk")
    conductor.step()
    assert not link.known
    assert '"fault"' in (office.folder.logs / "server.jsonl").read_text()


def test_an_altered_list_is_said_once_and_again_when_it_changes(office, link, conductor, clock):
    def said(event):
        lines = (office.folder.logs / "server.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines].count(event)

    admission = office.admission()
    admit(office.folder, admission.to_bytes(), "choir", clock())
    office.folder.revoked_file.write_bytes(b"junk")
    for _ in range(5):
        conductor.step()
    assert said("fault") == 1
    office.folder.revoked_file.write_bytes(b"other junk")
    for _ in range(5):
        conductor.step()
    assert said("fault") == 2
    good = RevocationList.sign(office.authority, "choir", [], clock()).to_bytes()
    office.folder.revoked_file.write_bytes(good)
    conductor.step()
    assert (said("members"), list(link.known)) == (1, [admission.device_id])
    office.folder.revoked_file.write_bytes(b"other junk")
    for _ in range(5):
        conductor.step()
    assert said("fault") == 3
    office.folder.revoked_file.write_bytes(good)
    conductor.step()
    assert said("members") == 2, "that it is over is said, though nobody came or went"


def test_it_says_how_it_is(office, link, conductor):
    link.connected = 4
    conductor.step()
    told = json.loads(office.folder.status_file.read_text())
    assert (told["online"], told["holds_up"]) == (4, "no rounds are wanted")


def test_who_ended_while_no_server_ran_is_shut_out_by_the_next_one(office, link, conductor, clock):
    gone, here = office.admission(), office.admission()
    for admission in (gone, here):
        admit(office.folder, admission.to_bytes(), "choir", clock())
        link.register(admission.pem(), admission.device_id)  # by an earlier server
    signed = RevocationList.sign(office.authority, "choir", [gone.device_id], clock())
    take_revocations(office.folder, signed.to_bytes(), office.authority.verify_key(), "choir")
    conductor.step()
    assert set(link.known) == {here.device_id}


def test_what_is_said_while_a_run_is_started_holds(office, link, conductor):
    write_plan(office.folder.plan_file, Plan(target=5, least_devices=0, every_s=60))
    start = link.start_run

    def start_slowly():
        write_plan(office.folder.plan_file, Plan(target=0, least_devices=0, stopping=True))
        return start()

    link.start_run = start_slowly
    conductor.step()
    assert read_plan(office.folder.plan_file).stopping
