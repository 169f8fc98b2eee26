"""What a speaker does with a consent: look at it, renew it, narrow it, end it."""

import hashlib
import json
from html.parser import HTMLParser

import pytest

from chorister.client import consent_acts, home, outbox, receipt, vault_cli
from chorister.client import withdraw as withdraw_module
from chorister.client.budget import DeviceBudget
from chorister.client.consent import give
from chorister.client.consent_cli import main
from chorister.client.export import Origin, export_voice
from chorister.client.sealed import (
    announce_plain,
    exported,
    open_sealed,
    plain_is_written,
    seal_voice,
)
from chorister.client.vault_index import VaultError
from chorister.client.withdraw import withdraw
from chorister.shared import codec
from chorister.shared.errors import BadLedger, BadMessage, BadSignature, ConsentRefused, UsageError
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.charges import segment_event
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.ledger import Checkpoint, verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.signing import Certificate, SigningKey

AUTHORITY = SigningKey(bytes(32))
FEDERATION = "choir"
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


@pytest.fixture
def mine(tmp_path):
    found = home.create_home(tmp_path / "vault", "correct horse")
    now_s = found.now_s()
    record = give(
        found.key, controller="The <Choir>", purposes=["conversion", "plain_export", "training"],
        given_s=now_s, expires_s=now_s + 86_400, jurisdiction="EU",
    )  # fmt: skip
    found.vault.put("recording-0001", b"hello", "recording")
    return found.keep_consent(record, "given")


@pytest.fixture
def sealed(mine, tmp_path):
    path = tmp_path / "me.voice"
    seal_voice(mine, b"a voice", path, mine.permit("conversion"))
    return path


def join(mine, rounds=("r1", "r2")):
    """What a federation leaves on a device: a certificate, ledger entries, a budget."""
    certificate = Certificate.issue(AUTHORITY, mine.device, FEDERATION, mine.now_s() + 3600)
    mine.vault.put("certificate", codec.encode(certificate.to_plain()), "certificate")
    limit = Limit(9.0, 1e-3, lambda events: float(len(events)))
    budget = DeviceBudget(
        mine.folder / home.BUDGET_FILE, segment=limit, speaker=limit, device_id=mine.device.name,
        federation=FEDERATION,
    )  # fmt: skip
    for number, name in enumerate(rounds):
        segment = segment_event(1.0, 0.1, 10)
        speaker = PrivacyEvent(SPEAKER_MECHANISM, 2.0, 1.0, 1)
        budget.reserve(name, segment=segment, speaker=speaker)
        budget.spend(name)
        mine.ledger.append("round", round=name, action="contributed", adapter=f"{number}" * 64)
    mine.ledger.append("round", round=rounds[0], action="revealed")
    return certificate


