import json

import pytest

from chorister.client import vault as vault_module
from chorister.client.vault import KEY_FILE, Vault, VaultError
from chorister.shared.errors import UsageError
from chorister.shared.randomness import SystemRandomness

RANDOMNESS = SystemRandomness()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The least that Argon2id allows: these tests are about the vault, not about its cost."""
    monkeypatch.setattr(vault_module, "ARGON2", {"iterations": 1, "lanes": 1, "memory_kib": 8})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "vault"


def test_a_wrong_passphrase_opens_nothing(folder):
    Vault.create(folder, "right", RANDOMNESS).put("identity", b"secret")
    for wrong in ("wrong", "", "right "):
        with pytest.raises(VaultError, match="The passphrase opens the vault"):
            Vault.open(folder, wrong, RANDOMNESS)
    assert Vault.open(folder, "right", RANDOMNESS).get("identity") == b"secret"


def test_nothing_readable_is_on_the_disk(folder):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("consent", b"The speaker allows this.")
    for path in folder.iterdir():
        assert b"speaker" not in path.read_bytes()
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
    path = folder / "identity.sealed"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VaultError, match="'identity' altered"):
        vault.get("identity")


def test_an_item_under_another_name_or_another_vaults_key_is_refused(folder, tmp_path):
    vault = Vault.create(folder, "right", RANDOMNESS)
    vault.put("speaker", b"profile")
    (folder / "adapter.sealed").write_bytes((folder / "speaker.sealed").read_bytes())
    with pytest.raises(VaultError, match="swapped"):
        vault.get("adapter")
    other = Vault.with_key(tmp_path / "other", bytes(32), RANDOMNESS)
    other.put("speaker", b"x")
    (folder / "speaker.sealed").write_bytes((tmp_path / "other" / "speaker.sealed").read_bytes())
    with pytest.raises(VaultError, match="another key"):
        vault.get("speaker")


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
    assert [p.name for p in folder.iterdir()] == ["ledger.jsonl"]


def test_the_same_item_is_sealed_anew_each_time(folder):
    vault = Vault.with_key(folder, bytes(32), RANDOMNESS)
    vault.put("speaker", b"profile")
    first = (folder / "speaker.sealed").read_bytes()
    vault.put("speaker", b"profile")
    assert (folder / "speaker.sealed").read_bytes() != first


def test_the_default_cost_is_that_of_the_rfc(monkeypatch, folder):
    monkeypatch.undo()
    Vault.create(folder, "right", RANDOMNESS)
    plain = json.loads((folder / KEY_FILE).read_bytes())
    # RFC 9106, section 4, second recommended option.
    assert (plain["iterations"], plain["lanes"], plain["memory_kib"]) == (3, 4, 64 * 1024)
