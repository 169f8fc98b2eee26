import json

import pytest

from chorister.client import consent_cli, home, receipt, vault_cli, vault_move
from chorister.client.budget import DeviceBudget
from chorister.client.consent import give
from chorister.client.vault import MOVED_FILE, Vault
from chorister.client.vault_index import VaultError
from chorister.client.vault_move import export_vault, import_vault
from chorister.client.withdraw import withdraw
from chorister.shared.errors import BadLedger, BudgetExhausted, ConsentRefused, UsageError
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.randomness import SystemRandomness

RANDOMNESS = SystemRandomness()
EVENT = PrivacyEvent("gaussian", 1.0, 1.0, 1)
pytestmark = pytest.mark.usefixtures("quick_vault")


def budget_of(mine):
    two = Limit(2.0, 1e-3, lambda events: float(len(events)))
    return DeviceBudget(
        mine.folder / home.BUDGET_FILE, segment=two, speaker=two, device_id=mine.device.name,
        federation="choir",
    )  # fmt: skip


@pytest.fixture
def old(tmp_path):
    mine = home.create_home(tmp_path / "old", "passphrase")
    record = give(
        mine.key, controller="me", purposes=["conversion"], given_s=0, expires_s=2**33,
        jurisdiction="EU",
    )  # fmt: skip
    mine = mine.keep_consent(record, "given")
    mine.vault.put("recording-0001", b"hello", "recording")
    (mine.folder / "rounds").mkdir()
    (mine.folder / "rounds" / "abc.revealed").write_bytes(b"")
    (mine.folder / "rounds" / "ledger.refusals.json").write_bytes(b"{}")
    (mine.folder / "rounds" / "abc.sealed").write_bytes(b"round secrets")
    return mine


def moved(mine, tmp_path, name="new", file="it.export"):
    export_vault(mine, tmp_path / file, "of the file", RANDOMNESS)
    return import_vault(
        tmp_path / file, tmp_path / name, "of the file", "new passphrase", RANDOMNESS
    )


def test_everything_travels_and_the_vault_stays_itself(old, tmp_path):
    vault = moved(old, tmp_path)
    assert vault.id == old.vault.id
    new = home.open_home(tmp_path / "new", "new passphrase")
    assert new.vault.get("recording-0001") == b"hello"
    assert {i.name: i.kind for i in new.vault.items()} == {
        i.name: i.kind for i in old.vault.items()
    }
    assert new.consent == old.consent
    assert (new.folder / "rounds" / "abc.revealed").exists()
    assert (new.folder / "rounds" / "ledger.refusals.json").read_bytes() == b"{}"
    assert not (new.folder / "rounds" / "abc.sealed").exists()
    new.permit("conversion")
    assert verify(read_lines(new.folder / "ledger.jsonl")).owner == old.device.name


def test_what_was_spent_is_spent_on_both_and_only_one_can_go_on(old, tmp_path):
    budget = budget_of(old)
    budget.reserve("r1", segment=None, speaker=EVENT)
    budget.spend("r1")
    moved(old, tmp_path)
    # A process that had the budget open all along, and one that opens the vault now:
    with pytest.raises(BadLedger, match="is gone"):
        budget.reserve("r2", segment=None, speaker=EVENT)
    with pytest.raises(VaultError, match="was exported"):
        Vault.open(old.folder, "passphrase", RANDOMNESS)
    with pytest.raises(VaultError, match="was exported"):
        old.permit("conversion")
    entries = [json.loads(line) for line in read_lines(old.folder / "ledger.jsonl")]
    assert entries[-1]["kind"] == "refusal"
    new = budget_of(home.open_home(tmp_path / "new", "new passphrase"))
    new.reserve("r2", segment=None, speaker=EVENT)
    with pytest.raises(BudgetExhausted):
        new.reserve("r3", segment=None, speaker=EVENT)