def test_withdrawing_leaves_nothing_that_opens(mine, sealed, tmp_path, capsys):
    assert main(["withdraw", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "3 items are destroyed" not in said
    assert "4 items are destroyed" in said
    assert not sealed.exists()
    left = sorted(p.name for p in mine.folder.iterdir() if not p.name.startswith("."))
    assert left == [
        "ledger.jsonl", "receipt-withdrawal.html", "receipt-withdrawal.json", "withdrawn.json",
    ]  # fmt: skip
    with pytest.raises(ConsentRefused, match="was withdrawn at"):
        main(["renew"])
    with pytest.raises(ConsentRefused, match="was withdrawn"):
        mine.permit("conversion")
    with pytest.raises(ConsentRefused, match="was withdrawn"):
        vault_cli.main(["verify"])
    assert main(["withdraw", "--yes"]) == 0
    assert main(["show"]) == 0
    assert "Withdrawn on" in capsys.readouterr().out


def test_a_copy_of_a_sealed_voice_opens_no_more(mine, sealed, tmp_path):
    copy = tmp_path / "copy.voice"
    copy.write_bytes(sealed.read_bytes())
    withdraw(mine)
    with pytest.raises(VaultError):
        mine.vault.items()
    assert not (mine.folder / "index.db").exists()
    with pytest.raises(ConsentRefused):
        open_sealed(mine, copy)


def test_the_receipt_is_signed_and_says_what_stays(mine, sealed, tmp_path):
    plain_file = tmp_path / "me.onnx"
    announced = announce_plain(mine, plain_file, mine.permit("plain_export"))
    plain_file.write_bytes(b"a plain voice")
    plain_is_written(mine, announced, hashlib.sha256(b"a plain voice").hexdigest())
    join(mine)
    done = withdraw(mine)
    assert not plain_file.exists()
    found = json.loads(done.receipt.read_text())
    receipt.check(found)
    assert [r["round_id"] for r in found["rounds"]] == ["r1", "r2"]
    first, second = found["rounds"]
    assert (first["trained_from"], first["seen_after"]) == ("0" * 64, "1" * 64)
    assert (first["revealed"], second["revealed"], second["seen_after"]) == (True, False, None)
    units = {b["unit"]: b for b in found["bounds"]}
    assert set(units) == {"one segment", "one speaker"}
    assert 0 < units["one speaker"]["epsilon"] < 10
    assert units["one speaker"]["delta"] == 1e-3
    assert "cannot be recalled" in json.dumps(found["destroyed"]["files"])
    assert "Nobody can take one speaker out of a sum" in found["cannot_be_undone"][0]
    head = Checkpoint.from_plain(found["ledger"])
    verify(read_lines(mine.folder / "ledger.jsonl"), checkpoints=[head], keys=[mine.device])
    for change in ({"at_s": 0}, {"device": "f" * 16}, {"signature": "00"}, {"rounds": []}):
        with pytest.raises(BadSignature):
            receipt.check({**found, **change})
    page = done.receipt.with_suffix(".html").read_text()
    assert "The &lt;Choir&gt;" in page
    assert "http" not in page
    HTMLParser().feed(page)


def test_a_voice_that_joined_nothing_is_told_so(mine):
    found = json.loads(withdraw(mine).receipt.read_text())
    assert found["told"] == {}
    assert "nothing of it was ever sent" in found["cannot_be_undone"][0]


def test_the_server_is_told_by_a_notice_that_needs_no_key(mine):
    certificate = join(mine)
    (path,) = withdraw(mine).notices
    ((kept, notice),) = outbox.pending(mine.folder)
    assert kept == path
    notice.check(AUTHORITY.verify_key(), FEDERATION)
    assert notice.certificate == certificate
    with pytest.raises(outbox.Withdrawn) as refusal:
        outbox.refuse_if_withdrawn(mine.folder, FEDERATION)
    assert refusal.value.notice == notice
    outbox.refuse_if_withdrawn(mine.folder, "another")
    path.write_bytes(b"half")
    with pytest.raises(BadMessage):
        outbox.pending(mine.folder)


STEPS = ["_notices", "_delete_file", "receipt.write", "destroy"]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_is_refusable_and_finishable(mine, sealed, monkeypatch, step):
    def crash(*_, **__):
        raise KeyboardInterrupt

    owner, name = {
        "_notices": (withdraw_module, "_notices"),
        "_delete_file": (withdraw_module, "_delete_file"),
        "receipt.write": (receipt, "write"),
        "destroy": (type(mine.vault), "destroy"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(KeyboardInterrupt):
            withdraw(mine)
    with pytest.raises(ConsentRefused, match="was withdrawn"):
        main(["renew"])
    assert main(["show"]) == 0
    assert main(["withdraw", "--yes"]) == 0
    found = json.loads((mine.folder / "receipt-withdrawal.json").read_text())
    receipt.check(found)
    assert not sealed.exists()
    assert not (mine.folder / "vault.json").exists()
    entries = [json.loads(line) for line in read_lines(mine.folder / "ledger.jsonl")]
    assert [e["kind"] for e in entries].count("withdrawal") == 1
    assert found["at_s"] == json.loads((mine.folder / "withdrawn.json").read_text())["at_s"]


def test_a_crash_among_the_items_is_finished_without_the_key(mine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rmdir", lambda self: _no())
        with pytest.raises(OSError, match="cut"):
            withdraw(mine)
    assert not (mine.folder / "vault.json").exists()
    assert main(["withdraw", "--yes"]) == 0
    assert not (mine.folder / "items").exists()


def _no():
    raise OSError("cut")


def test_another_file_in_a_voices_place_is_left(mine, sealed):
    sealed.write_bytes(b"somebody's thesis")
    done = withdraw(mine)
    assert sealed.read_bytes() == b"somebody's thesis"
    assert "another file lies there now" in done.files[0][1]


@pytest.mark.parametrize("whose", ["own", "another's", "altered", "no voice"])
def test_an_export_without_a_digest_costs_nobody_an_older_file(
    mine, tmp_path, make_model, target, permits, whose
):
    path = tmp_path / "me.onnx"
    announce_plain(mine, path, mine.permit("plain_export"))
    if whose == "no voice":
        path.write_bytes(b"somebody's thesis")
    else:
        speaker = "f" * 16 if whose == "another's" else mine.device.name
        origin, permit = Origin("a" * 64, "", speaker), permits("plain_export")
        export_voice(make_model(), target, permit, origin, path, now_s=1_800_000_000)
    if whose == "altered":
        path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    ((_, outcome),) = withdraw(mine).files
    if whose == "own":
        assert not path.exists()
        assert outcome.startswith("deleted")
    else:
        assert path.read_bytes() == before
        assert "another file lies there now" in outcome


def test_without_a_terminal_it_asks_for_the_word(mine):
    with pytest.raises(UsageError, match="--yes"):
        main(["withdraw"])
    assert (mine.folder / "vault.json").exists()


def test_one_may_think_better_of_it(mine, monkeypatch, capsys):
    monkeypatch.setattr(home, "ask_openly", lambda prompt: "no")
    assert consent_acts.withdraw([]) == 1
    assert "Nothing was done" in capsys.readouterr().out
    mine.permit("conversion")


def test_show_says_who_what_and_until_when(mine, sealed, capsys):
    assert main(["show"]) == 0
    said = capsys.readouterr().out
    assert "valid" in said
    assert "The <Choir>" in said
    assert f"{sealed} (sealed)" in said
    assert main(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["consent"] == mine.consent.to_plain()


def test_renewing_ends_later_and_takes_the_voices_along(mine, sealed, capsys):
    assert main(["renew", "--days", "400"]) == 0
    found = home.open_home(mine.folder, "correct horse")
    assert found.consent.replaces == mine.consent.sha256
    assert exported(found)[0].expires_s == found.consent.expires_s
    with pytest.raises(UsageError, match="ends later than before"):
        main(["renew", "--days", "300"])


def test_an_interrupted_renewal_is_finished_by_the_next(mine, sealed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(consent_acts, "carry_over", lambda home: None)
        assert main(["renew", "--days", "400"]) == 0
    assert main(["narrow", "--purpose", "conversion"]) == 0
    found = home.open_home(mine.folder, "correct horse")
    assert exported(found)[0].consent_sha256 == found.consent.sha256


def test_narrowing_takes_a_purpose_away(mine, capsys):
    assert main(["narrow", "--purpose", "conversion", "--json"]) == 0
    found = home.open_home(mine.folder, "correct horse")
    with pytest.raises(ConsentRefused, match="covers conversion only"):
        found.permit("training")
    with pytest.raises(UsageError, match="Narrowing keeps some"):
        main(["narrow", "--purpose", "conversion,training"])


def test_without_a_consent_there_is_nothing_to_do(tmp_path):
    home.create_home(tmp_path / "vault", "correct horse")
    for action in (["show"], ["renew"], ["narrow", "--purpose", "training"], ["withdraw", "--yes"]):
        with pytest.raises(ConsentRefused):
            main(action)


def alter_ledger(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b"given", b"taken"), *lines[2:]]))


@pytest.mark.parametrize(
    "damage",
    [alter_ledger, lambda p: p.write_bytes(b"\xff\n" * 3), lambda p: (p.unlink(), p.mkdir())],
    ids=["altered", "overwritten", "replaced by a folder"],
)
def test_a_damaged_ledger_keeps_no_voice_alive(mine, sealed, capsys, damage):
    join(mine)
    damage(mine.folder / "ledger.jsonl")
    assert main(["withdraw", "--yes", "--json"]) == 0
    shown = capsys.readouterr()
    assert "could not be read" in shown.err
    told = json.loads(shown.out)
    assert told["unread"]
    assert len(told["notices"]) == 1
    assert (mine.folder / "withdrawn.json").exists()
    assert not (mine.folder / "vault.json").exists()
    assert not (mine.folder / "items").exists()
    assert not sealed.exists()
    found = json.loads((mine.folder / "receipt-withdrawal.json").read_text())
    receipt.check(found)
    assert found["ledger"] is None
    assert "could not be read" in found["cannot_be_undone"][0]
    # It says neither that nothing was sent nor that nothing bounds it: nobody knows.
    limits = " ".join(found["cannot_be_undone"])
    assert "nothing of it was ever sent" not in limits
    assert "nothing bounds" not in limits
    with pytest.raises(ConsentRefused, match="was withdrawn at"):
        main(["renew"])


def test_a_damaged_budget_journal_keeps_no_voice_alive_either(mine, sealed):
    join(mine)
    alter_ledger(mine.folder / "ledger.jsonl")
    (mine.folder / home.BUDGET_FILE).write_bytes(
        (mine.folder / home.BUDGET_FILE).read_bytes().replace(b'"r1"', b'"r9"', 1)
    )
    done = withdraw(home.open_home(mine.folder, "correct horse", check_ledger=False))
    assert len(done.unread) == 4
    found = json.loads(done.receipt.read_text())
    assert (found["bounds"], found["ledger"]) == ([], None)
    assert not (mine.folder / "vault.json").exists()


def test_other_commands_still_refuse_a_damaged_ledger(mine):
    join(mine)
    alter_ledger(mine.folder / "ledger.jsonl")
    with pytest.raises(BadLedger):
        main(["renew"])
