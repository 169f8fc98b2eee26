"""What `chorister status` reads from a device's files, running or not."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace

import pytest

from chorister.client.agreement import folder_of
from chorister.client.budget_cli import main as budget
from chorister.client.daemon import LOCK_FILE, STATUS_FILE, pause
from chorister.client.home import open_home
from chorister.client.status import parts, vault_state
from chorister.client.status_cli import main
from chorister.client.vault import MOVED_FILE
from chorister.client.withdraw import withdraw
from chorister.server.round import run_round
from chorister.shared.console import apply_output_options
from chorister.shared.errors import BadLedger
from chorister.shared.records import CONTRIBUTE


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


@pytest.fixture
def sung(members):
    """Members after two rounds; the first was not there for the sum of the second."""
    found = members()
    run_round(found, found.operator, 1)
    found.gone = {"query.confirm": {found.names[0]}}
    run_round(found, found.operator, 2)
    return found


def test_rounds_budget_and_refusals_without_a_passphrase(sung, capsys, monkeypatch):
    monkeypatch.delenv("CHORISTER_PASSPHRASE_FILE", raising=False)
    folder = sung.by_name[sung.names[0]].folder
    (part,) = parts(folder)
    assert (part.federation, part.device, part.rounds_in_all) == ("choir", sung.names[0], 2)
    assert [(r.round_id, r.last) for r in part.rounds] == [
        ("run/2", "contributed"), ("run/1", "revealed"),
    ]  # fmt: skip
    assert {row.account for row in part.budget} == {"segment", "speaker"}
    assert "held-out loss" in part.rounds[1].judged
    assert main(["--vault", str(folder)]) == 0
    said = capsys.readouterr().out
    for words in ("not running", "run/2: contributed, no sum seen", "run/1: done", "budget   spea"):
        assert words in said
    assert main(["--vault", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vault"] == "in use"
    assert found["federations"][0]["rounds"][1]["last"] == "revealed"


def test_the_budget_of_the_one_federation_is_found(sung, capsys):
    folder = sung.by_name[sung.names[0]].folder
    assert budget([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["owner"] == sung.names[0]


def test_a_refusal_in_a_round_stands_beside_it(members):
    found = members(2)
    name = found.names[0]
    device = found.open(name)
    run_round(found, found.operator, 1)
    device.ledger.append("refusal", exchange=CONTRIBUTE, round="run/1", rule="r", found="it was 9")
    device.ledger.append("refusal", exchange="query.hello", round="", rule="r", found="a bundle")
    (part,) = parts(found.by_name[name].folder)
    assert part.rounds[0].refusals == ("it was 9",)
    assert part.refusals == ("a bundle",)


def test_why_it_is_not_training_now(members, capsys):
    found = members(1)
    folder = found.homes[0].folder
    own = folder_of(folder, "choir")
    found.open(found.names[0])
    lock = os.open(own / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        for state, reason, in_round, said in [
            ("waiting", "the machine runs on its battery", False, "battery"),
            ("connected", "", True, "under way"),
            ("connected", "", False, "asks for no round"),
        ]:
            plain = {"state": state, "reason": reason, "since_s": 5, "in_round": in_round}
            (own / STATUS_FILE).write_text(json.dumps(plain))
            (part,) = parts(folder)
            assert part.state == state
            assert said in part.reason
        (own / STATUS_FILE).write_text("{")
        assert parts(folder)[0].state == "running"
    finally:
        os.close(lock)
    # What a killed process left says nothing: the operating system knows that it is gone.
    (own / STATUS_FILE).write_text(json.dumps(plain))
    assert parts(folder)[0].state == "not running"
    pause(folder, paused=True)
    assert "paused" in parts(folder)[0].reason


def test_the_vaults_own_state(members, tmp_path, capsys):
    found = members(1)
    folder = found.homes[0].folder
    assert vault_state(folder) == "in use"
    assert vault_state(tmp_path / "none") == "none"
    (folder / MOVED_FILE).write_text("{}")
    assert vault_state(folder) == "moved to another machine"
    (folder / MOVED_FILE).unlink()
    withdraw(open_home(folder, "correct horse", clock=found.clock))
    assert vault_state(folder) == "withdrawn"
    assert main(["--vault", str(tmp_path / "none")]) == 0
    assert "chorister join --invite" in capsys.readouterr().out


def test_an_altered_ledger_is_an_error_and_an_unfinished_line_is_not(sung):
    folder = sung.by_name[sung.names[0]].folder
    path = folder_of(folder, "choir") / "ledger.jsonl"
    data = path.read_bytes()
    path.write_bytes(data + b'{"half')
    assert parts(folder)[0].rounds_in_all == 2
    path.write_bytes(data.replace(b"contributed", b"contributes"))
    with pytest.raises(BadLedger):
        parts(folder)


def test_what_a_server_called_a_round_cannot_command_a_terminal(members, capsys):
    found = members(2)
    found.operator = replace(found.operator, run="evil\x1b[2J")
    run_round(found, found.operator, 1)
    assert main(["--vault", str(found.homes[0].folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out
