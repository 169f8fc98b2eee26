"""What an operator sees: the page, the metrics, the status; nothing of one person in any."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from chorister.server.members import members
from chorister.server.page_server import PageServer
from chorister.server.plan import Plan, write_plan
from chorister.server.quality import note_quality
from chorister.server.registry import Registry
from chorister.server.rounds import RoundRecord, append_round
from chorister.server.server_log import round_fields
from chorister.server.server_page import render_metrics, render_page
from chorister.server.snapshot import take_snapshot
from chorister.server.status_cli import quality, status
from chorister.shared.errors import BadLedger, UsageError


def _record(number, status="finished", **changes):
    fields = {
        "round": number, "status": status, "reason": None if status == "finished" else "too few",
        "cohort": 5, "answered": {}, "drop_outs": {}, "refusals": {"no answer": 2, "budget": 1},
        "survivors": 3 if status == "finished" else 0, "adapter_sha256": "a" * 64, "min_honest": 3,
        "noise_multiplier": 1.0, "epsilon_speaker": 1.5 * number, "bytes_up": 100,
        "bytes_down": 200, "seconds": 12.0,
    }  # fmt: skip
    return RoundRecord(**(fields | changes))


@pytest.fixture
def folder(office):
    for record in (_record(1), _record(2, "aborted"), _record(3)):
        append_round(office.folder.state / "rounds.jsonl", record)
    write_plan(office.folder.plan_file, Plan(target=5, least_devices=4))
    return office.folder


def _running(folder, **changes):
    told = {"told_s": int(time.time()), "online": 3, "members": 6, "holds_up": "too few devices"}
    folder.status_file.write_text(json.dumps(told | changes))


def test_a_server_that_stopped_telling_is_not_running(folder):
    assert not take_snapshot(folder).running
    _running(folder, told_s=int(time.time()) - 60)
    assert not take_snapshot(folder).running
    _running(folder)
    found = take_snapshot(folder)
    assert (found.running, found.online, found.finished) == (True, 3, 2)
    assert found.refusals == {"no answer": 6, "budget": 3}


def test_the_page_says_what_matters(folder):
    _running(folder)
    page = render_page(take_snapshot(folder))
    for expected in ("Waiting for 4 devices; 3 are connected", "2 of 3", "Budget left",
                     "no answer", "not measured", "too few"):  # fmt: skip
        assert expected in page, expected
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_what_others_wrote_is_text_on_the_page(folder):
    append_round(
        folder.state / "rounds.jsonl", _record(4, "aborted", reason="<script>alert(1)</script>")
    )
    page = render_page(take_snapshot(folder))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_measured_figure_is_shown_and_nothing_is_invented(folder):
    version = Registry(folder.adapters).versions()[0].sha256
    assert note_quality(folder, version[:10], "MCD, dB", 6.25, 1) == version
    assert "MCD, dB: 6.25" in render_page(take_snapshot(folder))
    for bad in (("zzzzzzzz", 1.0), (version[:4], 1.0), (version, float("nan"))):
        with pytest.raises(UsageError):
            note_quality(folder, bad[0], "x", bad[1], 1)
    (folder.state / "quality.jsonl").write_text("junk\n")
    with pytest.raises(BadLedger):
        take_snapshot(folder)


LINE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{reason="[^"\n]*"\})? -?[0-9.e+-]+$')


def test_metrics_are_prometheus_text_and_name_nobody(folder):
    _running(folder)
    text = render_metrics(take_snapshot(folder))
    for line in text.splitlines():
        assert line.startswith(("# HELP chorister_", "# TYPE chorister_")) or LINE.match(line), line
    assert 'chorister_refusals_total{reason="no answer"} 6' in text
    assert "chorister_rounds_finished_total 2" in text
    assert "device_id" not in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_neither_page_nor_metrics_hold_a_pseudonym(folder, office):
    from chorister.server.installed import desk
    from chorister.shared.privacy.events import PrivacyEvent

    event = PrivacyEvent("distributed discrete gaussian", 1.0, 1.0, 1)
    desk(folder).budget.reserve("r/1", ["feedfacefeedface"], event)
    reason = "2 of device feedfacefeedface"
    append_round(folder.state / "rounds.jsonl", _record(4, "aborted", reason=reason))
    found = take_snapshot(folder)
    assert found.epsilon > 0
    log = json.dumps(round_fields(_record(4, "aborted", reason=reason)))
    assert "2 of device (one of them)" in log
    for text in (render_page(found), render_metrics(found), json.dumps(found.to_plain()), log):
        assert "feedface" not in text


def _ask(folder, method="GET", path="/", host="127.0.0.1:9094"):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", host.encode())]}
    asyncio.run(PageServer(folder, 9094)._answer(scope, None, send))
    return sent[0]["status"], sent[1]["body"]


def test_the_page_server_reads_only_and_answers_to_this_machine_only(folder):
    assert _ask(folder)[0] == 200
    assert _ask(folder, path="/metrics")[1].startswith(b"# HELP")
    assert json.loads(_ask(folder, path="/status.json")[1])["rounds"]
    assert _ask(folder, method="POST")[0] == 405
    assert _ask(folder, path="/state/ledger.jsonl")[0] == 404
    # A web page of somebody else's, whose name was made to point at this machine.
    assert _ask(folder, host="evil.example:9094")[0] == 421
    assert _ask(folder, method="HEAD") == (200, b"")


def test_an_altered_state_is_said_on_the_page(folder):
    (folder.state / "rounds.jsonl").write_text("junk\n")
    code, body = _ask(folder)
    assert code == 500
    assert b"backup" in body


def test_the_status_command(folder, capsys):
    assert status(["--folder", str(folder.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["federation"], len(found["rounds"])) == ("choir", 3)
    assert status(["--folder", str(folder.root), "--running", "--quiet"]) == 1
    _running(folder)
    assert status(["--folder", str(folder.root), "--running", "--quiet"]) == 0
    version = Registry(folder.adapters).versions()[0].sha256
    assert quality(["--folder", str(folder.root), version, "held-out loss", "0.5", "--quiet"]) == 0


def test_without_a_server_there_is_nothing_to_show(tmp_path):
    with pytest.raises(UsageError, match="server init"):
        status(["--folder", str(tmp_path)])


def test_an_admission_that_ended_is_counted_and_names_nobody(folder, office):
    for _ in range(2):
        ended = office.admission(1000)
        path = folder.members / f"{ended.device_id}.admission"
        path.write_bytes(ended.to_bytes())
    found = members(folder, "choir", 2000)
    _running(folder, unfit=found.unfit)
    snapshot = take_snapshot(folder)
    assert snapshot.unfit == {"one that has ended": 2}
    for text in (render_page(snapshot), json.dumps(snapshot.to_plain())):
        assert ended.device_id not in text
        assert "one that has ended" in text
