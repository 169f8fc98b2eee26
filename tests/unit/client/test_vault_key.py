import json

import pytest

from chorister.client import vault_key
from chorister.client.vault import Vault
from chorister.client.vault_index import VaultError
from chorister.client.vault_key import (
    ATTEMPTS_FILE,
    KEY_FILE,
    forget_key,
    open_key,
    seal_key,
    uses_keyring,
)
from chorister.shared.errors import UsageError
from chorister.shared.randomness import SystemRandomness

RANDOMNESS = SystemRandomness()
KEY = bytes(range(32))
pytestmark = pytest.mark.usefixtures("quick_vault")


class Clock:
    now_s = 1_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    seal_key(tmp_path, KEY, "right", RANDOMNESS)
    return tmp_path


def fail(folder, clock, times):
    for _ in range(times):
        with pytest.raises(VaultError, match="The passphrase opens"):
            open_key(folder, "wrong", clock=clock)


def test_after_three_wrong_ones_even_the_right_one_waits_and_longer_each_time(folder, clock):
    fail(folder, clock, 3)
    for wait_s in (1, 2, 4, 8):
        clock.now_s += wait_s - 0.01
        with pytest.raises(VaultError, match="one waits before the next"):
            open_key(folder, "right", clock=clock)
        clock.now_s += 0.02
        fail(folder, clock, 1)
    clock.now_s += 16
    assert open_key(folder, "right", clock=clock) == KEY
    fail(folder, clock, 3)  # one right one, and counting begins anew


def test_the_wait_is_never_longer_than_five_minutes(folder, clock):
    (folder / ATTEMPTS_FILE).write_text(json.dumps({"failures": 5000, "last_s": clock.now_s}))
    clock.now_s += 301
    assert open_key(folder, "right", clock=clock) == KEY


def test_an_attempt_counts_before_it_is_made(folder, clock, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(vault_key, "stretch", killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            open_key(folder, "guess", clock=clock)
    with pytest.raises(VaultError, match="3 wrong ones"):
        open_key(folder, "guess", clock=clock)


def test_neither_a_clock_set_back_nor_a_damaged_count_shortens_the_wait(folder, clock):
    fail(folder, clock, 3)
    clock.now_s -= 500
    for _ in range(2):
        with pytest.raises(VaultError, match="1 s to wait"):
            open_key(folder, "right", clock=clock)
    (folder / ATTEMPTS_FILE).write_text("[]")
    with pytest.raises(VaultError, match="to wait"):
        open_key(folder, "right", clock=clock)
    clock.now_s += 1
    assert open_key(folder, "right", clock=clock) == KEY


@pytest.mark.parametrize(
    "count",
    [
        '{"failures": 1e999, "last_s": 0}',
        '{"failures": 100000000000000, "last_s": 1e999}',
        '{"failures": 3, "last_s": NaN}',
        "[" * 100_000,
    ],
    ids=["no end of them", "a power too large", "no time", "deep"],
)
def test_no_count_that_somebody_wrote_keeps_a_vault_shut_for_good(folder, clock, count):
    (folder / ATTEMPTS_FILE).write_text(count)
    with pytest.raises(VaultError, match="to wait"):
        open_key(folder, "right", clock=clock)
    clock.now_s += 301
    assert open_key(folder, "right", clock=clock) == KEY


def test_another_passphrase_opens_from_now_on_and_the_old_one_no_more(folder, tmp_path, clock):
    vault = Vault.with_key(tmp_path, KEY, RANDOMNESS)
    vault.put("identity", b"secret")
    vault.change_passphrase("new one")
    fail(folder, clock, 1)
    with pytest.raises(VaultError):
        Vault.open(folder, "right", RANDOMNESS)
    assert Vault.open(folder, "new one", RANDOMNESS).get("identity") == b"secret"
    with pytest.raises(UsageError, match="empty one"):
        vault.change_passphrase("")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_change_that_does_not_come_through_leaves_the_old_passphrase(
    folder, monkeypatch, step, clock
):
    def cut(*_):
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr("os.fsync", cut)
    else:
        monkeypatch.setattr("pathlib.Path.replace", cut)
    with pytest.raises(OSError, match="No space"):
        seal_key(folder, KEY, "new one", RANDOMNESS)
    monkeypatch.undo()
    assert open_key(folder, "right", clock=clock) == KEY
    assert [p.name for p in folder.iterdir() if KEY_FILE in p.name] == [KEY_FILE]


@pytest.fixture
def ring(monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.errors import PasswordDeleteError

    class Ring(KeyringBackend):
        priority = 1

        def __init__(self):
            self.secrets = {}

        def get_password(self, service, username):
            return self.secrets.get((service, username))

        def set_password(self, service, username, password):
            self.secrets[service, username] = password

        def delete_password(self, service, username):
            if self.secrets.pop((service, username), None) is None:
                raise PasswordDeleteError("none")

    found = Ring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: found)
    for name in ("get_password", "set_password", "delete_password"):
        monkeypatch.setattr(keyring, name, getattr(found, name))
    return found


def test_the_keyring_opens_it_without_a_passphrase_and_holds_not_its_key(tmp_path, ring):
    vault = Vault.create(tmp_path / "v", None, RANDOMNESS)
    vault.put("identity", b"secret")
    assert uses_keyring(tmp_path / "v")
    assert Vault.open(tmp_path / "v", None, RANDOMNESS).get("identity") == b"secret"
    assert vault.key_for_moving().hex() not in ring.secrets.values()
    ring.secrets.clear()
    with pytest.raises(VaultError, match="keyring holds this vault's secret"):
        Vault.open(tmp_path / "v", None, RANDOMNESS)


def test_from_the_keyring_to_a_passphrase_and_back_leaves_no_secret_behind(tmp_path, ring):
    vault = Vault.create(tmp_path / "v", None, RANDOMNESS)
    vault.change_passphrase("a passphrase")
    assert ring.secrets == {}
    assert Vault.open(tmp_path / "v", "a passphrase", RANDOMNESS).id == vault.id
    with pytest.raises(VaultError, match="opens with a passphrase"):
        Vault.open(tmp_path / "v", None, RANDOMNESS)
    vault.change_passphrase(None)
    vault.change_passphrase(None)
    assert len(ring.secrets) == 1
    vault.destroy()
    assert ring.secrets == {}


def test_a_machine_without_a_keyring_says_so_and_makes_no_vault(tmp_path, monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backends.fail import Keyring as NoKeyring

    monkeypatch.setattr(keyring, "get_keyring", NoKeyring)
    with pytest.raises(UsageError, match="Use a passphrase"):
        Vault.create(tmp_path / "v", None, RANDOMNESS)
    assert not (tmp_path / "v" / KEY_FILE).exists()


def test_a_damaged_key_file_can_still_be_destroyed(folder):
    (folder / KEY_FILE).write_text("{}")
    forget_key(folder)
    forget_key(folder)
    assert not (folder / KEY_FILE).exists()
