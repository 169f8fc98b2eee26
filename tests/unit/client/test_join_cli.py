"""`chorister join` up to the point where it takes part, and everything that is refused before."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess

import pytest

from chorister.client import home as home_module
from chorister.client import join_cli, join_unit
from chorister.client.agreement import agreements
from chorister.client.consent import narrow
from chorister.client.enrol import TRAINING
from chorister.client.home import create_home, open_home
from chorister.client.join_cli import main
from chorister.client.membership import membership, node_key_of
from chorister.client.withdraw import withdraw
from chorister.shared.console import apply_output_options
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import (
    BadCorpus,
    BadMessage,
    BadSettings,
    BadSignature,
    BadWeights,
    ConsentRefused,
    UsageError,
)
from chorister.shared.invite import ModelRelease
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.settings import Accountability
from chorister.shared.signing import Certificate, SigningKey

OTHER = SigningKey(bytes(range(1, 33)))
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


@pytest.fixture
def now_s():
    return system_clock()


@pytest.fixture
def mine(member, material, tmp_path, now_s):
    return member.a_home(tmp_path / "vault", material, member.Clock(now_s))


@pytest.fixture
def written(member, tmp_path, now_s):
    """Writes an invitation and returns its file's name."""

    def write(authority=member.AUTHORITY, *, token=False, **changed):
        times = {"issued_s": now_s, "expires_s": now_s + 1000}
        if token:
            changed["token"] = EnrolmentToken(
                member.NAME, authority.verify_key(), bytes(32), now_s + 1000
            )
        path = tmp_path / "invitation"
        path.write_bytes(member.an_invite(authority, **(times | changed)).to_bytes())
        return str(path)

    return write


def reopened(tmp_path):
    return open_home(tmp_path / "vault", "correct horse")


def test_it_shows_asks_pins_and_writes_a_request(mine, written, member, tmp_path, capsys):
    request = tmp_path / "request"
    assert main(["--invite", written(token=True), "--yes", "--request", str(request)]) == 0
    said = capsys.readouterr().out
    for part in (
        "Up to 3 rounds", "320 numbers", "epsilon", "stays here", "WITHOUT encryption",
        member.AUTHORITY.verify_key().name, mine.device.name,
    ):  # fmt: skip
        assert part in said
    assert max(map(len, said.partition("Agreed")[0].splitlines())) < 101
    proof = PossessionProof.from_bytes(request.read_bytes())
    proof.check()
    assert proof.node_key == node_key_of(reopened(tmp_path), member.NAME).public_bytes()
    assert agreements(reopened(tmp_path))[0].federation == member.NAME


def test_nothing_is_stored_without_a_yes(mine, written, member, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(home_module, "ask_openly", lambda prompt: "y")
    assert main(["--invite", written(token=True)]) == 0
    assert "Nothing was agreed to" in capsys.readouterr().out
    assert agreements(reopened(tmp_path)) == ()
    assert membership(reopened(tmp_path), member.NAME) is None
    monkeypatch.undo()


def test_a_person_is_asked_and_not_assumed(mine, written):
    with pytest.raises(UsageError, match="--yes"):
        main(["--invite", written(token=True)])


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_nothing_is_agreed_to_unread(mine, written, tmp_path, option, monkeypatch):
    monkeypatch.setattr(home_module, "ask_openly", lambda prompt: "yes")
    with pytest.raises(UsageError, match="reads what is asked"):
        main(["--invite", written(), option])
    assert agreements(reopened(tmp_path)) == ()


def test_another_federation_is_said_to_add_up(mine, written, member, capsys, now_s):
    assert main(["--invite", written(), "--yes"]) == 0
    capsys.readouterr()
    quire = written(
        federation="quire", terms=member.TERMS.model_copy(update={"name": "quire"}),
        release=ModelRelease.sign(
            member.AUTHORITY, "quire", member.BASE_SHA256, member.SPEC, now_s
        ),
    )  # fmt: skip
    assert main(["--invite", quire, "--yes"]) == 0
    assert "adds up" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--federation NAME"):
        main([])


def test_an_invitation_for_everybody_needs_a_token_beside_it(mine, written, capsys, tmp_path):
    assert main(["--invite", written(), "--yes"]) == 0
    assert "membership request TOKEN" in capsys.readouterr().out
    assert len(agreements(reopened(tmp_path))) == 1


def test_what_is_wrong_with_an_invitation_is_said_before_anything_is_stored(
    mine, written, member, tmp_path, now_s
):
    for wrong, error, what in [
        ({"expires_s": now_s - 5, "issued_s": now_s - 50}, BadSignature, "ended"),
        ({"issued_s": now_s + 5000, "expires_s": now_s + 9000}, BadSignature, "clock"),
        (
            {"release": ModelRelease.sign(
                member.AUTHORITY, member.NAME, "c" * 64, member.SPEC, now_s
            )},
            BadWeights, "Install the version",
        ),
    ]:  # fmt: skip
        with pytest.raises(error, match=what):
            main(["--invite", written(**wrong), "--yes"])
    path = tmp_path / "invitation"
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(data).replace(b"127.0.0.1:9092", b"127.0.0.1:9093"))
    with pytest.raises(BadSignature):
        main(["--invite", written(), "--authority", "0" * 16, "--yes"])
    path.write_bytes(path.read_bytes().replace(b"127.0.0.1:9092", b"127.0.0.1:9093"))
    with pytest.raises(BadSignature, match="does not verify"):
        main(["--invite", str(path), "--yes"])
    path.write_bytes(b"<html>")
    with pytest.raises(BadMessage):
        main(["--invite", str(path), "--yes"])
    assert agreements(reopened(tmp_path)) == ()


