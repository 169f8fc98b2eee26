"""What `chorister doctor` finds, and that each thing that is missing says what to do."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest

from chorister.client import doctor_checks as checks
from chorister.client import doctor_cli, doctor_speed
from chorister.client.doctor_cli import main
from chorister.client.enrol import TRAINING
from chorister.client.home import create_home
from chorister.shared.console import apply_output_options
from chorister.shared.errors import BadWeights

pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


@pytest.fixture
def home(member, material, tmp_path):
    from chorister.shared.privacy.ledger_file import system_clock

    return member.a_home(tmp_path / "vault", material, member.Clock(system_clock()))


def shown(capsys, *arguments):
    status = main([*map(str, arguments), "--json", "--no-speed"])
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is (status == 0)
    return status, {check["name"]: check for check in found["checks"]}


def test_a_machine_that_is_ready(home, capsys):
    status, found = shown(capsys)
    assert status == 0, [c for c in found.values() if c["state"] == "missing"]
    assert found["consent to training"]["state"] == "good"
    assert found["enrolled speech"]["found"] == "5 training segments"
    assert "CPUExecutionProvider" in found["onnxruntime providers"]["found"]
    assert found["base model"]["state"] == "good"


def test_whatever_is_missing_says_what_to_do_and_the_status_is_1(home, capsys, tmp_path):
    assert shown(capsys, "--vault", tmp_path / "none")[0] == 1
    home.vault.delete(TRAINING)
    status, found = shown(capsys)
    assert status == 1
    assert "chorister enrol" in found["enrolled speech"]["advice"]
    home.folder.chmod(0o755)
    status, found = shown(capsys)
    assert (status, found["vault"]["state"]) == (1, "missing")
    assert "chmod 700" in found["vault"]["advice"]
    for check in found.values():
        assert check["state"] != "missing" or check["advice"], check


def test_a_vault_that_needs_a_person_is_not_opened(home, capsys, monkeypatch):
    monkeypatch.delenv("CHORISTER_PASSPHRASE_FILE")
    status, found = shown(capsys)
    assert status == 0
    assert found["consent"]["state"] == "note"


def test_a_vault_without_a_consent(tmp_path, capsys):
    create_home(tmp_path / "bare", "correct horse")
    status, found = shown(capsys, "--vault", tmp_path / "bare")
    assert status == 1
    assert "chorister enrol" in found["consent to training"]["advice"]


def test_a_member_without_its_certificate(home, member, capsys):
    from chorister.client.agreement import OwnerLimits, agree

    now = home.now_s()
    agree(home, member.an_invite(issued_s=now, expires_s=now + 500), OwnerLimits())
    status, found = shown(capsys)
    assert status == 1
    assert "join --certificate" in found["member of 'choir'"]["advice"]


def test_a_clock_that_is_wrong(tmp_path):
    assert checks.clock(tmp_path, lambda: 1_000_000.0).state == "missing"
    (tmp_path / "ledger.jsonl").write_text("")
    newest = (tmp_path / "ledger.jsonl").stat().st_mtime
    assert checks.clock(tmp_path, lambda: newest - 10_000).state == "missing"
    assert checks.clock(tmp_path, lambda: newest + 10).state in ("good", "note")


def test_a_full_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(10, 10, 1000))
    assert checks.disk(tmp_path / "not" / "there").state == "missing"


def test_a_base_that_was_altered(monkeypatch):
    from chorister.shared.voice import base

    def altered():
        raise BadWeights("The base.", "another digest", "Reinstall.")

    monkeypatch.setattr(base, "load_base", altered)
    assert checks.base_weights().state == "missing"


@pytest.mark.parametrize(
    ("driver", "built_for", "advice"),
    [
        ("none", None, ""),
        ("555.1", None, "Install the torch"),
        ("555.1", "13.0", "Update the driver"),
    ],
)
def test_without_a_usable_gpu_it_says_why(monkeypatch, driver, built_for, advice):
    monkeypatch.setattr(checks, "_driver", lambda: driver)
    check = checks._no_cuda(built_for)
    assert check.state == "note"
    assert check.advice.startswith(advice)


def test_speed_is_of_nobodys_voice_and_leaves_nothing(tmp_path, monkeypatch, capsys, home):
    monkeypatch.setattr(doctor_speed, "SEGMENTS", 4)
    monkeypatch.setattr(doctor_speed, "HELD_OUT", 2)
    monkeypatch.setattr(doctor_speed, "TRIALS", 1)
    monkeypatch.setattr(doctor_speed, "SOURCE_S", 2.0)
    before = home.vault.names(), home.ledger.head
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "A round of 4 segments trains in" in said
    assert "Ready." in said
    assert (home.vault.names(), home.ledger.head) == before
    assert doctor_cli.SUMMARY
