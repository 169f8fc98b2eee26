import json
import sqlite3
from contextlib import closing

import pytest

from chorister.client import vault_key
from chorister.client.vault import KEY_FILE, Vault, VaultError, Verdict
from chorister.client.vault_index import INDEX_FILE
from chorister.shared.errors import UsageError
from chorister.shared.randomness import SystemRandomness

RANDOMNESS = SystemRandomness()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The least that Argon2id allows: these tests are about the vault, not about its cost."""
    monkeypatch.setattr(vault_key, "ARGON2", {"iterations": 1, "lanes": 1, "memory_kib": 8})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "vault"


def file_of(vault, name):
    (item,) = [item for item in vault.items() if item.name == name]
    return vault.folder / "items" / item.sha256


def test_a_wrong_passphrase_opens_nothing(folder):
    Vault.create(folder, "right", RANDOMNESS).put("identity", b"secret")
    for wrong in ("wrong", ""):
        with pytest.raises(VaultError, match="The passphrase opens the vault"):
            Vault.open(folder, wrong, RANDOMNESS)
    assert Vault.open(folder, "right", RANDOMNESS).get("identity") == b"secret"


def test_nothing_readable_is_on_the_disk(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("consent", b"The speaker allows this.")
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        assert b"speaker" not in path.read_bytes()
        assert b"consent" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b"",
        lambda b: b[:5],
        lambda b: bytes([b[0] ^ 1]) + b[1:],
        lambda b: b + b"x",
    ],
)
def test_a_damaged_item_is_refused(folder, damage):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("identity", b"secret")
    path = file_of(vault, "identity")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VaultError, match="'identity' altered"):
        vault.get("identity")
    assert vault.verify().damaged == ("identity",)


def test_a_missing_file_is_damage(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("identity", b"secret")
    file_of(vault, "identity").unlink()
    with pytest.raises(VaultError, match="missing"):
        vault.get("identity")


def test_an_older_copy_or_another_items_file_is_refused(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("speaker", b"profile")
    vault.put("adapter", b"values")
    old, sealed = file_of(vault, "speaker"), file_of(vault, "speaker").read_bytes()
    file_of(vault, "adapter").write_bytes(sealed)
    with pytest.raises(VaultError, match="swapped"):
        vault.get("adapter")
    vault.put("speaker", b"newer profile")
    assert not old.exists()
    file_of(vault, "speaker").write_bytes(sealed)
    with pytest.raises(VaultError, match="'speaker' altered"):
        vault.get("speaker")


def test_an_index_row_of_another_item_or_vault_is_refused(folder, tmp_path):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("speaker", b"profile")
    other = Vault.with_key(tmp_path / "other", bytes(32), RANDOMNESS)
    other.put("speaker", b"x")
    with closing(sqlite3.connect(folder / INDEX_FILE)) as database, database:
        database.execute("UPDATE items SET time_s = time_s + 1")
    with pytest.raises(VaultError, match="row of the vault's index"):
        vault.get("speaker")
    (folder / INDEX_FILE).write_bytes((tmp_path / "other" / INDEX_FILE).read_bytes())
    assert not vault.has("speaker")
    with pytest.raises(VaultError, match="row of the vault's index"):
        vault.items()


@pytest.mark.parametrize("kept", [None, 0, 1, 99, 4096])
def test_a_lost_or_cut_off_index_is_refused_and_made_anew_from_the_items(folder, kept):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("speaker", b"profile", "features")
    vault.put("identity", b"secret", "key")
    items, whole = vault.items(), (folder / INDEX_FILE).read_bytes()
    (folder / INDEX_FILE).unlink()
    if kept is not None:
        (folder / INDEX_FILE).write_bytes(whole[:kept])
    vault = Vault.open(folder, "right", RANDOMNESS)
    for use in (lambda: vault.get("speaker"), lambda: vault.put("speaker", b"x"), vault.verify):
        with pytest.raises(VaultError, match="verify --repair"):
            use()
    assert vault.repair().sound == items
    assert vault.get("speaker") == b"profile"


def test_of_two_contents_that_a_crash_left_the_index_names_one_and_verify_sweeps_the_other(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("speaker", b"old")
    old, path = file_of(vault, "speaker").read_bytes(), file_of(vault, "speaker")
    vault.put("speaker", b"new")
    path.write_bytes(old)
    (folder / "items" / ".half").write_bytes(b"never finished")
    assert vault.verify().leftovers == 2
    assert vault.verify() == Verdict(vault.items(), (), 0)
    assert vault.get("speaker") == b"new"


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(format=2),
        lambda p: p.update(kdf="md5"),
        lambda p: p.pop("salt"),
        lambda p: p.update(salt="zz"),
        lambda p: p.update(memory_kib=2**40),
        lambda p: p.update(iterations=0),
    ],
)
def test_a_key_file_with_other_contents_is_refused(folder, change):
    Vault.create(folder, "right", RANDOMNESS)
    plain = json.loads((folder / KEY_FILE).read_bytes())
    change(plain)
    (folder / KEY_FILE).write_text(json.dumps(plain))
    with pytest.raises(VaultError, match="Argon2id"):
        Vault.open(folder, "right", RANDOMNESS)


def test_a_folder_that_others_can_read_is_refused(folder):
    Vault.create(folder, "right", RANDOMNESS)
    folder.chmod(0o750)
    with pytest.raises(VaultError, match="chmod 700"):
        Vault.open(folder, "right", RANDOMNESS)
    with pytest.raises(VaultError, match="chmod 700"):
        Vault.with_key(folder, bytes(32), RANDOMNESS)


def test_another_users_folder_is_refused(folder, monkeypatch):
    Vault.create(folder, "right", RANDOMNESS)
    monkeypatch.setattr("os.geteuid", lambda: 12_345)
    with pytest.raises(VaultError, match="opened by user 12345"):
        Vault.open(folder, "right", RANDOMNESS)


def test_a_vault_is_not_made_over_something_else(folder):
    Vault.create(folder, "right", RANDOMNESS)
    with pytest.raises(UsageError, match="empty folder"):
        Vault.create(folder, "right", RANDOMNESS)
    with pytest.raises(UsageError, match="has a passphrase"):
        Vault.create(folder.with_name("new"), "", RANDOMNESS)
    with pytest.raises(VaultError, match="Enrol first"):
        Vault.open(folder.with_name("new"), "right", RANDOMNESS)


@pytest.mark.parametrize("name", ["", "../identity", "A", "a/b", ".hidden", "a" * 65])
def test_a_name_that_is_no_item_is_refused(folder, name):
    vault = Vault.with_key(folder, bytes(32), RANDOMNESS)
    with pytest.raises(UsageError, match="An item's name"):
        vault.put(name, b"")


def test_missing_items_are_named(folder):
    vault = Vault.with_key(folder, bytes(32), RANDOMNESS)
    with pytest.raises(VaultError, match="only nothing"):
        vault.get("identity")
    vault.put("consent", b"")
    with pytest.raises(VaultError, match="only consent"):
        vault.get("identity")
    assert vault.names() == ("consent",)
    vault.delete("consent")
    vault.delete("consent")
    assert not vault.has("consent")


def test_destroying_removes_key_and_items_and_leaves_the_ledger(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("identity", b"secret")
    (folder / "ledger.jsonl").write_text("{}")
    vault.destroy()
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock"] == ["ledger.jsonl"]


def test_the_same_item_is_sealed_anew_each_time(folder):
    vault = Vault.with_key(folder, bytes(32), RANDOMNESS)
    vault.put("speaker", b"profile")
    first = file_of(vault, "speaker").read_bytes()
    vault.put("speaker", b"profile")
    assert file_of(vault, "speaker").read_bytes() != first


def test_the_default_cost_is_that_of_the_rfc(monkeypatch, folder):
    monkeypatch.undo()
    Vault.create(folder, "right", RANDOMNESS)
    plain = json.loads((folder / KEY_FILE).read_bytes())
    # RFC 9106, section 4, second recommended option.
    assert (plain["iterations"], plain["lanes"], plain["memory_kib"]) == (3, 4, 64 * 1024)
