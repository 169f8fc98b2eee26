"""Real processes: a SuperLink with TLS and authentication, devices with real speech, two rounds."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest

from chorister.server.inspection import find_ledgers, inspect
from chorister.server.recovery import STOPPED
from chorister.server.registry import Registry

HOSTILE = """
import sys
import chorister.server.superlink as superlink
from chorister.shared import bundle
from chorister.shared.cli import main
import io, zipfile
def hostile():
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle.make_bundle())) as ours, zipfile.ZipFile(out, "w") as z:
        for name in ours.namelist():
            z.writestr(name, ours.read(name))
        z.writestr("chorister/client/app.py", "open({trace!r}, 'w').write('ran')")
    return out.getvalue()
superlink.make_bundle = hostile
sys.exit(main())
"""


DIES = """
import os, signal, sys
from chorister.client import contribute
from chorister.shared.cli import main
contribute.train_shared_adapter = lambda *a, **more: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main())
"""


def test_two_rounds_with_one_killed_one_unregistered_and_a_hostile_bundle(
    town: ModuleType, tmp_path: Path
) -> None:
    if not town.SPEECH.is_dir():
        pytest.skip("real speech is not there: ../shared/data/librispeech/test-clean")
    began = time.monotonic()
    names = ["anna", "ben", "cleo", "dora"]
    stranger = "stranger"
    with town.deployment(tmp_path / "town") as made:
        for name, recordings in zip([*names, stranger], town.speakers(5), strict=True):
            made.enrol(name, recordings)
        pseudonyms = {name: made.join(name, admitted=name != stranger)
                      for name in [*names, stranger]}  # fmt: skip
        _clock(began, "set up")
        server = made.start_server()
        for name in [*names, stranger]:
            made.start_device(name, code=DIES if name == "dora" else town.CHORISTER)
        town.wait_for(lambda: made.online() == 4, 150, f"four devices online {made.said('anna')}")
        _clock(began, "online")

        # Round 1: one device dies while it trains, as by kill -9.
        made.run(2, when=4)
        town.wait_for(made.rounds_done, 400, f"round 1\n{made.said('server')}")
        _clock(began, "round 1")
        # It comes back for round 2, with the round that it died in behind it.
        made.start_device("dora")
        town.wait_for(lambda: len(made.rounds_done()) == 2, 300, "round 2")
        _clock(began, "round 2")

        first, second = made.rounds_done()
        assert (first.status, first.cohort, first.survivors) == ("finished", 4, 3), first
        assert (second.status, second.cohort) == ("finished", 4), second
        assert second.survivors >= 3

        # The stranger has a certificate, and no connection: nothing of it reached the server.
        assert made.online() <= 4
        ledger = made.server.ledger.read_text()
        assert pseudonyms["anna"] in ledger
        assert pseudonyms[stranger] not in ledger
        assert "Ask the operator to register" in made.said(stranger)

        # kill -9 of the server in the middle of round 3: it is settled when the next one starts.
        versions = Registry(made.server.adapters).versions()
        made.run(2, when=3)
        town.wait_for(lambda: "/3" in made.server.ledger.read_text(), 120, "round 3 begins")
        town.kill(server)

        # That next one ships code: every device refuses it unread.
        trace = tmp_path / "trace"
        made.start_server(HOSTILE.replace("{trace!r}", repr(str(trace))))
        town.wait_for(lambda: len(made.rounds_done()) == 4, 240, "rounds 3 and 4")
        third, fourth = made.rounds_done()[2:]
        assert (third.status, third.reason) == ("aborted", STOPPED), third
        assert (fourth.status, fourth.survivors) == ("aborted", 0), fourth
        assert Registry(made.server.adapters).versions() == versions
        assert not trace.exists()
        ledgers = [p.read_text() for p in (tmp_path / "town" / "vaults").rglob("ledger.jsonl")]
        assert sum("bundle" in text for text in ledgers) >= 3
        _clock(began, "hostile bundle")

        found = inspect(find_ledgers([tmp_path / "town"]))
        assert found.sound, [str(problem) for problem in found.problems]
    _clock(began, "end")


def _clock(began: float, what: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {what}")
