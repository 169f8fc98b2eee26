"""The service files: as good as systemd and compose say without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "server" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service")) + sorted(DEPLOY.glob("*.timer"))


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_there_are_units() -> None:
    assert {p.name for p in UNITS} >= {
        "chorister-server.service", "chorister-backup.service", "chorister-backup.timer",
    }  # fmt: skip


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    analyse = _tool("systemd-analyze")
    command = tmp_path / "chorister"
    command.write_text(f"#!{sys.executable}\n")
    command.chmod(0o755)
    paths = []
    for unit in UNITS:
        # Where it is installed is the operator's; that it can be run is checked with ours.
        text = unit.read_text().replace("/opt/chorister/bin/chorister", str(command))
        paths.append(tmp_path / unit.name)
        paths[-1].write_text(text)
    done = subprocess.run(
        [analyse, "verify", *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr


def test_the_check_sees_a_wrong_unit(tmp_path: Path) -> None:
    analyse = _tool("systemd-analyze")
    path = tmp_path / "wrong.service"
    path.write_text("[Service]\nExecStart=/nowhere/at/all\nProtectSytem=strict\n")
    done = subprocess.run(
        [analyse, "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr


@pytest.mark.parametrize("name", ["chorister-server.service", "chorister-backup.service"])
def test_a_unit_is_hardened(name: str) -> None:
    analyse = _tool("systemd-analyze")
    done = subprocess.run(
        [analyse, "security", "--offline=true", "--threshold=25", str(DEPLOY / name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze does not look at files")
    assert done.returncode == 0, done.stdout[-500:]


def test_units_call_commands_that_exist() -> None:
    from importlib.metadata import entry_points

    actions = {entry.name for entry in entry_points(group="chorister.server")}
    called = re.findall(
        r"chorister server (\w+)", "".join(p.read_text() for p in DEPLOY.iterdir())
    )  # fmt: skip
    assert len(called) >= 4
    assert set(called) <= actions


def test_compose_takes_the_file() -> None:
    compose = shutil.which("docker-compose")
    command = [compose] if compose else [_tool("docker"), "compose"]
    done = subprocess.run(
        [*command, "-f", str(DEPLOY / "compose.yaml"), "config"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not compose and "unknown" in done.stderr:
        pytest.skip("docker has no compose plugin here")
    assert done.returncode == 0, done.stderr
    assert "no-new-privileges:true" in done.stdout


def test_nothing_but_the_fleet_api_is_published() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert re.findall(r'- "(\d+:\d+)"', text) == ["9092:9092"]
    assert "privileged: true" not in text
