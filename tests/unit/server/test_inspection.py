"""A table of tamperings of real ledgers: each is found, and for the stated reason."""

from __future__ import annotations

import json
import shutil

import pytest

from chorister.server.audit_verify import main
from chorister.server.inspection import find_ledgers, inspect, read_checkpoints
from chorister.shared.console import apply_output_options
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.privacy.ledger import Chain, Checkpoint, parse, verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.signing import Certificate, SigningKey

STRANGER = SigningKey(bytes(32))


def entries(path):
    return [parse(line.rstrip(b"\n"), i) for i, line in enumerate(read_lines(path))]


def rechain(path, change, key=None):
    """Write a ledger anew after a change, as somebody would who knows how: a whole chain again.

    Checkpoints are signed again with a key; without one they are left out.
    """
    chain, lines = Chain(), []
    for kind, fields, time_s in change([(e.kind, dict(e.fields), e.time_s) for e in entries(path)]):
        if kind == "checkpoint":
            if key is None:
                continue
            signed = Checkpoint.sign(key, chain.ledger, chain.length - 1, chain.head)
            lines.append(chain.extend(kind, signed.to_plain(), time_s))
        else:
            lines.append(chain.extend(kind, fields, time_s))
    path.write_bytes(b"\n".join(lines) + b"\n")


def where(found, kind, **wanted):
    return next(
        i for i, (k, fields, _) in enumerate(found)
        if k == kind and all(fields.get(name) == value for name, value in wanted.items())
    )  # fmt: skip


def without(kind, **wanted):
    return lambda found: [e for i, e in enumerate(found) if i != where(found, kind, **wanted)]


def altered(kind, alter, **wanted):
    def change(found):
        found = json.loads(json.dumps(found))
        alter(found[where(found, kind, **wanted)][1])
        return found

    return change