def test_an_invitation_of_another_authority_than_the_pinned_one(mine, written, tmp_path, member):
    assert main(["--invite", written(), "--yes"]) == 0
    with pytest.raises(BadSignature, match="pinned the authority"):
        main(["--invite", written(
            OTHER, release=ModelRelease.sign(OTHER, member.NAME, member.BASE_SHA256, member.SPEC, 1)
        ), "--yes"])  # fmt: skip


def test_consent_and_recordings_come_first(mine, written, member, material, tmp_path, monkeypatch):
    mine.vault.delete(TRAINING)
    with pytest.raises(BadCorpus, match="chorister enrol"):
        main(["--invite", written(), "--yes"])
    silent = create_home(tmp_path / "silent", "correct horse")
    with pytest.raises(ConsentRefused, match="no consent was given"):
        main(["--invite", written(), "--yes", "--vault", str(silent.folder)])
    other = member.a_home(
        tmp_path / "narrow", material, member.Clock(system_clock()),
        purposes=("conversion", "training"),
    )  # fmt: skip
    other.keep_consent(
        narrow(other.consent, other.key, purposes=("conversion",), now_s=system_clock()), "narrowed"
    )
    with pytest.raises(ConsentRefused, match="covers conversion only"):
        main(["--invite", written(), "--yes", "--vault", str(other.folder)])


def test_withdrawn_locked_and_missing_vaults(mine, written, tmp_path, monkeypatch):
    from chorister.client.vault import VaultError

    with pytest.raises(VaultError, match="wrong one"):
        wrong = tmp_path / "wrong"
        wrong.write_text("another\n")
        main(["--invite", written(), "--yes", "--passphrase-file", str(wrong)])
    with pytest.raises(VaultError):
        main(["--vault", str(tmp_path / "none")])
    withdraw(open_home(mine.folder, "correct horse"))
    with pytest.raises(ConsentRefused, match="withdrawn"):
        main(["--invite", written(), "--yes"])


def test_nothing_to_take_part_in_is_said(mine, written, tmp_path):
    with pytest.raises(UsageError, match="chorister join --invite"):
        main([])
    assert main(["--invite", written(), "--yes"]) == 0
    with pytest.raises(UsageError, match="no agreement with 'quire'"):
        main(["--federation", "quire"])
    with pytest.raises(UsageError, match="--certificate FILE"):
        main([])
    with pytest.raises(UsageError, match="can be read"):
        main(["--certificate", str(tmp_path / "none")])


def test_a_certificate_leads_into_taking_part(mine, written, member, tmp_path, monkeypatch, now_s):
    assert main(["--invite", written(), "--yes"]) == 0
    path = tmp_path / "certificate"
    path.write_bytes(
        Certificate.issue(member.AUTHORITY, mine.device, member.NAME, now_s + 500).to_bytes()
    )
    from chorister.client import take_part

    seen = []
    monkeypatch.setattr(
        take_part, "take_part", lambda home, agreed, settings, for_s: seen.append(
            (agreed.federation, settings.hours, for_s)) or "told to",
    )  # fmt: skip
    assert main(["--certificate", str(path), "--hours", "01:00-02:00", "--for", "5"]) == 0
    assert seen == [(member.NAME, "01:00-02:00", 5.0)]


