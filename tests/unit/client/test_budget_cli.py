"""The command: what is spent, reserved and left, the next round's cost, and a rolled-back file."""

from __future__ import annotations

import json

import pytest

from chorister.client.budget import DeviceBudget
from chorister.client.budget_cli import main
from chorister.shared.console import apply_output_options
from chorister.shared.errors import BadLedger, BudgetExhausted, UsageError
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.charges import personal_event, segment_event
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.settings import SegmentPrivacy, SpeakerPrivacy

ROUND = PrivacyEvent(SPEAKER_MECHANISM, 4.0, 1.0, 1)
NAME = "0123456789abcdef"


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


def budget(folder, epsilon_max=4.0):
    return DeviceBudget(
        folder / "budget.jsonl", segment=segment_limit(SegmentPrivacy()),
        speaker=speaker_limit(SpeakerPrivacy(epsilon_max=epsilon_max)), device_id=NAME,
        federation="choir",
    )  # fmt: skip


def shown(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_spent_reserved_left_and_one_more_round(tmp_path, capsys):
    own = budget(tmp_path)
    own.reserve("r1", segment=None, speaker=ROUND)
    own.spend("r1")
    own.finish("r1")
    own.reserve("r2", segment=None, speaker=ROUND)
    found = shown(capsys, tmp_path)
    (row,) = found["accounts"]
    assert (found["rounds_with_a_sum"], found["rounds_without"]) == (1, 1)
    assert row["spent"] + row["reserved"] == pytest.approx(own.epsilon_speaker())
    assert row["left"] == pytest.approx(4.0 - own.epsilon_speaker())
    # What it says of the next round is what the next round does.
    own.spend("r2")
    own.reserve("r3", segment=None, speaker=ROUND)
    assert row["next_round"] == pytest.approx(own.epsilon_speaker())
    assert main([str(tmp_path)]) == 0
    assert "speaker (delta 0.001)" in capsys.readouterr().out


def test_the_rounds_that_are_left_fit_and_one_more_does_not(tmp_path, capsys):
    own = budget(tmp_path)
    own.reserve("r0", segment=None, speaker=ROUND)
    left = shown(capsys, tmp_path)["accounts"][0]["rounds_left"]
    limit = speaker_limit(SpeakerPrivacy(epsilon_max=4.0))
    assert limit.epsilon([ROUND] * (left + 1)) <= 4.0 < limit.epsilon([ROUND] * (left + 2))


def test_an_exhausted_budget_says_that_the_next_round_is_refused(tmp_path, capsys):
    budget(tmp_path, epsilon_max=0.8).reserve("r0", segment=None, speaker=ROUND)
    assert main([str(tmp_path / "budget.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "refused, before any training" in said
    assert "0 more like the last" in said


def test_a_budget_from_a_backup_is_noticed_by_the_devices_own_ledger(tmp_path, capsys):
    own = budget(tmp_path)
    own.reserve("r1", segment=None, speaker=ROUND)
    own.spend("r1")
    backup = (tmp_path / "budget.jsonl").read_bytes()
    own.reserve("r2", segment=None, speaker=ROUND)
    own.spend("r2")
    ledger = LedgerFile(tmp_path / "ledger.jsonl", owner=NAME, federation="choir")
    for name in ("r1", "r2"):
        ledger.append("round", round=name, action="contributed", masked="0" * 64,
                      charges={"speaker": ROUND.to_plain()})  # fmt: skip
    assert main([str(tmp_path)]) == 0
    (tmp_path / "budget.jsonl").write_bytes(backup)
    with pytest.raises(BadLedger, match=r"round 'r2'.*restored from a backup"):
        main([str(tmp_path)])
    assert (tmp_path / "budget.jsonl").read_bytes() == backup


def test_a_budget_from_a_backup_is_noticed_by_the_servers_copy(tmp_path):
    own = budget(tmp_path)
    own.reserve("r1", segment=None, speaker=ROUND)
    server = LedgerFile(tmp_path / "server.jsonl", owner="server", federation="choir")
    for name in ("r1", "r2"):
        server.append("budget", round=name, step="spend", charge=ROUND.to_plain(), devices=2)
        server.append("survivors", round=name, survivors=[NAME],
                      evidence={"inputs": {NAME: {"digest": "0" * 64}}})  # fmt: skip
    with pytest.raises(BadLedger, match="round 'r2'"):
        main([str(tmp_path), "--server-ledger", str(tmp_path / "server.jsonl")])


def test_what_is_no_budget_is_refused(tmp_path):
    with pytest.raises(UsageError, match="journal can be read"):
        main([str(tmp_path)])
    LedgerFile(tmp_path / "ledger.jsonl", owner=NAME, federation="choir")
    with pytest.raises(UsageError, match="ledger of bookings"):
        main([str(tmp_path / "ledger.jsonl")])
    budget(tmp_path)
    with pytest.raises(UsageError, match="no file"):
        main([str(tmp_path), "--server-ledger", str(tmp_path / "none")])


def test_an_edited_budget_is_refused(tmp_path):
    own = budget(tmp_path)
    own.reserve("r1", segment=None, speaker=ROUND)
    own.spend("r1")
    path = tmp_path / "budget.jsonl"
    path.write_bytes(
        path.read_bytes().replace(b'"noise_multiplier":4.0', b'"noise_multiplier":9.0')
    )
    with pytest.raises(BadLedger, match="altered"):
        main([str(tmp_path)])


def test_all_budgets_of_a_voice_are_shown_and_what_they_come_to_together(tmp_path, capsys):
    own = BudgetFile(
        tmp_path / "budget.jsonl", {"segment": segment_limit(SegmentPrivacy())}, owner=NAME,
        federation="none",
    )  # fmt: skip
    own.reserve("personal adapter 1", {"segment": personal_event(2.0, 0.5, 30)})
    own.spend("personal adapter 1")
    alone = shown(capsys, tmp_path)
    assert alone["accounts"][0]["personal_adapters"] == 1
    assert (alone["rounds_with_a_sum"], alone["rounds_without"]) == (0, 0)
    (tmp_path / "federations" / "one").mkdir(parents=True)
    joined = budget(tmp_path / "federations" / "one")
    joined.reserve("r1", segment=segment_event(1.0, 0.5, 5), speaker=ROUND)
    found = shown(capsys, tmp_path)
    assert len(found["budgets"]) == 2
    parts = [row["spent"] + row["reserved"] for b in found["budgets"] for row in b["accounts"]
             if row["account"] == "segment"]  # fmt: skip
    assert max(parts) < found["together"]["epsilon"] < sum(parts)
    assert main([str(tmp_path)]) == 0
    assert "Together" in capsys.readouterr().out


def test_together_is_at_least_what_any_one_of_them_is(tmp_path, capsys):
    for name, delta, noise in (("strict", 1e-6, 1.0), ("lenient", 1e-3, 9.0)):
        folder = tmp_path / "federations" / name
        folder.mkdir(parents=True)
        one = DeviceBudget(
            folder / "budget.jsonl",
            segment=segment_limit(SegmentPrivacy(delta_dp=delta, epsilon_max=50.0)),
            speaker=speaker_limit(SpeakerPrivacy()), device_id=NAME, federation=name,
        )  # fmt: skip
        one.reserve("r1", segment=segment_event(noise, 0.5, 5), speaker=None)
        one.spend("r1")
    found = shown(capsys, tmp_path)
    parts = [row["spent"] for b in found["budgets"] for row in b["accounts"]]
    assert found["together"]["epsilon"] >= max(parts)
    assert found["together"]["delta"] == 1e-6


def test_trainings_of_the_owner_are_no_rounds_that_a_server_wastes(tmp_path):
    own = budget(tmp_path)
    for number in range(7):
        own.reserve(f"personal {number}", segment=personal_event(9.0, 0.1, 1), speaker=None)
        own.spend(f"personal {number}")
    own.reserve("r0", segment=None, speaker=ROUND)  # five without a sum would have been the cap
    for number in range(1, 5):
        own.reserve(f"r{number}", segment=segment_event(9.0, 0.1, 1), speaker=None)
    with pytest.raises(BudgetExhausted, match="5 rounds more without a sum"):
        own.reserve("r5", segment=segment_event(9.0, 0.1, 1), speaker=None)
    own.reserve("personal 7", segment=personal_event(9.0, 0.1, 1), speaker=None)


def test_both_accountants_and_a_recordings_figure_are_shown(tmp_path, capsys):
    own = budget(tmp_path)
    own.reserve("r1", segment=segment_event(4.0, 0.05, 5), speaker=ROUND)
    segment, speaker = shown(capsys, tmp_path)["accounts"]
    assert set(segment["accountants"]) == {"RDP", "PLD"}
    assert max(segment["accountants"].values()) == pytest.approx(own.epsilon_segment())
    assert segment["recording"]["segments"] == 8
    assert segment["recording"]["epsilon"] > segment["reserved"]
    assert set(speaker["accountants"]) == {"closed form", "dp-accounting"}
    assert speaker["recording"] is None
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "RDP" in said
    assert "PLD" in said
    assert "8 segments of one together" in said
