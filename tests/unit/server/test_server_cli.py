"""`chorister server init`, `run`, `stop`, `admit`: what an operator types, and mistypes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib

import pytest

from chorister.server.init_cli import init
from chorister.server.plan import Plan, read_plan, write_plan
from chorister.server.registry import Registry
from chorister.server.run_cli import run, stop
from chorister.server.server_folder import ServerFolder
from chorister.server.settings_text import federation_text
from chorister.server.start_cli import run_server
from chorister.server.status_cli import admit, bundle
from chorister.shared.bundle import BUNDLE_SHA256, bundle_digest
from chorister.shared.errors import BadSettings, UsageError
from chorister.shared.files import hold_lock
from chorister.shared.settings import Federation
from chorister.shared.voice.adapter_spec import SharedAdapterSpec


def test_a_new_server_is_for_its_owner_only(office):
    folder = office.folder
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    for path in (folder.signing_key, folder.tls / "ca-key.pem", folder.tls / "server-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_its_settings_are_the_defaults_with_words(office):
    text = office.folder.federation_file.read_text()
    plain = tomllib.loads(text)
    assert Federation.parse(plain, "x") == Federation(
        name="choir", rounds=20,
        aggregation=Federation().aggregation.model_copy(update={"stage_deadline_s": 300.0}),
    )  # fmt: skip
    assert text.count("#") >= 12
    assert office.folder.server_settings().authority_key == office.authority.verify_key()


@pytest.mark.parametrize("placement", ["both", "harmonic", "noise"])
def test_the_first_adapter_has_the_layout_that_was_asked_for(offices, tmp_path, placement):
    layout = {"adapter-rank": 1, "adapter-placement": placement}
    folder = offices.an_office(tmp_path, **layout).folder
    spec = SharedAdapterSpec(1, placement)
    assert folder.server_settings().adapter_spec == spec
    registry = Registry(folder.adapters)
    first = registry.get(registry.latest().sha256)
    assert (first.spec, len(first.values)) == (spec.digest, spec.size)


@pytest.mark.parametrize("name", ['qu"ote', "a\\b", "新しい合唱", "x" * 64])
def test_any_name_survives_the_settings_file(name):
    assert tomllib.loads(federation_text(name))["name"] == name


def test_a_second_server_does_not_go_into_the_same_folder(office, offices, tmp_path):
    with pytest.raises(UsageError, match="folder of its own"):
        offices.an_office(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("federation", "x" * 65, "name"), ("authority", "abc", "public key"),
     ("port", "70000", "port"), ("adapter-rank", "9", "rank"), ("host", "städtchen", "ASCII")],
)  # fmt: skip
def test_a_bad_option_is_named(offices, tmp_path, option, value, word):
    with pytest.raises(UsageError, match=word):
        offices.an_office(tmp_path, **{option: value})


def test_a_certificate_is_renewed_in_place(office):
    before = (office.folder.tls / "server.pem").read_bytes()
    arguments = ["--folder", str(office.folder.root), "--host", "new.example.org"]
    assert init([*arguments, "--renew-certificate", "--quiet"]) == 0
    assert (office.folder.tls / "server.pem").read_bytes() != before


def _run(office, *options):
    return run(["--folder", str(office.folder.root), "--detach", "--quiet", *options])


def test_rounds_are_wanted_and_not_wanted(office):
    assert _run(office, "--rounds", "3", "--when", "4") == 0
    plan = read_plan(office.folder.plan_file)
    assert (plan.target, plan.least_devices, plan.every_s) == (3, 4, 0)
    assert _run(office, "--rounds", "2", "--every", "12h", "--at", "02:00") == 0
    plan = read_plan(office.folder.plan_file)
    assert (plan.target, plan.every_s) == (5, 43_200)
    assert plan.next_s > 0
    assert _run(office, "--cancel") == 0
    assert read_plan(office.folder.plan_file).target == 0


def test_what_is_wanted_is_said_in_json_too(office, capsys):
    folder = ["--folder", str(office.folder.root), "--json"]
    for options in (["--rounds", "3"], ["--rounds", "2", "--detach"]):
        assert run([*folder, *options]) == 0
    said = capsys.readouterr().out.replace("}\n{", "}\0{").split("\0")
    assert [json.loads(one)["target"] for one in said] == [3, 5]
    assert run([*folder, "--cancel"]) == 0
    assert json.loads(capsys.readouterr().out) == {"done": 0, "next_s": 0, "target": 0}


def test_a_stopped_server_is_said_in_json_too(office, capsys):
    with subprocess.Popen(
        [sys.executable, "-c",
         "import fcntl, sys, time\n"
         "file = open(sys.argv[1], 'w')\n"
         "fcntl.flock(file, fcntl.LOCK_EX)\n"
         "print('held', flush=True)\n"
         "time.sleep(60)", str(office.folder.lock_file)],
        stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        assert server.stdout.readline() == b"held\n"
        office.folder.status_file.write_text(json.dumps({"pid": server.pid}))
        assert stop(["--folder", str(office.folder.root), "--now", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pid": server.pid, "stopped": True}


def test_without_a_number_as_many_as_the_settings_say(office):
    assert _run(office) == 0
    assert read_plan(office.folder.plan_file).target == 20


@pytest.mark.parametrize(
    "options",
    [("--rounds", "0"), ("--when", "1"), ("--every", "5s"), ("--every", "soon"), ("--at", "25:00"),
     ("--rounds", "10001")],
)  # fmt: skip
def test_what_cannot_be_is_refused(office, options):
    with pytest.raises(UsageError):
        _run(office, *options)
    assert read_plan(office.folder.plan_file).target == 0


def test_what_does_not_run_is_not_stopped(office):
    with pytest.raises(UsageError, match="none to stop"):
        stop(["--folder", str(office.folder.root)])
    # A file that a killed server left, with a number that nobody has, or another process by now.
    with subprocess.Popen(["sleep", "60"]) as another:
        for pid in (2**22 + 1, another.pid):
            office.folder.status_file.write_text(json.dumps({"pid": pid}))
            with pytest.raises(UsageError, match="none to stop"):
                stop(["--folder", str(office.folder.root), "--now"])
        assert another.poll() is None
        another.kill()


def test_one_server_runs_in_a_folder(office):
    assert hold_lock(office.folder.lock_file, 0.0)
    with pytest.raises(UsageError, match="One server"):
        run_server(office.folder, echo=False, encrypted=True)


def test_memory_for_less_than_four_devices_is_refused(office):
    text = office.folder.server_file.read_text()
    office.folder.server_file.write_text(text.replace("most_held_mib = 256", "most_held_mib = 127"))
    with pytest.raises(BadSettings, match="most_held_mib"):
        office.folder.server_settings()


def test_altered_settings_start_nothing(office):
    text = office.folder.federation_file.read_text().replace("rounds", "ronds")
    office.folder.federation_file.write_text(text)
    with pytest.raises(BadSettings, match="Did you mean 'rounds'"):
        run_server(office.folder, echo=False, encrypted=True)


def test_admissions_are_taken_in_by_command(office, tmp_path, capsys):
    path = tmp_path / "device.node"
    admission = office.admission()
    path.write_bytes(admission.to_bytes())
    folder = ["--folder", str(office.folder.root), "--json"]
    assert admit([*folder, str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["admitted"] == [admission.device_id]
    with pytest.raises(UsageError):
        admit(folder)
    with pytest.raises(UsageError):
        admit([*folder, str(tmp_path / "none")])


def test_the_bundle_is_printed_and_written(tmp_path, capsys):
    assert bundle(["--out", str(tmp_path / "b.fab"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sha256": BUNDLE_SHA256}
    assert bundle_digest((tmp_path / "b.fab").read_bytes()) == BUNDLE_SHA256


def test_the_folder_comes_from_the_environment(office, monkeypatch, capsys):
    from chorister.server import status_cli

    monkeypatch.setenv("CHORISTER_SERVER", str(office.folder.root))
    assert status_cli.status(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["federation"] == "choir"
    assert ServerFolder(office.folder.root).root == office.folder.root
    assert os.environ["CHORISTER_SERVER"]


def test_to_stop_is_still_wanted_when_the_rounds_are_cancelled(office):
    write_plan(office.folder.plan_file, Plan(target=9, every_s=60, stopping=True))
    assert _run(office, "--cancel") == 0
    plan = read_plan(office.folder.plan_file)
    assert (plan.target, plan.every_s, plan.stopping) == (0, 0, True)


def test_a_bundle_does_not_go_where_no_file_can_be(tmp_path):
    for place in (tmp_path, tmp_path / "none" / "app.fab"):
        with pytest.raises(UsageError, match="folder that exists"):
            bundle(["--out", str(place)])