def test_a_crash_before_the_file_is_written_loses_nothing(old, tmp_path, monkeypatch):
    budget_of(old).reserve("r1", segment=None, speaker=EVENT)
    real = vault_move.write_atomically

    def full(path, data, **_):
        if path.name == "it.export":
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(vault_move, "write_atomically", full)
    with pytest.raises(UsageError, match="export again"):
        moved(old, tmp_path)
    monkeypatch.setattr(vault_move, "write_atomically", real)
    again = home.open_home(old.folder, "passphrase", even_if_ended=True)
    moved(again, tmp_path)
    new = budget_of(home.open_home(tmp_path / "new", "new passphrase"))
    assert new.epsilon_speaker() == 1.0


def test_coming_back_takes_what_was_done_elsewhere_and_no_older_file(old, tmp_path):
    moved(old, tmp_path)
    with pytest.raises(VaultError, match="move 1, where this folder gave away move 1"):
        import_vault(tmp_path / "it.export", old.folder, "of the file", "p" * 8, RANDOMNESS)
    new = home.open_home(tmp_path / "new", "new passphrase")
    new.vault.put("recording-0002", b"there", "recording")
    budget_of(new).reserve("r1", segment=None, speaker=EVENT)
    moved(new, tmp_path, name="old", file="back.export")
    back = home.open_home(old.folder, "new passphrase")
    assert back.vault.get("recording-0002") == b"there"
    assert budget_of(back).epsilon_speaker() == 1.0
    assert not (back.folder / MOVED_FILE).exists()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["new", "old"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:10],
        lambda b: b[:80],
        lambda b: b[:-1],
        lambda b: b"x" + b,
        lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:],
        lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:],
    ],
)
def test_a_damaged_file_imports_nothing(old, tmp_path, damage):
    path = tmp_path / "it.export"
    export_vault(old, path, "of the file", RANDOMNESS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VaultError):
        import_vault(path, tmp_path / "new", "of the file", "p" * 8, RANDOMNESS)
    assert not (tmp_path / "new").exists()


def test_a_wrong_passphrase_and_a_full_place_are_refused(old, tmp_path):
    path = tmp_path / "it.export"
    export_vault(old, path, "of the file", RANDOMNESS)
    assert b"hello" not in path.read_bytes()
    with pytest.raises(VaultError, match=r"wrong one for it\.export"):
        import_vault(path, tmp_path / "new", "passphrase", "p" * 8, RANDOMNESS)
    other = home.create_home(tmp_path / "other", "passphrase")
    with pytest.raises(UsageError, match="something else in it"):
        import_vault(path, other.folder, "of the file", "p" * 8, RANDOMNESS)
    with pytest.raises(UsageError, match="not overwritten"):
        export_vault(old, path, "of the file", RANDOMNESS)


def test_a_damaged_vault_is_not_marked_as_moved(old, tmp_path):
    for path in (old.folder / "items").iterdir():
        path.write_bytes(b"")
    with pytest.raises(VaultError, match="altered"):
        export_vault(old, tmp_path / "it.export", "of the file", RANDOMNESS)
    assert not (old.folder / MOVED_FILE).exists()


def test_a_withdrawn_vault_goes_nowhere(old, tmp_path):
    (old.folder / "withdrawn.json").write_text("{}")
    with pytest.raises(ConsentRefused, match="goes nowhere"):
        export_vault(old, tmp_path / "it.export", "of the file", RANDOMNESS)


def test_the_commands(tmp_path, passphrase_file, capsys, monkeypatch):
    home.create_home(tmp_path / "vault", "correct horse")
    assert vault_cli.main(["verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sound"], found["damaged"], found["kinds"]) == (1, [], {"key": 1})
    new = tmp_path / "new passphrase"
    new.write_text("battery staple")
    assert vault_cli.main(["change-passphrase", "--new-passphrase-file", str(new)]) == 0
    with pytest.raises(VaultError):
        vault_cli.main(["verify"])
    monkeypatch.setenv("CHORISTER_PASSPHRASE_FILE", str(new))
    file = tmp_path / "it.export"
    of_file = ["--file-passphrase-file", str(passphrase_file)]
    assert vault_cli.main(["export", str(file), *of_file]) == 0
    assert "refuses use" in capsys.readouterr().out
    monkeypatch.setenv("CHORISTER_VAULT", str(tmp_path / "there"))
    assert vault_cli.main(["import", str(file), *of_file]) == 0
    (item,) = (tmp_path / "there" / "items").iterdir()
    item.write_bytes(b"")
    assert vault_cli.main(["verify"]) == 1
    assert "'identity' does not open" in capsys.readouterr().err


