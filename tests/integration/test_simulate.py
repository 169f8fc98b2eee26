"""The main job end to end on real Flower: same seed, same bytes, whatever happens between."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.simulations.run_record import schema

from .conftest import command, record, run

pytest.importorskip("espeakng_loader", reason="the embedded corpus needs the extra 'embedded'")


def test_a_run_writes_everything_that_it_promises(undisturbed: Path) -> None:
    found = record(undisturbed)
    jsonschema.Draft202012Validator(schema()).validate(found)
    assert [r["status"] for r in found["rounds"]] == ["finished", "finished"]
    assert found["randomness"]["statement"] == "simulated randomness, not private"
    names = {p.stem for p in (undisturbed / "adapters").glob("*.safetensors")}
    assert {r["adapter_sha256"] for r in found["rounds"]} < names
    assert found["shared_adapter_sha256"] == found["rounds"][-1]["adapter_sha256"]
    rows = list(csv.DictReader((undisturbed / "metrics.csv").open(encoding="utf-8")))
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert "simulated randomness, not private" in page.lower()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="http' not in page


def test_the_ledgers_of_server_and_devices_verify(undisturbed: Path) -> None:
    server = verify(read_lines(undisturbed / "ledger.jsonl"), federation="simulation")
    assert server.signed_to == server.length - 2
    devices = sorted((undisturbed / "state" / "devices").glob("*/ledger.jsonl"))
    assert len(devices) >= 4
    for path in devices:
        assert verify(read_lines(path), federation="simulation").length > 1


def test_both_budgets_are_charged_for_every_round(undisturbed: Path) -> None:
    budgets = {b["unit"]: b for b in record(undisturbed)["budgets"]}
    assert budgets["speaker"]["events"] == 2
    assert budgets["segment"]["events"] == 4  # two rounds of two steps
    for budget in budgets.values():
        assert budget["epsilon"] == max(a["epsilon"] for a in budget["accountants"])


def test_a_noise_that_exceeds_the_learning_is_called_so(undisturbed: Path) -> None:
    found = record(undisturbed)
    assert found["rounds"][-1]["noise_to_signal"] > 1
    assert found["cohort_advice"]["cohort_for_target"] > 4
    assert "cohort is too small" in (undisturbed / "report.html").read_text(encoding="utf-8")


def test_another_seed_gives_another_adapter(
    undisturbed: Path, simulate: Callable[..., Path]
) -> None:
    other = record(simulate("--seed", "8", "--rounds", "1"))
    assert (
        other["rounds"][0]["adapter_sha256"] != record(undisturbed)["rounds"][0]["adapter_sha256"]
    )


def test_killed_and_resumed_is_the_same_as_undisturbed(
    undisturbed: Path, scenario: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("simulate", scenario, "--out", out)
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rounds = out / "state" / "server" / "rounds.jsonl"
    devices = out / "state" / "devices"
    # In the middle of the second round: the first is committed, somebody has answered already.
    while process.poll() is None:
        if rounds.exists() and any(
            path.stat().st_mtime_ns > rounds.stat().st_mtime_ns
            for path in devices.glob("*/rounds/*.begun")
        ):
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "run.json").exists()
    run(*arguments, "--resume")
    found, expected = record(out), record(undisturbed)
    assert found["resumed"][0]["after_round"] == 1
    assert found["shared_adapter_sha256"] == expected["shared_adapter_sha256"]
    assert found["budgets"] == expected["budgets"]
    assert [r["held_out_loss"] for r in found["rounds"]] == [
        r["held_out_loss"] for r in expected["rounds"]
    ]


def test_ray_gives_the_same_adapter(undisturbed: Path, simulate: Callable[..., Path]) -> None:
    pytest.importorskip("ray")
    found, expected = record(simulate("--engine", "ray")), record(undisturbed)
    assert found["engine"] == "ray"
    assert found["shared_adapter_sha256"] == expected["shared_adapter_sha256"]
    assert [r["survivors"] for r in found["rounds"]] == [r["survivors"] for r in expected["rounds"]]


def test_without_privacy_there_is_no_noise_and_no_budget(simulate: Callable[..., Path]) -> None:
    found = record(simulate("--private", "off", "--rounds", "1"))
    assert found["budgets"] == []
    assert found["rounds"][0]["noise_to_signal"] is None
    clients = found["evaluation"]["clients"]
    assert all(row["loss_after"] < row["loss_before"] for row in clients)


def test_each_device_alone_shares_nothing(simulate: Callable[..., Path]) -> None:
    out = simulate("--federated", "off", "--rounds", "1")
    found = record(out)
    assert found["rounds"] == []
    assert found["shared_adapter_sha256"] == found["shared_adapter"]["initial_sha256"]
    assert all(row["loss_after"] < row["loss_before"] for row in found["evaluation"]["clients"])


def test_too_few_survivors_abort_the_round_and_keep_the_adapter(
    scenario: Path, tmp_path: Path
) -> None:
    fragile = tmp_path / "fragile.toml"
    text = scenario.read_text(encoding="utf-8").replace("masked = 0.1", "masked = 0.97")
    fragile.write_text(text, encoding="utf-8")
    run("simulate", fragile, "--out", tmp_path / "out", "--rounds", "1")
    found = record(tmp_path / "out")
    assert found["rounds"][0]["status"] == "aborted"
    assert found["rounds"][0]["reason"]
    assert found["shared_adapter_sha256"] == found["shared_adapter"]["initial_sha256"]
    assert any("aborted" in warning for warning in found["warnings"])
