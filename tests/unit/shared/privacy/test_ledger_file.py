import json
import os
import subprocess
import sys

import pytest

from chorister.shared.errors import BadLedger
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import SigningKey


def opened(path, **changes):
    return LedgerFile(
        path, **{"owner": "server", "federation": "choir", "clock": lambda: 7, **changes}
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def kinds(path):
    return [json.loads(line)["kind"] for line in read_lines(path)]


def test_every_torn_end_is_cut_off_with_a_note_and_the_chain_holds(path):
    ledger = opened(path)
    ledger.append("round", round=1)
    whole = path.read_bytes()
    ledger.append("round", round=2)
    last = path.read_bytes()[len(whole) :]
    for cut in range(1, len(last)):
        path.write_bytes(whole + last[:cut])
        opened(path).append("round", round=3)
        assert kinds(path) == ["genesis", "round", "note", "round"]
        assert json.loads(path.read_bytes().splitlines()[2])["fields"]["bytes"] == cut
        assert verify(read_lines(path)).length == 4


def test_a_crash_within_the_first_entry_starts_anew(path):
    opened(path)
    whole = path.read_bytes()
    for cut in (0, 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        opened(path)
        assert kinds(path) == (["genesis", "note"] if cut else ["genesis"])
        verify(read_lines(path))


def test_an_altered_ledger_is_not_appended_to(path):
    opened(path).append("round", round=1)
    before = path.read_bytes().replace(b'"round":1', b'"round":2')
    opened(path).append("round", round=2)
    path.write_bytes(before + path.read_bytes()[len(before) :])
    altered = path.read_bytes()
    with pytest.raises(BadLedger, match="altered or replaced"):
        opened(path)
    assert path.read_bytes() == altered


def test_a_ledger_that_shrinks_or_vanishes_under_its_writer_is_refused(path):
    ledger = opened(path)
    ledger.append("round", round=1)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(BadLedger, match="only ever appended to"):
        ledger.append("round", round=2)
    path.unlink()
    with pytest.raises(BadLedger, match="is gone"):
        ledger.append("round", round=2)


def test_another_owners_or_federations_ledger_is_refused(path):
    opened(path)
    with pytest.raises(BadLedger, match="owner 'server'"):
        opened(path, owner="somebody")
    with pytest.raises(BadLedger, match="federation 'choir'"):
        opened(path, federation="other")


def test_a_full_disk_adds_nothing_and_the_next_append_works(path, monkeypatch):
    ledger = opened(path)
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:10]))
    with pytest.raises(OSError, match="space"):
        ledger.append("round", round=1)
    assert path.read_bytes() == before
    monkeypatch.undo()
    ledger.append("round", round=1)
    assert verify(read_lines(path)).length == 2


def test_two_writers_see_each_others_entries(path):
    seen = []
    first, second = opened(path, on_entry=seen.append), opened(path)
    first.append("round", round=1)
    second.append("round", round=2)
    first.append("round", round=3)
    assert [e.fields["round"] for e in seen if e.kind == "round"] == [1, 2, 3]
    assert verify(read_lines(path)).length == 4


def test_processes_that_write_at_once_make_one_chain(path):
    opened(path)
    script = (
        "import pathlib, sys\n"
        "from chorister.shared.privacy.ledger_file import LedgerFile\n"
        "ledger = LedgerFile(pathlib.Path(sys.argv[1]), owner='server', federation='choir')\n"
        "for i in range(20):\n"
        "    ledger.append('note', writer=sys.argv[2], i=i)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    writers = [subprocess.Popen([*command, str(n)]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert verify(read_lines(path)).length == 61


def test_what_a_reader_refuses_is_refused_again_and_not_skipped(path):
    def refuse(entry):
        if entry.kind == "round":
            raise BadLedger("No rounds.", "one", "None.")

    reader = opened(path, on_entry=refuse)
    opened(path).append("round", round=1)
    for _ in range(2):
        with pytest.raises(BadLedger, match="No rounds"):
            reader.append("note", text="after")


def test_a_checkpoint_is_in_the_ledger_and_in_the_hand(path):
    key = SigningKey(bytes(32))
    ledger = opened(path)
    ledger.append("round", round=1)
    checkpoint = ledger.checkpoint(key)
    ledger.append("round", round=2)
    found = verify(read_lines(path), checkpoints=[checkpoint], keys=[key.verify_key()])
    assert (found.length, found.signed_to) == (4, 1)


def test_the_file_is_for_its_owner_only(path):
    opened(path)
    assert path.stat().st_mode & 0o077 == 0
