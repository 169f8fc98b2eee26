"""`chorister server load` with a real server and real connections, small: it must keep working."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

CHORISTER = "import sys; from chorister.shared.cli import main; sys.exit(main())"


def _load(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", CHORISTER, "server", "load", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _names(root):
    """Processes that were started for a folder."""
    return [
        " ".join(process.info["cmdline"])[:200]
        for process in psutil.process_iter(["cmdline"])
        if any(str(root) in part for part in process.info["cmdline"] or ())
        and "server load" not in " ".join(process.info["cmdline"])
    ]


def test_a_round_of_three_devices_is_measured_and_nothing_is_left_running(tmp_path):
    root = tmp_path / "kept"
    process = _load("--devices", 3, "--dim", 64, "--processes", 1, "--json", "--keep", root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (found,) = json.loads(out)["rounds"]
    assert (found["status"], found["devices"], found["survivors"]) == ("finished", 3, 3)
    assert found["refusals"] == {}
    # Hello, five exchanges, and nobody fell out: each message has an answer.
    assert found["messages"] == 2 * 5 * 3
    assert found["requests"]["push-messages"] == 6 * 3
    assert found["requests"]["pull-object"] >= 3 * 6 * 3
    assert [stage["name"] for stage in found["stages"]] == [
        "hello", "advertise", "share", "contribute", "confirm", "reveal", "after",
    ]  # fmt: skip
    assert sum(stage["wall_s"] for stage in found["stages"]) == pytest.approx(found["round_s"])
    assert found["cpu_s"]["superlink"] > 0
    assert found["cpu_s"]["devices"] > 0
    assert found["protocol_up_bytes"] > 3 * 64 * 4, "a masked delta of each device"
    assert _names(root) == []


@pytest.mark.slow
def test_what_it_started_ends_with_it(tmp_path):
    root = tmp_path / "kept"
    process = _load("--devices", 2, "--dim", 64, "--processes", 1, "--keep", root)
    end = time.monotonic() + 120
    while not any("load_devices" in name for name in _names(root)) and time.monotonic() < end:
        time.sleep(0.2)
    assert _names(root)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert _names(root) == []
