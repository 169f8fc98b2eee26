"""A device's process is killed at every durable write of every exchange, and opened again.

A killed process leaves what it had written: the child ends itself, without any clean-up, just
before its nth write is made durable, for every n that there is.
"""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import torch

from chorister.client import installed
from chorister.client.agreement import agreement, folder_of
from chorister.client.home import open_home
from chorister.client.membership import membership
from chorister.server.round import run_round
from chorister.shared.errors import ChoristerError, ProtocolViolation
from chorister.shared.exchanges import Application
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE

ROUND = "run/1"
KILLED = 137
CHILD_S = 60.0
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def stands_before(found, stage):
    """Members whose first device was asked to do a stage and has not yet; what it was asked."""
    name = found.names[0]
    found.gone = {stage: {name}}
    run_round(found, found.operator, 1)
    found.gone = {}
    return name, found.heard[stage, name]


def device_in(found, folder):
    home = open_home(folder, "correct horse", clock=found.clock)
    installed.unlock(home)
    certificate = membership(home, "choir").certificate
    return installed.device_of(home, agreement(home, "choir"), certificate)


def in_a_child(act, killed_at):
    """Run something in a child that is killed at its nth durable write; True if it was."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            count = [0]

            def fsync(handle):
                count[0] += 1
                if count[0] == killed_at:
                    os._exit(KILLED)

            os.fsync = fsync
            act()
            code = 0
        except ChoristerError:
            code = 1
        finally:
            os._exit(code)
    until = time.monotonic() + CHILD_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, KILLED), code
            return code == KILLED
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child did not end")


def steps(folder):
    path = folder_of(folder, "choir") / "budget.jsonl"
    lines = [json.loads(line) for line in read_lines(path)] if path.exists() else []
    return [e["fields"]["step"] for e in lines if e["kind"] == "budget"]


def answers(found, step, folder, request):
    try:
        return step(device_in(found, folder), ROUND, request)
    except ProtocolViolation:
        return None


@pytest.mark.parametrize("stage", [ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL])
def test_a_killed_process_leaves_a_device_that_goes_on(
    members, member, tmp_path, stage, monkeypatch
):
    found = members()
    name, request = stands_before(found, stage)
    before = found.by_name[name].folder
    step = member.STEPS[stage]
    done = kills = 0
    while not done:
        kills += 1
        folder = tmp_path / f"killed-{kills}"
        shutil.copytree(before, folder)
        device = device_in(found, folder)
        done = not in_a_child(lambda d=device: step(d, ROUND, request), kills)
        # All of it opens again, and says nothing that was altered.
        home = open_home(folder, "correct horse", clock=found.clock)
        verdict = home.vault.verify()
        assert not verdict.damaged
        for path in folder.rglob("*.jsonl"):
            verify(line for line in read_lines(path) if line.endswith(b"\n"))
        booked = steps(folder)
        assert booked.count("reserve") <= 1
        assert booked.count("spend") <= booked.count("reserve")
        # The server asks once more: what is answered is answered once, and charged before.
        again = answers(found, step, folder, request)
        booked = steps(folder)
        assert booked.count("reserve") <= 1
        if stage == CONTRIBUTE and again is not None:
            assert booked[:2] == ["reserve", "spend"]
        if done:
            assert again is None, "it had answered"
        third = answers(found, step, folder, request)
        if again is not None:
            assert third is None, "twice is once too often"
        if stage == ADVERTISE and again is not None:
            Application.from_bytes(again)
        shutil.rmtree(folder)
    assert kills > (2 if stage in (SHARE, CONFIRM) else 5), "there were writes to be killed at"


@pytest.mark.parametrize("stage", [ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL])
@pytest.mark.parametrize("killed_at", [2, 5])
def test_the_next_round_is_sung_by_all(members, member, stage, killed_at):
    found = members()
    name, request = stands_before(found, stage)
    device = found.open(name)
    in_a_child(lambda: member.STEPS[stage](device, ROUND, request), killed_at)
    record = run_round(found, found.operator, 2)
    assert (record.status, record.survivors) == ("finished", 4), found.errors
    # What the killed round had reserved or spent stays charged; the new one is charged once.
    booked = steps(found.by_name[name].folder)
    assert booked[-3:] == ["reserve", "spend", "finish"]
    assert booked.count("reserve") <= 2
    left = folder_of(found.by_name[name].folder, "choir") / "rounds"
    assert not list(left.glob("*.sealed")), "the killed round's secrets are gone"
