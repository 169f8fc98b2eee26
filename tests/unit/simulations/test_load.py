"""A load test's arithmetic: processor time between moments, and what a server needs alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from chorister.server.rounds import RoundRecord
from chorister.shared.errors import BadSettings, UsageError
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.simulations import load, load_cli
from chorister.simulations.load_meter import (
    DEVICES,
    SERVER_APP,
    SUPEREXEC,
    SUPERLINK,
    Meter,
    Series,
)
from chorister.simulations.load_town import Member, Town, build_town


def a_record(**changes):
    plain = {
        "round": 1, "status": "finished", "reason": None, "cohort": 4,
        "answered": {"query.advertise": 4, "query.share": 3}, "drop_outs": {"query.share": 1},
        "refusals": {}, "survivors": 3, "adapter_sha256": "", "min_honest": 2,
        "noise_multiplier": 1.0, "epsilon_speaker": 1.0, "bytes_up": 10, "bytes_down": 20,
        "seconds": 5.0,
    }  # fmt: skip
    return RoundRecord(**{**plain, **changes})


def a_load(*stages):
    return load.Load(
        devices=4, dimension=8, survivors=4, status="finished", reason=None, round_s=9.0,
        start_s=1.0, stages=stages, cpu_s={}, peak_rss_mib={}, others_cpu_s=0.0, load_average=0.0,
        messages=0, protocol_up_bytes=0, protocol_down_bytes=0, requests={}, fleet_up_bytes=0,
        fleet_down_bytes=0, refusals={}, device_states={}, idle_cpu_s_per_s=0.0,
    )  # fmt: skip


def a_stage(link_s, app_s, devices_s=50.0):
    return load.Stage("share", 9.0, {SUPERLINK: link_s, SERVER_APP: app_s, DEVICES: devices_s})


def test_a_server_alone_needs_the_busier_process_of_each_stage_and_no_time_of_devices():
    found = a_load(a_stage(3.0, 1.0), a_stage(0.5, 4.0))
    assert found.server_alone_s() == 3.0 + 4.0
    assert found.server_alone_s(cores=1) == 4.0 + 4.5
    assert found.to_plain()["derived"] == {"server_alone_s": 7.0}


def test_processor_time_between_two_moments_is_interpolated():
    series = Series([10.0, 12.0, 14.0], [1.0, 2.0, 6.0])
    assert series.spent_s(11.0, 13.0) == pytest.approx(4.0 - 1.5)
    assert series.spent_s(10.0, 14.0) == 5.0
    assert series.at_s(99.0) == 6.0
    assert series.at_s(9.0) == 0.0, "a process that had not begun had spent nothing"


def test_messages_are_requests_and_the_answers_that_came():
    assert load._messages(a_record()) == 2 * 7 + 1


def test_stages_leave_no_gap_and_begin_with_the_hello(tmp_path):
    town = Town(tmp_path)
    town.server.logs.mkdir(parents=True)
    lines = [
        ("20.0", "exchange", "query.advertise"), ("23.0", "answers", "query.advertise"),
        ("24.0", "exchange", "query.share"), ("29.5", "answers", "query.share"),
    ]  # fmt: skip
    text = "".join(
        json.dumps({"at": f"2026-01-01T00:00:{at}00+00:00", "event": event, "exchange": name})
        + "\n"
        for at, event, name in lines
    )
    (town.server.logs / "server.jsonl").write_text(text)
    zero = 1767225600.0
    found = list(load._stages(town, zero + 18, zero + 30))
    assert [(n, b - zero, e - zero) for n, b, e in found] == [
        ("hello", 18, 20), ("advertise", 20, 24), ("share", 24, 29.5), ("after", 29.5, 30),
    ]  # fmt: skip


def test_a_meter_counts_a_process_that_has_ended_and_knows_parts_apart():
    # A stand-in for a server: it starts one that works, and waits.
    code = (
        "import subprocess, sys, time; subprocess.run([sys.executable, '-c', "
        "'import time\\nend = time.process_time() + 0.7\\nwhile time.process_time() < end: pass']);"
        "time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code])
    meter = Meter(server.pid, [os.getpid()])
    meter.start()
    try:
        end = time.monotonic() + 60
        while meter.series[SUPEREXEC].at_s(time.time()) < 0.3 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)
    finally:
        meter.stop()
        server.kill()
        server.wait()
    worked = meter.series[SUPEREXEC]
    assert worked.cpu_s[-1] >= 0.3, "it keeps what a process that is gone had spent"
    assert worked.cpu_s == sorted(worked.cpu_s)
    assert meter.series[SUPERLINK].peak_rss_mib > 1
    assert meter.series[DEVICES].peak_rss_mib > 10
    assert meter.series[SERVER_APP].cpu_s[-1] == 0.0
    assert meter.machine.cpu_s[-1] >= meter.machine.cpu_s[0]


def test_devices_have_real_papers_and_the_server_has_admitted_them(tmp_path):
    from chorister.server.members import members

    town = build_town(tmp_path, 3, 8000, gamma=0.05, dropout=0.1, deadline_s=60.0)
    found = members(town.server, "load", int(time.time()))
    numbers = range(3)
    assert set(found.admitted) == {town.member(i).certificate.device_id for i in numbers}
    assert not found.unfit
    authority = town.server.server_settings().authority_key
    for i in numbers:
        member = town.member(i)
        member.certificate.check(authority, "load", int(time.time()))
        member.consent.check(member.key.verify_key())
        assert Member.from_bytes(member.to_bytes()).certificate == member.certificate
    settings = town.server.federation()
    assert settings.private, "noise is drawn, as in a real round"
    assert settings.speaker_privacy.delta_dp <= 3**-1.1
    assert town.server.server_settings().listen_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--devices", "1"], BadSettings),
        (["--devices", str(MAX_COHORT + 1)], BadSettings),
        (["--devices", "4", "--processes", "5"], BadSettings),
        (["--devices", "4", "--most-s", "0"], BadSettings),
        (["--devices", "4", "--dim", "0"], BadSettings),
        (["--devices", "4", "--keep", "/"], UsageError),
    ],
)
def test_a_load_that_cannot_be_is_refused_before_anything_starts(arguments, error, tmp_path):
    with pytest.raises(error):
        load_cli.load(arguments)
