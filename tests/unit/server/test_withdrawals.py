"""Who withdrew is in no later cohort, and noted against every version that holds them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from chorister.server import withdrawals_cli
from chorister.server.registry import Registry
from chorister.server.rollback import plan_rollback, roll_back
from chorister.server.server_cli import main
from chorister.server.withdrawals import Withdrawals
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import BadLedger, BadMessage, BadSignature, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter

AUTHORITY = SigningKey(bytes(range(32)))
ANNA, BEN = SigningKey(bytes(range(1, 33))), SigningKey(bytes(range(2, 34)))
SPEC = "ab" * 32


def name(key):
    return key.verify_key().name


def notice(key=ANNA, *, authority=AUTHORITY, federation="choir", signed_by=None, at_s=500):
    certificate = Certificate.issue(authority, key.verify_key(), federation, 100)
    return WithdrawalNotice(certificate, Withdrawal.sign(signed_by or key, "c" * 64, at_s))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A server after three rounds: Ben in the first, Anna and Ben in the second, Ben again."""
    registry = Registry(tmp_path / "adapters")
    ledger = LedgerFile(
        tmp_path / "ledger.jsonl", owner="server", federation="choir", clock=lambda: 0
    )
    parent = None
    for number, members in enumerate([[], [BEN], [ANNA, BEN], [BEN]]):
        adapter = Adapter(np.full(4, number, np.float32), SPEC)
        if number:
            ledger.append("survivors", round=f"r{number}", survivors=[name(k) for k in members])
        parent = registry.store(
            adapter, parent=parent, round_id=f"r{number}" if number else None,
            survivors=len(members),
        ).sha256  # fmt: skip
    found = Withdrawals(
        tmp_path / "withdrawals.json", authority=AUTHORITY.verify_key(), federation="choir",
        ledger=ledger, registry=registry,
    )  # fmt: skip
    operator = SimpleNamespace(
        withdrawals=found, registry=registry, ledger=ledger, now_s=lambda: 1_000
    )
    monkeypatch.setattr(withdrawals_cli, "open_operator", lambda: operator)
    monkeypatch.setenv("CHORISTER_OPERATOR", "of this test")
    return operator


def test_a_withdrawal_is_recorded_against_each_version_that_holds_it(desk):
    assert desk.withdrawals.devices() == frozenset()
    record = desk.withdrawals.accept(notice(), 1_000)
    versions = desk.registry.versions()
    assert record.versions == (versions[2].sha256,)
    assert [v.withdrawn for v in versions] == [0, 0, 1, 0]
    assert desk.withdrawals.devices() == {name(ANNA)}
    desk.withdrawals.accept(notice(BEN), 1_001)
    assert [v.withdrawn for v in desk.registry.versions()] == [0, 1, 2, 1]
    last = json.loads(list(read_lines(desk.ledger.path))[-1])
    assert (last["kind"], last["fields"]["device"]) == ("withdrawal", name(BEN))
    reread = WithdrawalNotice.from_bytes(bytes.fromhex(last["fields"]["notice"]))
    reread.check(AUTHORITY.verify_key(), "choir")


def test_hearing_it_again_changes_nothing(desk):
    first = desk.withdrawals.accept(notice(), 1_000)
    length = desk.ledger.head
    assert desk.withdrawals.accept(notice(at_s=600), 2_000) == first
    assert desk.withdrawals.hear(notice().to_bytes(), 3_000) == first
    assert desk.ledger.head == length
    assert [v.withdrawn for v in desk.registry.versions()] == [0, 0, 1, 0]


def test_a_certificate_that_ended_can_still_withdraw(desk):
    assert desk.withdrawals.accept(notice(), 10**9).heard_s == 10**9


@pytest.mark.parametrize(
    "forged",
    [
        notice(authority=BEN),
        notice(federation="other"),
        notice(signed_by=BEN),
        WithdrawalNotice(
            notice().certificate,
            replace(notice().withdrawal, device_id=name(BEN)),
        ),
    ],
)
def test_nobody_withdraws_for_somebody_else(desk, forged):
    with pytest.raises(BadSignature):
        desk.withdrawals.accept(forged, 1_000)
    assert desk.withdrawals.hear(forged.to_bytes(), 1_000) is None
    assert desk.withdrawals.hear(b"hello", 1_000) is None
    assert desk.withdrawals.devices() == frozenset()


