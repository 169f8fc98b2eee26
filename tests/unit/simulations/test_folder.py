"""The output folder: nothing is overwritten, and only the same run is gone on with."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from chorister.shared.errors import UsageError
from chorister.simulations import folder as folder_module
from chorister.simulations.folder import RunFolder, check_room, open_baseline, open_folder

PLAN = {"seed": 7, "clients": 6}


@pytest.mark.parametrize("content", ["a file", ".hidden", "folder/"])
def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / content).mkdir() if content.endswith("/") else (out / content).write_text("mine")
    before = sorted(out.rglob("*"))
    with pytest.raises(UsageError, match="empty or not there yet") as caught:
        open_folder(out, PLAN, resume=False)
    assert caught.value.exit_status == 2
    assert sorted(out.rglob("*")) == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError):
        open_folder(tmp_path / "out", PLAN, resume=False)
    with pytest.raises(UsageError):
        open_folder(tmp_path / "out" / "deeper", PLAN, resume=False)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_a_new_run_writes_its_plan(tmp_path, there):
    out = tmp_path / "a" / "out"
    if there:
        out.mkdir(parents=True)
    folder = open_folder(out, PLAN, resume=False)
    assert json.loads(folder.plan.read_text()) == PLAN
    assert open_folder(out, dict(reversed(PLAN.items())), resume=True) == folder
    with pytest.raises(UsageError, match="--resume"):
        open_folder(out, PLAN, resume=False)


@pytest.mark.parametrize("there", [False, True])
def test_there_is_nothing_to_resume_without_a_run(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with pytest.raises(UsageError, match="started before"):
        open_folder(out, PLAN, resume=True)
    assert out.exists() == there


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"seed": 8, "clients": 6}, "seed"), ({"seed": 7}, "clients"),
        ({**PLAN, "data": "x"}, "data"), ({"seed": 8, "clients": 7}, "clients, seed"),
    ],
)  # fmt: skip
def test_another_plan_is_refused_by_the_names_of_what_differs(tmp_path, plan, named):
    open_folder(tmp_path / "out", PLAN, resume=False)
    with pytest.raises(UsageError, match=f"other values of: {named}"):
        open_folder(tmp_path / "out", plan, resume=True)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]x", b"\xff", b"3", b"[1]", b"null"])
def test_a_damaged_plan_is_refused(tmp_path, damage):
    folder = open_folder(tmp_path / "out", PLAN, resume=False)
    folder.plan.write_bytes(damage)
    with pytest.raises(UsageError, match="damaged"):
        open_folder(tmp_path / "out", PLAN, resume=True)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    folder = open_folder(tmp_path / "out", PLAN, resume=False)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_atomically", full)
    with pytest.raises(UsageError, match=r"No space left.*--resume"):
        folder.write_json(folder.plan, {})
    assert json.loads(folder.plan.read_text()) == PLAN


def test_json_with_a_nan_is_a_defect_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        RunFolder(tmp_path).write_json(tmp_path / "run.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_room_is_looked_for_where_the_folder_will_be(tmp_path, monkeypatch):
    asked = []
    usage = SimpleNamespace(free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda where: asked.append(where) or usage)
    check_room(tmp_path / "not" / "there", 10 * 2**20)
    with pytest.raises(UsageError, match=r"needs 11 MiB of disk.*10 MiB free") as caught:
        check_room(tmp_path / "not" / "there", 11 * 2**20)
    assert asked == [tmp_path, tmp_path]
    assert caught.value.exit_status == 2


def test_a_baseline_has_the_same_layout_below(tmp_path):
    folder = open_folder(tmp_path / "out", PLAN, resume=False)
    child = open_baseline(folder, "local_only")
    assert child == open_baseline(folder, "local_only")
    assert child.root == folder.root / "baselines" / "local_only"
    assert child.plan.parent.is_dir()
    places = [p for p in dir(RunFolder) if isinstance(getattr(RunFolder, p), property)]
    assert len({getattr(folder, p) for p in places}) == len(places)