def test_without_a_terminal_or_a_file_nobody_can_be_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("CHORISTER_VAULT", str(tmp_path / "vault"))
    home.create_home(tmp_path / "vault", "correct horse")
    with pytest.raises(UsageError, match="--passphrase-file"):
        vault_cli.main(["verify"])


def test_a_short_passphrase_is_no_new_one(tmp_path, passphrase_file):
    passphrase_file.write_text("short\n")
    with pytest.raises(UsageError, match="8 characters"):
        home.choose_passphrase(passphrase_file, "vault")
    with pytest.raises(UsageError, match="can be read"):
        home.choose_passphrase(tmp_path / "none", "vault")


def test_a_vault_too_large_for_one_file_stays_in_use(old, tmp_path, monkeypatch):
    budget = budget_of(old)
    budget.reserve("r1", segment=None, speaker=EVENT)
    size = sum(len(old.vault.get(item.name)) for item in old.vault.items())
    # The files beside the vault count too: items alone would fit.
    monkeypatch.setattr(vault_move, "MAX_BYTES", 2**20 + size + 100)
    with pytest.raises(UsageError, match="in use here as before"):
        export_vault(old, tmp_path / "it.export", "of the file", RANDOMNESS)
    assert not (old.folder / MOVED_FILE).exists()
    assert not (tmp_path / "it.export").exists()
    old.permit("conversion")
    budget.reserve("r2", segment=None, speaker=EVENT)
    monkeypatch.setattr(vault_move, "MAX_BYTES", 2**20 + size + 100_000)
    assert moved(old, tmp_path).get("recording-0001") == b"hello"


@pytest.mark.parametrize("where", ["vault", "there"])
def test_withdrawing_works_on_both_sides_of_a_move_and_names_the_other(
    tmp_path, passphrase_file, capsys, monkeypatch, where
):
    mine = home.create_home(tmp_path / "vault", "correct horse")
    record = give(
        mine.key, controller="me", purposes=["conversion"], given_s=0, expires_s=2**33,
        jurisdiction="EU",
    )  # fmt: skip
    mine.keep_consent(record, "given")
    file = tmp_path / "it.export"
    of_file = ["--file-passphrase-file", str(passphrase_file)]
    assert vault_cli.main(["export", str(file), *of_file]) == 0
    said = capsys.readouterr().out
    assert f"chorister consent withdraw --vault '{mine.folder}'" in said
    assert vault_cli.main(["import", str(file), *of_file, "--vault", str(tmp_path / "there")]) == 0
    monkeypatch.setenv("CHORISTER_VAULT", str(tmp_path / where))
    assert consent_cli.main(["withdraw", "--yes"]) == 0
    left = tmp_path / where
    assert not (left / "vault.json").exists()
    assert not (left / "items").exists()
    found = json.loads((left / "receipt-withdrawal.json").read_text())
    receipt.check(found)
    limits = " ".join(found["cannot_be_undone"])
    assert "was exported or imported" in limits
    assert "delete the file, and run `chorister consent withdraw` there too" in limits
    # The other one is untouched, which is why the receipt names it; and it can be ended likewise.
    other = ({"vault", "there"} - {where}).pop()
    assert (tmp_path / other / "vault.json").exists()
    assert consent_cli.main(["withdraw", "--yes", "--vault", str(tmp_path / other)]) == 0
    assert not (tmp_path / other / "vault.json").exists()


def test_a_vault_that_never_moved_is_told_what_an_export_would_hold(old):
    limits = " ".join(json.loads(withdraw(old).receipt.read_text())["cannot_be_undone"])
    assert "the folder it was exported from, hold the key" in limits
    assert "was exported or imported" not in limits