def test_settings_come_from_the_vault_and_options_before_them(mine, tmp_path):
    (mine.folder / join_cli.SETTINGS_FILE).write_text('hours = "22:00-07:00"\nthreads = 3\n')
    options = join_cli._parser().parse_args(["--threads", "1", "--any-power"])
    found = join_cli.read_settings(mine.folder, options)
    assert (found.hours, found.threads, found.on_mains, found.idle) == (
        "22:00-07:00", 1, False, True,
    )  # fmt: skip
    (mine.folder / join_cli.SETTINGS_FILE).write_text("thread = 3\n")
    with pytest.raises(BadSettings, match="Did you mean 'threads'"):
        join_cli.read_settings(mine.folder, options)


def test_pause_and_resume_need_no_passphrase(mine, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("CHORISTER_PASSPHRASE_FILE")
    assert main(["--pause"]) == 0
    assert main(["--pause"]) == 0
    assert "as before" in capsys.readouterr().out
    assert main(["--resume"]) == 0
    assert "not paused" in capsys.readouterr().out
    with pytest.raises(UsageError):
        main(["--pause", "--vault", str(tmp_path / "none")])


def test_what_an_invitation_says_cannot_command_a_terminal(mine, written, member, capsys):
    evil = member.TERMS.model_copy(
        update={"accountability": Accountability(purpose="good\x1b[2J\x1b]0;x\x07", controller="A")}
    )
    assert main(["--invite", written(terms=evil), "--yes"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "your consent names 'choir', the invitation 'A'" in said


def options(*arguments):
    return join_cli._parser().parse_args(list(arguments))


def test_the_unit_repeats_what_was_asked_and_holds_no_secret(mine, passphrase_file, tmp_path):
    text = join_unit.unit_text(
        mine.folder, options("--install-unit", "--hours", "22:00-07:00", "--memory", "2")
    )
    assert f"--vault {mine.folder}" in text
    assert "--hours 22:00-07:00" in text
    assert "MemoryMax=5G" in text
    assert str(passphrase_file) in text
    assert "correct horse" not in text


def test_what_the_unit_starts_is_this_command(mine):
    text = join_unit.unit_text(mine.folder, options("--install-unit"))
    (line,) = [part for part in text.splitlines() if part.startswith("ExecStart=")]
    command = shlex.split(line.removeprefix("ExecStart="))
    assert command[1:3] == ["join", "--vault"]
    found = subprocess.run(
        [*command[:2], "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert "usage: chorister join" in found.stdout
    main_options = join_cli._parser().parse_args(command[2:])
    assert main_options.vault == mine.folder.resolve()


def test_a_unit_that_nobody_can_open_is_not_written(mine, monkeypatch):
    monkeypatch.delenv("CHORISTER_PASSPHRASE_FILE")
    with pytest.raises(UsageError, match="without a person"):
        join_unit.unit_text(mine.folder, options("--install-unit"))


@pytest.mark.parametrize(
    ("part", "escaped"),
    [
        ("plain", "plain"),
        ("with space", '"with space"'),
        ("50%", '"50%%"'),
        ("$HOME", '"$$HOME"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
    ],
)
def test_arguments_reach_systemd_as_they_are(part, escaped):
    assert join_unit._escape(part) == escaped


def test_systemd_finds_nothing_wrong_with_the_unit(mine, tmp_path, monkeypatch):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    text = join_unit.unit_text(mine.folder, options("--install-unit", "--memory", "2"))
    for unit, status in [(text, 0), (text.replace("Nice=10", "Nicer=10"), 1),
                         (text.replace("ExecStart=/", "ExecStart="), 1)]:  # fmt: skip
        path = tmp_path / join_unit.UNIT
        path.write_text(unit)
        found = subprocess.run(
            ["systemd-analyze", "--user", "verify", str(path)], capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        bad = [line for line in found.stderr.splitlines() if join_unit.UNIT in line]
        assert bool(bad or found.returncode) is bool(status), found.stderr


def test_installing_without_systemd_writes_the_file_and_says_what_to_do(
    mine, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(join_unit, "_systemctl", lambda *arguments: False)
    assert main(["--install-unit"]) == 1
    assert join_unit.unit_path().exists()
    assert "systemctl --user enable" in capsys.readouterr().err
    assert main(["--remove-unit"]) == 0
    assert not join_unit.unit_path().exists()


def test_json_says_where_the_request_is(mine, written, tmp_path, capsys):
    request = tmp_path / "request"
    assert main(
        ["--invite", written(token=True), "--yes", "--request", str(request), "--json"]
    ) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["request"] == str(request)
    assert isinstance(options("--json"), argparse.Namespace)