def test_a_crash_after_the_file_is_made_good_by_the_next_hearing(desk, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(desk.registry, "note_withdrawn", lambda counts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.withdrawals.accept(notice(), 1_000)
    assert desk.withdrawals.devices() == {name(ANNA)}
    desk.withdrawals.accept(notice(), 1_000)
    assert desk.registry.versions()[2].withdrawn == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.update(federation="other"),
        lambda p: p["withdrawn"][0].update(device_id="f" * 16),
        lambda p: p["withdrawn"][0].update(notice="00"),
        lambda p: p["withdrawn"][0].pop("at_s"),
    ],
)
def test_an_altered_list_stops_the_server(desk, tmp_path, damage):
    desk.withdrawals.accept(notice(), 1_000)
    path = tmp_path / "withdrawals.json"
    plain = json.loads(path.read_bytes())
    damage(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(BadLedger, match="signed withdrawals"):
        desk.withdrawals.devices()


def test_a_rollback_goes_before_the_first_version_with_the_device(desk):
    before = desk.registry.versions()
    plan = plan_rollback(desk, name(ANNA))
    assert desk.registry.versions() == before
    assert (plan.kept, plan.dropped) == (before[1], before[2:])
    assert (plan.with_device, plan.contributions) == (1, 3)
    assert roll_back(desk, name(ANNA)) == plan
    assert desk.registry.latest() == before[1]
    last = json.loads(list(read_lines(desk.ledger.path))[-1])["fields"]
    assert (last["action"], last["adapter"]) == ("rollback", before[1].sha256)
    desk.registry.get(before[3].sha256)
    with pytest.raises(UsageError, match="nothing to take back"):
        roll_back(desk, name(ANNA))


def test_a_device_that_was_never_in_a_sum_has_nothing_to_take_back(desk):
    with pytest.raises(UsageError, match="in none of 4"):
        plan_rollback(desk, "f" * 16)


def test_the_commands(desk, tmp_path, capsys):
    assert main(["withdrawals"]) == 0
    assert "Nobody withdrew" in capsys.readouterr().out
    file = tmp_path / "notice"
    file.write_bytes(notice().to_bytes())
    assert main(["withdrawals", "--accept", str(file), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["withdrawn"]
    assert found["device"] == name(ANNA)
    assert main(["rollback", "--before", name(ANNA), "--dry-run"]) == 0
    assert "would be" in capsys.readouterr().out
    assert main(["rollback", "--before", name(ANNA), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contributions_to_retrain"] == 3
    file.write_bytes(b"half")
    with pytest.raises(BadMessage):
        main(["withdrawals", "--accept", str(file)])
    with pytest.raises(UsageError, match="outbox"):
        main(["withdrawals", "--accept", str(tmp_path / "none")])


def test_who_withdrew_is_in_no_later_cohort(choir):
    from chorister.server.round import run_round

    singers = choir(singers=4)
    first = run_round(singers, singers.operator, 1)
    assert (first.status, first.cohort) == ("finished", 4)
    gone = singers.names[0]
    device = singers.devices[gone]
    withdrawal = Withdrawal.sign(device.signing_key, device.consent.sha256, 0)
    said = WithdrawalNotice(device.certificate, withdrawal)
    # The device says so in place of its application, as one without a key does.
    singers.up = lambda exchange, name, answer: said.to_bytes() if name == gone else answer
    second = run_round(singers, singers.operator, 2)
    assert second.refusals["withdrawn"] == 1
    third = run_round(singers, singers.operator, 3)
    assert third.cohort == 3
    (record,) = singers.operator.withdrawals.records()
    assert record.versions == (first.adapter_sha256,)
    done = roll_back(singers.operator, gone)
    assert done.kept.round_id is None
    assert run_round(singers, singers.operator, 4).status == "finished"


def test_the_commands_find_a_real_servers_folder(office, monkeypatch, capsys):
    from chorister.server.installed import ROUND_LOCK
    from chorister.shared.files import hold_lock

    monkeypatch.delenv("CHORISTER_OPERATOR", raising=False)
    folder = ["--folder", str(office.folder.root)]
    assert withdrawals_cli.withdrawals([*folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"withdrawn": []}
    assert hold_lock(office.folder.state / ROUND_LOCK, 0.0)
    with pytest.raises(UsageError, match="no round is under way"):
        withdrawals_cli.rollback([*folder, "--before", "a" * 16])
