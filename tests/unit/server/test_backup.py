"""A backup is of one moment, opens with its passphrase alone, and forgets nothing in silence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from chorister.server import backup as module
from chorister.server.backup import make_backup, restore
from chorister.server.backup_cli import backup as backup_command
from chorister.server.backup_cli import restore_ as restore_command
from chorister.server.installed import desk
from chorister.server.plan import Plan, read_plan, write_plan
from chorister.server.rounds import RoundRecord, append_round
from chorister.server.sealed_archive import open_sealed, read_header, seal
from chorister.server.server_folder import ServerFolder
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.files import hold_lock
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.randomness import SystemRandomness
from chorister.shared.types import Adapter

PASSPHRASE = "a few good words"
EVENT = PrivacyEvent("distributed discrete gaussian", 1.0, 1.0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(
        "chorister.server.sealed_archive.ARGON2", {"iterations": 1, "lanes": 1, "memory_kib": 8}
    )
    monkeypatch.setattr(module.time, "sleep", lambda s: None)


def _round(folder: ServerFolder, number: int) -> None:
    """What a finished round leaves, without any device."""
    operator = desk(folder)
    name = f"{operator.run}/{number}"
    parent = operator.registry.latest()
    operator.budget.reserve(name, ["a" * 16, "b" * 16], EVENT)
    operator.ledger.append("note", text=f"round {name} began")
    operator.budget.spend(name)
    values = np.full_like(operator.registry.get(parent.sha256).values, number)
    spec = operator.registry.get(parent.sha256).spec
    version = operator.registry.store(
        Adapter(values, spec), parent=parent.sha256, round_id=name, survivors=2
    )
    operator.ledger.append("note", text=f"round {name} made {version.sha256}")
    operator.ledger.checkpoint(operator.signing_key)
    append_round(
        operator.rounds_path,
        RoundRecord(
            number, "finished", None, 2, {}, {}, {}, 2, version.sha256, 2, 1.0, 1.0, 0, 0, 1.0
        ),
    )


@pytest.fixture
def folder(office):
    _round(office.folder, 1)
    _round(office.folder, 2)
    return office.folder


def _made(folder):
    return make_backup(folder, PASSPHRASE, SystemRandomness())


def _files(folder):
    return {
        str(p.relative_to(folder.root)): p.read_bytes() for p in folder.root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }  # fmt: skip


def test_a_restored_server_is_the_same_server(folder, tmp_path):
    write_plan(folder.plan_file, Plan(target=9))
    sealed = _made(folder)
    elsewhere = ServerFolder(tmp_path / "elsewhere" / "server")
    done = restore(elsewhere, sealed, PASSPHRASE)
    assert (done.rounds, done.forgot, done.former) == (2, 0, None)
    before, after = _files(folder), _files(elsewhere)
    # The same but for the plan: what was wanted then is not wanted now.
    assert {n for n in before if before[n] != after.get(n)} == {"state/plan.json"}
    assert read_plan(elsewhere.plan_file).target == 0
    assert elsewhere.signing_key.stat().st_mode & 0o077 == 0
    _round(elsewhere, 3)


def test_nothing_of_it_can_be_read_without_the_passphrase(folder):
    sealed = _made(folder)
    key = folder.signing_key.read_bytes()
    assert key not in sealed
    assert b"PRIVATE" not in sealed
    assert key in open_sealed(sealed, PASSPHRASE)
    header = read_header(sealed)
    assert header["rounds"] == 2
    Checkpoint.from_plain(header["checkpoint"]).check()


@pytest.mark.parametrize("where", [0, 5, 25, 60, 200, 3000, -1, -20])
def test_a_changed_bit_anywhere_is_seen(folder, tmp_path, where):
    data = bytearray(_made(folder))
    data[where] ^= 1
    with pytest.raises((UsageError, BadLedger)):
        restore(ServerFolder(tmp_path / "new"), bytes(data), PASSPHRASE)
    assert not (tmp_path / "new").exists()


def test_a_cut_or_reordered_file_is_seen():
    data = b"".join(bytes([i]) * 65_536 for i in range(4))
    sealed = seal(data, PASSPHRASE, {}, SystemRandomness())
    assert open_sealed(sealed, PASSPHRASE) == data
    size = 65_536 + 16
    start = len(sealed) - 4 * size
    head, parts = sealed[:start], [sealed[start + i * size :][:size] for i in range(4)]
    for other in (parts[:3], [parts[1], parts[0], *parts[2:]], [*parts, parts[3]], parts[:1]):
        with pytest.raises(UsageError):
            open_sealed(head + b"".join(other), PASSPHRASE)
    with pytest.raises(UsageError, match="another passphrase"):
        open_sealed(sealed, "another passphrase")


def test_a_header_cannot_ask_for_a_terabyte(folder):
    sealed = _made(folder)
    greedy = sealed.replace(b'"memory_kib": 8', b'"memory_kib": 9999999999')
    assert greedy != sealed
    with pytest.raises(UsageError):
        open_sealed(greedy, PASSPHRASE)


def test_a_short_passphrase_seals_nothing(folder):
    with pytest.raises(UsageError, match="12 characters"):
        make_backup(folder, "short", SystemRandomness())


def test_going_back_behind_what_the_folder_knows_is_refused(folder):
    sealed = _made(folder)
    _round(folder, 3)
    before = _files(folder)
    with pytest.raises(UsageError, match="forgets no round"):
        restore(folder, sealed, PASSPHRASE)
    assert _files(folder) == before


def test_an_accepted_rollback_forgets_no_budget_and_reuses_no_name(folder):
    sealed = _made(folder)
    _round(folder, 3)
    spent, old_run = desk(folder).budget.epsilon("a" * 16), desk(folder).run
    done = restore(folder, sealed, PASSPHRASE, accept_rollback=True)
    assert done.forgot > 0
    operator = desk(folder)
    assert operator.budget.epsilon("a" * 16) == spent
    assert operator.run != old_run
    assert "restored" in folder.ledger.read_text()
    assert len(operator.registry.versions()) == 3
    _round(folder, 3)  # no round is named as one that devices may know
    assert desk(folder).budget.epsilon("a" * 16) > spent
    assert done.former is not None
    assert (done.former / "state" / "ledger.jsonl").exists()


def test_a_checkpoint_kept_elsewhere_shows_a_rollback_of_an_empty_folder(folder, tmp_path):
    early = _made(folder)
    _round(folder, 3)
    late = Checkpoint.from_plain(read_header(_made(folder))["checkpoint"])
    empty = ServerFolder(tmp_path / "new")
    with pytest.raises(UsageError, match="forgets no round"):
        restore(empty, early, PASSPHRASE, checkpoints=(late,))
    assert restore(empty, _made(folder), PASSPHRASE, checkpoints=(late,)).rounds == 3


def test_another_servers_backup_does_not_go_into_this_folder(folder, offices, tmp_path):
    (tmp_path / "other").mkdir()
    other = offices.an_office(tmp_path / "other").folder
    with pytest.raises(BadLedger, match="same server"):
        restore(other, _made(folder), PASSPHRASE)


def test_a_spoilt_ledger_is_not_backed_up_as_if_it_were_sound(folder):
    data = folder.ledger.read_bytes()
    folder.ledger.write_bytes(data.replace(b" made ", b" mode ", 1))
    with pytest.raises(BadLedger):
        _made(folder)


def test_a_running_server_is_not_replaced(folder):
    sealed = _made(folder)
    assert hold_lock(folder.lock_file, 0.0)
    with pytest.raises(UsageError, match="does not run"):
        restore(folder, sealed, PASSPHRASE)


def test_a_round_that_ends_meanwhile_makes_it_copy_again(folder, monkeypatch):
    copied = []
    copy = module._copy

    def slowly(of):
        data = copy(of)
        if not copied:
            _round(of, 3)
        copied.append(data)
        return data

    monkeypatch.setattr(module, "_copy", slowly)
    assert read_header(_made(folder))["rounds"] == 3
    assert len(copied) == 2


def test_the_commands(folder, tmp_path, capsys):
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    common = ["--passphrase-file", str(secret), "--json"]
    into = tmp_path / "backups"
    assert backup_command(["--folder", str(folder.root), "--into", str(into), *common]) == 0
    path = Path(json.loads(capsys.readouterr().out)["file"])
    assert path.stat().st_mode & 0o077 == 0
    _round(folder, 3)
    assert backup_command(["--folder", str(folder.root), "--into", str(tmp_path), *common]) == 0
    later = json.loads(capsys.readouterr().out)["checkpoint_file"]
    shutil.rmtree(folder.root)
    with pytest.raises(UsageError, match="forgets no round"):
        restore_command(
            ["--folder", str(folder.root), str(path), "--checkpoint", later, *common]
        )  # fmt: skip
    assert restore_command(["--folder", str(folder.root), str(path), *common]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2
    with pytest.raises(UsageError):
        restore_command(["--folder", str(folder.root), str(secret), *common])


def test_a_folder_that_is_older_than_the_backup_brings_no_budget_back(folder, tmp_path):
    early = _made(folder)
    _round(folder, 3)
    middle, spent = _made(folder), desk(folder).budget.epsilon("a" * 16)
    _round(folder, 4)
    late = Checkpoint.from_plain(read_header(_made(folder))["checkpoint"])
    older = ServerFolder(tmp_path / "older")
    restore(older, early, PASSPHRASE)
    assert desk(older).budget.epsilon("a" * 16) < spent
    done = restore(older, middle, PASSPHRASE, checkpoints=(late,), accept_rollback=True)
    assert done.forgot > 0
    assert desk(older).budget.epsilon("a" * 16) == spent


def test_a_budget_of_another_history_is_not_taken_over(folder):
    sealed = _made(folder)
    _round(folder, 3)
    lines = folder.budget.read_bytes().splitlines(keepends=True)
    folder.budget.write_bytes(b"".join(lines[:1] + lines[2:]))
    before = _files(folder)
    with pytest.raises(BadLedger, match="one journal"):
        restore(folder, sealed, PASSPHRASE, accept_rollback=True)
    assert _files(folder) == before


def test_a_round_that_ends_during_a_restoration_is_not_forgotten(folder, monkeypatch):
    sealed = _made(folder)
    look = module._look_for_rollback

    def slowly(of, *rest):
        found = look(of, *rest)
        _round(of, 3)
        return found

    monkeypatch.setattr(module, "_look_for_rollback", slowly)
    with pytest.raises(UsageError, match="grew meanwhile"):
        restore(folder, sealed, PASSPHRASE)
    assert len(desk(folder).registry.versions()) == 4


@pytest.mark.parametrize(
    ("name", "value"), [("memory_kib", b"1"), ("memory_kib", b"Infinity"), ("lanes", b"16")]
)
def test_a_header_that_nobody_wrote_is_no_backup(folder, name, value):
    changed = re.sub(rb'("%s": )[0-9]+' % name.encode(), rb"\g<1>" + value, _made(folder), count=1)
    data = bytearray(changed)
    start = len(b"chorister-backup-1\n")
    header = changed[start + 4 : changed.index(b"}", changed.index(b'"salt"')) + 1]
    data[start : start + 4] = len(header).to_bytes(4, "big")
    with pytest.raises(UsageError, match="wrote"):
        open_sealed(bytes(data), PASSPHRASE)