def lines_of(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


def at(files, path, kind, **wanted):
    return where([(e.kind, dict(e.fields), e.time_s) for e in entries(path)], kind, **wanted)


def edit_a_number(f):
    lines_of(f.server, lambda ls: [line.replace(b'"devices":4', b'"devices":5') for line in ls])


def remove_an_entry(f):
    lines_of(f.server, lambda ls: ls[:3] + ls[4:])


def swap_two_entries(f):
    lines_of(f.server, lambda ls: [*ls[:3], ls[4], ls[3], *ls[5:]])


def repeat_an_entry(f):
    lines_of(f.server, lambda ls: [*ls[:4], ls[3], *ls[4:]])


def insert_an_entry(f):
    lines_of(f.server, lambda ls: [*ls[:3], ls[3].replace(b'"budget"', b'"note"'), *ls[3:]])


def respell_an_entry(f):
    lines_of(f.server, lambda ls: [*ls[:2], ls[2].replace(b'","', b'", "'), *ls[3:]])


def tear_the_last_entry(f):
    f.server.write_bytes(f.server.read_bytes()[:-30])


def cut_off_the_end(f):
    lines_of(f.server, lambda ls: ls[: f.kept.index])


def cut_off_a_round_that_devices_saw(f):
    start = at(f, f.server, "round", round="run/2", action="started")
    lines_of(f.server, lambda ls: ls[:start])


def rewrite_all_without_the_key(f):
    rechain(f.server, lambda es: [(k, fs, t + 1) for k, fs, t in es], STRANGER)


def rewrite_all_with_the_servers_key(f):
    rechain(f.server, lambda es: [(k, fs, t + 1) for k, fs, t in es], f.keys["server"])


def drop_a_round_with_the_servers_key(f):
    def change(found):
        return [e for e in found if e[1].get("round") != "run/2"]

    rechain(f.server, change, f.keys["server"])


def fork_the_ledger(f):
    copy = f.root / "copy.jsonl"
    shutil.copy(f.server, copy)
    last = len(entries(f.server)) - 1
    rechain(copy, lambda es: [*es[:last], ("note", {"text": "another end"}, es[-1][2])],
            f.keys["server"])  # fmt: skip


def sign_a_checkpoint_with_another_key(f):
    chain = Chain()
    for line in read_lines(f.server):
        chain.follow(line.rstrip(b"\n"))
    forged = Checkpoint.sign(STRANGER, chain.ledger, chain.length - 1, chain.head).to_plain()
    line = chain.extend("checkpoint", forged, chain.time_s)
    f.server.write_bytes(f.server.read_bytes() + line + b"\n")


def forge_a_signed_checkpoint(f):
    def forged(found):
        return [(k, {**fs, "signature": "00" * 64} if k == "checkpoint" else fs, t)
                for k, fs, t in found]  # fmt: skip

    chain, lines = Chain(), []
    for kind, fields, time_s in forged([(e.kind, dict(e.fields), e.time_s)
                                        for e in entries(f.server)]):  # fmt: skip
        if kind == "checkpoint":
            fields |= {"ledger": chain.ledger, "index": chain.length - 1, "digest": chain.head}
        lines.append(chain.extend(kind, fields, time_s))
    f.server.write_bytes(b"\n".join(lines) + b"\n")


def lie(change):
    """The server alters what it says of devices, and signs its ledger again with its own key."""

    def tamper(f):
        # Nobody gives the devices' ledgers, so that only signatures can show it.
        for path in list(f.root.glob("singer-*")):
            shutil.rmtree(path)
        rechain(f.server, change(f), f.keys["server"])
        return []  # nor was a checkpoint kept

    return tamper


def invent_an_admission(f):
    def alter(fields):
        fields["signature"] = "11" * 64

    return altered("admission", alter, round="run/1", device=f.device)


def move_a_token_to_another_round(f):
    def change(found):
        found = json.loads(json.dumps(found))
        one, two = (where(found, "admission", round=r, device=f.device) for r in ("run/1", "run/2"))
        found[two][1]["signature"] = found[one][1]["signature"]
        return found

    return change


def admit_somebody_under_anothers_name(f):
    def alter(fields):
        fields["device"] = f.names[1]

    return altered("admission", alter, round="run/1", device=f.device)


def admit_without_the_devices_word(f):
    return altered("admission", lambda fields: fields.pop("signature"), round="run/1",
                   device=f.device)  # fmt: skip


def lower_the_noise(f):
    def alter(fields):
        fields["announced"]["noise_multiplier"] /= 2

    return altered("round", alter, round="run/1", action="started")


def raise_the_clip_afterwards(f):
    def alter(fields):
        fields["announced"]["clip_norm"] *= 0.5
        fields["announced"]["scale"] *= 2

    return altered("round", alter, round="run/1", action="started")


def drop_a_survivor(f):
    def alter(fields):
        fields["survivors"].remove(f.device)
        del fields["evidence"]["inputs"][f.device]
        del fields["evidence"]["votes"][f.device]

    return altered("survivors", alter, round="run/1")


def invent_a_masked_delta(f):
    def alter(fields):
        fields["evidence"]["inputs"][f.device]["digest"] = "00" * 32

    return altered("survivors", alter, round="run/1")


def finish_a_round_without_a_sum(f):
    return without("survivors", round="run/2")


def withdrawn(f, at_s=5):
    key = f.keys[f.device]
    certificate = Certificate.issue(f.keys["authority"], key.verify_key(), "choir", 10**10)
    told = Withdrawal.sign(key, "c" * 64, at_s)
    return {"device": f.device, "consent": "c" * 64, "at_s": 5, "versions": [],
            "notice": WithdrawalNotice(certificate, told).to_bytes().hex()}  # fmt: skip


def admit_after_a_withdrawal(f):
    def change(found):
        start = where(found, "round", round="run/2", action="started")
        return [*found[:start], ("withdrawal", withdrawn(f), 5), *found[start:]]

    return change


def date_a_withdrawal_back(f):
    return lambda found: [*found, ("withdrawal", withdrawn(f, at_s=9), 5)]


def remove_a_contribution_from_the_device(f):
    rechain(f.of(f.device), without("round", round="run/2", action="contributed"),
            f.keys[f.device])  # fmt: skip


def remove_an_application_from_the_device(f):
    rechain(f.of(f.device), without("round", round="run/2", action="applied"), f.keys[f.device])


def name_another_delta_on_the_device(f):
    def alter(fields):
        fields["masked"] = "22" * 32

    rechain(f.of(f.device), altered("round", alter, round="run/2", action="contributed"),
            f.keys[f.device])  # fmt: skip


def sign_the_devices_ledger_with_another_key(f):
    rechain(f.of(f.device), lambda es: es, STRANGER)


def restore_the_devices_budget(f):
    own = f.of(f"budget of {f.device}", "budget.jsonl")
    shutil.copy(f.backup / own.relative_to(f.root), own)


def restore_the_devices_ledger_and_budget(f):
    for what, owner in (("budget.jsonl", f"budget of {f.device}"), ("ledger.jsonl", f.device)):
        own = f.of(owner, what)
        shutil.copy(f.backup / own.relative_to(f.root), own)


def restore_the_servers_budget(f):
    shutil.copy(f.backup / "server" / "budget.jsonl", f.root / "server" / "budget.jsonl")


def charge_less_in_the_devices_budget(f):
    def alter(fields):
        fields["charges"]["speaker"]["noise_multiplier"] = 9.0

    rechain(f.of(f"budget of {f.device}", "budget.jsonl"), altered("budget", alter, round="run/1"))


def take_back_what_was_spent(f):
    path = f.of(f"budget of {f.device}", "budget.jsonl")
    rechain(path, altered("budget", lambda fields: fields.update(step="release"),
                          round="run/2", step="spend"))  # fmt: skip


def mix_federations(f):
    rechain(f.of(f.device), altered("genesis", lambda fs: fs.update(federation="other")),
            f.keys[f.device])  # fmt: skip


def write_a_newer_format(f):
    rechain(f.server, altered("genesis", lambda fs: fs.update(format=2)), f.keys["server"])


TABLE = [
    (edit_a_number, "is not the one that entry"),
    (remove_an_entry, "entries were removed, added or reordered here"),
    (swap_two_entries, "entries were removed, added or reordered here"),
    (repeat_an_entry, "entries were removed, added or reordered here"),
    (insert_an_entry, "entries were removed, added or reordered here"),
    (respell_an_entry, "another spelling"),
    (tear_the_last_entry, "not JSON"),
    (cut_off_the_end, "were cut off"),
    (cut_off_a_round_that_devices_saw, "were cut off"),
    (rewrite_all_without_the_key, "is of none of these ledgers"),
    (rewrite_all_with_the_servers_key, "is of none of these ledgers"),
    (drop_a_round_with_the_servers_key, "rewritten or forked"),
    (fork_the_ledger, "forked: from entry"),
    (sign_a_checkpoint_with_another_key, "signed by a key that the ledger's owner is known by"),
    (forge_a_signed_checkpoint, "a signature that does not verify"),
    (lie(invent_an_admission), "a signature that does not verify"),
    (lie(move_a_token_to_another_round), "a signature that does not verify"),
    (lie(admit_somebody_under_anothers_name), "under its key's name"),
    (lie(admit_without_the_devices_word), "without what shows it"),
    (lie(lower_the_noise), "terms are those that its digest names"),
    (lie(raise_the_clip_afterwards), "terms are those that its digest names"),
    (lie(drop_a_survivor), "signed the set of survivors"),
    (lie(invent_a_masked_delta), "signed its masked delta"),
    (lie(finish_a_round_without_a_sum), "finished round has a sum"),
    (lie(admit_after_a_withdrawal), "withdrew is not admitted"),
    (lie(date_a_withdrawal_back), "what the device itself signed"),
    (remove_a_contribution_from_the_device, "device's own ledger does not have"),
    (remove_an_application_from_the_device, "own ledger never applied"),
    (name_another_delta_on_the_device, "different masked deltas"),
    (sign_the_devices_ledger_with_another_key, "which is not the device"),
    (restore_the_devices_budget, "budget was restored from a backup"),
    (restore_the_devices_ledger_and_budget, "signed masked delta: the budget was restored"),
    (restore_the_servers_budget, "the journal was restored from a backup"),
    (charge_less_in_the_devices_budget, "charge round 'run/1' differently"),
    (take_back_what_was_spent, "out of order"),
    (mix_federations, "belong to one federation"),
    (write_a_newer_format, "reads ledgers of format 1"),
]


def name_of(case):
    return case.__name__ if callable(case) else None


def test_what_was_written_is_sound(files):
    found = files.inspect(
        checkpoints=[files.kept], keys=[files.keys["server"].verify_key()],
        authority=files.keys["authority"].verify_key(), federation="choir",
    )  # fmt: skip
    assert found.problems == []
    claims = next(one.claims for one in found.ledgers if one.claims)
    assert (claims.admissions, claims.inputs) == (8, 8)
    assert len(found.ledgers) == 10
    # What was found is in memory; nothing was written beside the ledgers.
    assert {p.name for p in files.root.glob("singer-0/*.jsonl")} == {"ledger.jsonl", "budget.jsonl"}


@pytest.mark.parametrize(("tamper", "reason"), TABLE, ids=[str(i) for i in range(len(TABLE))])
def test_each_tampering_is_found_for_its_reason(files, tamper, reason):
    kept = [files.kept] if tamper(files) is None else []
    found = files.inspect(checkpoints=kept, keys=[files.keys["server"].verify_key()])
    assert any(reason in problem.what for problem in found.problems), found.problems


def test_the_table_is_long_enough_and_each_reason_is_a_real_one():
    assert len(TABLE) >= 20
    assert len({reason for _, reason in TABLE}) >= 20


def test_a_device_that_nobody_certified_is_found_by_the_authoritys_key_only(files):
    assert files.inspect().sound
    found = files.inspect(authority=STRANGER.verify_key())
    refused = [p for p in found.problems if "device certificate" in p.what]
    assert len(refused) == 8


def test_a_checkpoint_of_a_ledger_that_is_not_given_is_a_problem(files):
    other = Checkpoint.sign(files.keys["server"], "a" * 64, 3, "b" * 64)
    found = files.inspect(checkpoints=[other])
    assert "is of none of these ledgers" in found.problems[0].what


def test_an_older_copy_is_no_fork(files):
    older = files.root / "older.jsonl"
    older.write_bytes(b"".join(list(read_lines(files.server))[:-2]))
    found = inspect([files.server, older])
    assert found.sound


def test_a_clock_that_was_wrong_is_a_remark_and_no_problem(files):
    def late(found):
        return [(k, fs, t - 50 * (i % 2)) for i, (k, fs, t) in enumerate(found)]

    path = files.root / "alone.jsonl"
    shutil.copy(files.server, path)
    rechain(path, late, files.keys["server"])
    found = inspect([path], now_s=0)
    assert found.sound
    assert any("clock was set back" in r.what for r in found.remarks)
    assert any("from the future" in r.what for r in found.remarks)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\x00" * 100, b'{"index":0}', b"[" * 9999])
def test_what_is_no_ledger_is_a_problem_and_no_crash(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert not inspect([path]).sound


def test_a_line_without_end_is_not_read_into_memory(tmp_path):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)  # two gigabytes of zeros, a hole on the disk
    found = inspect([path])
    assert "bytes" in found.problems[0].what


def test_the_command_says_so_by_its_exit_status(files, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(files.kept.to_plain()))
    key = files.keys["server"].verify_key().raw.hex()
    arguments = [str(files.root), "--checkpoint", str(kept), "--key", key]
    assert main(arguments) == 0
    assert "Nothing was altered" in capsys.readouterr().out
    cut_off_the_end(files)
    assert main([*arguments, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["sound"]
    assert "cut off" in said["problems"][0]["problem"]


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


def test_wrong_usage_is_an_error_of_ours(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        find_ledgers([tmp_path / "none.jsonl"])
    with pytest.raises(UsageError, match="none in"):
        find_ledgers([tmp_path])
    (tmp_path / "c.json").write_text("nothing")
    with pytest.raises(UsageError, match="JSON"):
        read_checkpoints(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(BadLedger, match="checkpoint has the fields"):
        read_checkpoints(tmp_path / "c.json")
    with pytest.raises(UsageError, match="public key"):
        main([str(tmp_path / "c.json"), "--key", "zz"])


@pytest.mark.slow
def test_a_million_entries_in_constant_memory(tmp_path):
    import resource

    path, chain = tmp_path / "long.jsonl", Chain()
    with path.open("wb") as file:
        genesis = {"format": 1, "owner": "server", "federation": "long"}
        file.write(chain.extend("genesis", genesis, 1) + b"\n")
        for i in range(1, 1_000_000):
            file.write(chain.extend("refusal", {"round": f"r/{i // 50}"}, i) + b"\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert verify(read_lines(path), signatures=False).length == 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_vaults_own_ledger_does_not_stand_in_for_that_of_its_federation(files):
    """A vault notes its consents in a ledger of no federation, beside the one with its rounds."""
    from chorister.shared.privacy.ledger_file import LedgerFile

    for name in ("a-first", "z-last"):  # whichever is read first
        folder = files.root / name
        folder.mkdir()
        LedgerFile(folder / "ledger.jsonl", owner=files.device, federation="none").append("note")
    assert files.inspect().sound


def test_a_vaults_own_ledger_alone_hides_no_rounds(files):
    from chorister.shared.privacy.ledger_file import LedgerFile

    files.of(files.device).unlink()
    folder = files.root / "vault"
    folder.mkdir()
    LedgerFile(folder / "ledger.jsonl", owner=files.device, federation="none").append("note")
    assert any("never applied" in str(p) for p in files.inspect().problems)


def personal_training(folder, device, federation="none"):
    """What `personalise --noise` leaves in a vault: its ledger's entry and its budget's."""
    from chorister.shared.privacy.budget_file import BudgetFile
    from chorister.shared.privacy.charges import personal_event
    from chorister.shared.privacy.ledger_file import LedgerFile
    from chorister.shared.privacy.limits import segment_limit
    from chorister.shared.settings import SegmentPrivacy

    folder.mkdir()
    event = personal_event(1.0, 0.5, 30)
    budget = BudgetFile(
        folder / "budget.jsonl", {"segment": segment_limit(SegmentPrivacy())}, owner=device,
        federation=federation,
    )  # fmt: skip
    budget.reserve("personal adapter 1", {"segment": event})
    budget.spend("personal adapter 1")
    ledger = LedgerFile(folder / "ledger.jsonl", owner=device, federation=federation)
    ledger.append(
        "budget", step="spend", round="personal adapter 1", charges={"segment": event.to_plain()}
    )
    return budget


def test_a_vaults_own_budget_stands_beside_its_federations(files):
    for name in ("a-first", "z-last"):
        personal_training(files.root / name, files.device)
        assert files.inspect().sound
        shutil.rmtree(files.root / name)


def test_a_vaults_own_budget_from_a_backup_is_found(files):
    personal_training(files.root / "vault", files.device)
    (files.root / "vault" / "budget.jsonl").unlink()
    (files.root / "vault" / ".budget.jsonl.lock").unlink(missing_ok=True)
    from chorister.shared.privacy.budget_file import BudgetFile

    BudgetFile(files.root / "vault" / "budget.jsonl", {}, owner=files.device, federation="none")
    problems = [str(p) for p in files.inspect().problems]
    assert len(problems) == 1
    assert "lacks round 'personal adapter 1' for segment" in problems[0]


def test_a_report_counts_personal_adapters_with_the_rounds_of_the_same_voice(files):
    from chorister.server.inspection import find_ledgers
    from chorister.server.report_builder import build_report

    def figure():
        report = build_report(
            find_ledgers([files.root]), attacks=None, responsible=None, recording_segments=8
        )
        return next(f for f in report.figures if f.unit == "segment"), report.devices

    before, _ = figure()
    personal_training(files.root / "vault", files.device)
    after, devices = figure()
    assert after.epsilon > before.epsilon
    assert after.holder == files.device
    assert any("personal adapter" in m for m in after.mechanisms)
    mine = [d for d in devices if d.device == files.device and d.unit == "segment"]
    assert [(d.rounds, d.without_a_sum) for d in mine] == [(2, 0)]
