"""A withdrawal goes through beside whatever was damaged, and says what it could not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chorister.client import home as homes
from chorister.client import receipt
from chorister.client.consent import give
from chorister.client.consent_cli import main
from chorister.client.consent_receipt import write_receipt
from chorister.client.home import Home
from chorister.client.sealed import exported, seal_voice
from chorister.client.vault_index import VaultError
from chorister.shared import codec
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import BadSignature, ConsentRefused
from chorister.shared.signing import Certificate, SigningKey

AUTHORITY = SigningKey(bytes(32))
ITEMS = ("identity", "consent", "certificate", "voice", "recording-0001", "profile")
DAMAGES: dict[str, Callable[[Path], object]] = {
    "altered": lambda path: path.write_bytes(b"\x00" + path.read_bytes()[1:]),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


@pytest.fixture
def mine(tmp_path: Path) -> Home:
    """A voice with one of everything, in a federation."""
    found = homes.create_home(tmp_path / "vault", "correct horse")
    now_s = found.now_s()
    record = give(
        found.key, controller="The Choir", purposes=["conversion", "training"], given_s=now_s,
        expires_s=now_s + 86_400, jurisdiction="EU",
    )  # fmt: skip
    found = found.keep_consent(record, "given")
    found.vault.put("recording-0001", b"hello", "recording")
    found.vault.put("profile", b"features", "features")
    certificate = Certificate.issue(AUTHORITY, found.device, "choir", now_s + 3600)
    found.vault.put("certificate", codec.encode(certificate.to_plain()), "certificate")
    seal_voice(found, b"a voice", tmp_path / "me.voice", found.permit("conversion"))
    return found


def path_of(mine: Home, name: str) -> Path:
    if name == "voice":
        name = f"voice-{exported(mine)[0].voice}"
    (item,) = (one for one in mine.vault.items() if one.name == name)
    return mine.folder / "items" / item.sha256


def withdraw(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    assert main(["withdraw", "--yes", "--json"]) == 0
    shown = capsys.readouterr()
    plain: dict[str, Any] = json.loads(shown.out)
    return plain, shown.err


def check_gone(mine: Home) -> dict[str, Any]:
    """Nothing is left that opens; return the receipt."""
    assert not (mine.folder / "vault.json").exists()
    assert not (mine.folder / "items").exists()
    assert not list(mine.folder.glob("index.db*"))
    with pytest.raises(ConsentRefused, match="was withdrawn at"):
        main(["renew"])
    plain: dict[str, Any] = json.loads((mine.folder / "receipt-withdrawal.json").read_text())
    page = (mine.folder / "receipt-withdrawal.html").read_text()
    assert plain["at"] in page
    return plain


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ITEMS)
def test_no_damaged_item_keeps_a_voice_alive(
    mine: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    digest = mine.consent.sha256 if mine.consent else ""
    DAMAGES[damage](path_of(mine, name))
    done, said = withdraw(capsys)
    found = check_gone(mine)
    unread = " ".join(done["unread"])
    assert {"identity": "device's key", "consent": "the consent", "voice": "'voice-"}.get(
        name, f"'{name}'"
    ) in unread
    assert "The voice is destroyed all the same" in said
    assert found["cannot_be_undone"][0].startswith("Not everything")
    assert found["consent"]["sha256"] == digest
    assert found["device"] == mine.device.name
    if name == "identity":
        assert "signature" not in found
        assert done["notices"] == []
        assert f"tell its operator the device's name, {mine.device.name}" in unread
        assert "Not signed" in (mine.folder / "receipt-withdrawal.html").read_text()
        with pytest.raises(BadSignature):
            receipt.check(found)
    else:
        receipt.check(found)
        assert len(done["notices"]) == (0 if name == "certificate" else 1)
    # A file that nothing lists any more is found by nobody: the receipt says so, its key is gone.
    assert (tmp_path / "me.voice").exists() == (name == "voice")
    assert (name == "voice") == ("was not looked for" in unread)
    if name == "consent":
        assert found["consent"]["controller"] is None
        assert "could not be read" in (mine.folder / "receipt-withdrawal.html").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"\xff" * 8192),
    ],
    ids=["missing", "emptied", "cut off", "overwritten"],
)
def test_no_damaged_index_keeps_a_voice_alive(
    mine: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    damage(mine.folder / "index.db")
    with pytest.raises(VaultError):
        mine.vault.items()
    done, _ = withdraw(capsys)
    found = check_gone(mine)
    receipt.check(found)
    assert "the vault's index could not be read" in " ".join(done["unread"])
    # The items open without it, so nothing else was lost.
    assert len(done["unread"]) == 1
    assert done["items_destroyed"] == 6
    assert found["consent"]["controller"] == "The Choir"
    assert len(done["notices"]) == 1
    assert not (tmp_path / "me.voice").exists()


def test_one_altered_row_of_the_index_keeps_nothing_alive(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    with sqlite3.connect(mine.folder / "index.db") as database:
        database.execute("UPDATE items SET size = size + 1")
    done, _ = withdraw(capsys)
    assert "index could not be read" in " ".join(done["unread"])
    receipt.check(check_gone(mine))


def test_an_index_that_cannot_be_replaced_keeps_nothing_alive(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine.folder / "index.db").unlink()
    (mine.folder / "index.db").mkdir()
    done, _ = withdraw(capsys)
    found = check_gone(mine)
    assert found["device"] == mine.device.name  # as the ledger says
    assert done["items_destroyed"] == 0
    assert "to list them anew" in " ".join(done["unread"])


def test_everything_damaged_at_once_keeps_nothing_alive(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (mine.folder / "items").iterdir():
        path.write_bytes(b"noise")
    (mine.folder / "index.db").write_bytes(b"noise")
    (mine.folder / "ledger.jsonl").write_bytes(b"noise")
    withdraw(capsys)
    found = check_gone(mine)
    assert (found["device"], found["consent"]["sha256"]) == ("unknown", "unknown")


def test_the_receipt_of_the_consent_says_whose_it_was(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine.consent is not None
    write_receipt(mine.folder, mine.consent, None)
    for path in (mine.folder / "items").iterdir():
        path.write_bytes(b"noise")
    (mine.folder / "ledger.jsonl").write_bytes(b"noise")
    withdraw(capsys)
    found = check_gone(mine)
    assert found["device"] == mine.device.name
    assert found["consent"]["controller"] == "The Choir"


def test_the_receipt_of_the_consent_stands_in_for_its_record(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine.consent is not None
    write_receipt(mine.folder, mine.consent, None)
    path_of(mine, "consent").unlink()
    withdraw(capsys)
    assert check_gone(mine)["consent"]["controller"] == "The Choir"


def test_an_older_receipt_does_not_stand_in_for_a_narrower_consent(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine.consent is not None
    write_receipt(mine.folder, mine.consent, None)
    assert main(["narrow", "--purpose", "conversion", "--json"]) == 0
    narrowed = json.loads(capsys.readouterr().out)["sha256"]
    path_of(mine, "consent").unlink()
    withdraw(capsys)
    found = check_gone(mine)["consent"]
    assert (found["sha256"], found["controller"]) == (narrowed, None)


def test_a_voice_file_that_cannot_be_deleted_stops_nothing(
    mine: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".voice":
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    done, _ = withdraw(capsys)
    assert "not deleted, Permission denied: delete it yourself" in done["files"][0]["outcome"]
    check_gone(mine)


def test_a_cut_off_voice_file_stops_nothing(
    mine: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "me.voice"
    path.write_bytes(path.read_bytes()[:40])
    done, _ = withdraw(capsys)
    assert "was left (sealed: its key is gone)" in done["files"][0]["outcome"]
    check_gone(mine)


def test_what_would_be_lost_is_shown_before_it_is_meant(
    mine: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of(mine, "recording-0001").unlink()
    path_of(mine, "voice").unlink()
    monkeypatch.setattr(homes, "ask_openly", lambda prompt: "no")
    assert main(["withdraw"]) == 1
    said = capsys.readouterr().err
    assert "this destroys 6 items" in said
    assert "that keeps nothing alive" in said
    assert (mine.folder / "vault.json").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"at_s": 10**30},
        {"at_s": -(10**18)},
        {"at_s": 1},
        {"device_id": "0" * 16},
        {"consent_sha256": "0" * 64},
        {"signature": "00" * 64},
    ],
    ids=["far", "long ago", "another time", "another device", "another consent", "forged"],
)
def test_a_withdrawal_that_somebody_wrote_is_not_taken_for_the_speakers(
    mine: Home, capsys: pytest.CaptureFixture[str], changed: dict[str, object]
) -> None:
    signed = Withdrawal.sign(mine.key, "1" * 64, mine.now_s())
    plain = signed.to_plain() | {"signature": signed.signature.hex()} | changed
    (mine.folder / "withdrawn.json").write_text(json.dumps(plain))
    assert main(["show"]) == 0  # and it can be looked at
    capsys.readouterr()
    done, _ = withdraw(capsys)
    receipt.check(check_gone(mine))
    # A notice that its server would not believe tells it nothing.
    (path,) = done["notices"]
    notice = WithdrawalNotice.from_bytes(Path(path).read_bytes())
    notice.check(AUTHORITY.verify_key(), "choir")
    assert mine.consent is not None
    assert notice.withdrawal.consent_sha256 == mine.consent.sha256


def test_a_withdrawal_that_was_begun_stays_the_one(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine.consent is not None
    first = Withdrawal.sign(mine.key, mine.consent.sha256, mine.now_s() - 1000)
    plain = first.to_plain() | {"signature": first.signature.hex()}
    (mine.folder / "withdrawn.json").write_text(json.dumps(plain))
    withdraw(capsys)
    assert check_gone(mine)["at_s"] == first.at_s


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "{"], ids=["deep", "null", "cut off"])
def test_a_withdrawal_that_is_no_json_stops_nothing(
    mine: Home, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (mine.folder / "withdrawn.json").write_text(content)
    withdraw(capsys)
    check_gone(mine)


def test_a_journal_whose_figures_cannot_be_computed_stops_nothing(
    mine: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(folder: Path) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("chorister.client.withdraw.bounds", divide)
    done, _ = withdraw(capsys)
    check_gone(mine)
    assert "the budgets' journals could not be read: ZeroDivisionError()" in " ".join(
        done["unread"]
    )


def test_an_outbox_that_takes_nothing_stops_nothing(
    mine: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine.folder / "outbox").write_text("no folder")
    done, _ = withdraw(capsys)
    receipt.check(check_gone(mine))
    assert done["notices"] == []
    assert f"tell the operator of choir the device's name, {mine.device.name}" in " ".join(
        done["unread"]
    )
