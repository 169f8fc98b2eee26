"""A systemd user unit that runs `chorister join`: started at login, restarted after a crash.

Nothing in it is secret. The passphrase comes from the file that the options name, or from the
system's keyring: a service cannot ask for it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from chorister.client import home
from chorister.client.vault_key import uses_keyring
from chorister.shared.console import complain, say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically

UNIT = "chorister-join.service"
_TEMPLATE = """\
# Written by `chorister join --install-unit`; `chorister join --remove-unit` takes it away.
[Unit]
Description=Chorister: this device's part in a federation
Documentation=man:systemd.service(5)
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=30
# What is under way is finished first: a round takes minutes at most.
TimeoutStopSec=300
Nice=10
IOSchedulingClass=idle
UMask=0077
NoNewPrivileges=yes
# No namespaces: not every system lets a user's own services make them.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictSUIDSGID=yes
LockPersonality=yes
{memory}
[Install]
WantedBy=default.target
"""


def unit_text(vault: Path, options: argparse.Namespace) -> str:
    """Return the unit that repeats these options of `chorister join`.

    Args:
        vault: its folder.
        options: as the command was given them.

    Raises:
        UsageError: the vault opens by a passphrase, and no file has it.
    """
    if not home.exists(vault):
        raise UsageError("A service has a vault.", f"none in '{vault}'", "Name its --vault.")
    named = home.named_file(options)
    if named is None and not uses_keyring(vault):
        raise UsageError(
            "A service opens its vault without a person.", "a vault with a passphrase",
            "Give --passphrase-file FILE, or move the vault to the keyring: chorister vault "
            "change-passphrase --keyring.",
        )  # fmt: skip
    command = [str(_program()), "join", "--vault", str(vault.resolve())]
    if named is not None:
        command += ["--passphrase-file", str(named.resolve())]
    for name, value in (
        ("--federation", options.federation), ("--hours", options.hours),
        ("--device", options.device), ("--threads", options.threads),
        ("--memory", options.memory),
    ):  # fmt: skip
        command += [] if value is None else [name, str(value)]
    command += ["--any-power"] if options.any_power else []
    command += ["--even-if-busy"] if options.even_if_busy else []
    # A limit of the whole unit stands above the one that the process sets itself.
    memory = "" if options.memory is None else f"MemoryMax={int(options.memory * 2 + 1)}G\n"
    escaped = " ".join(_escape(part) for part in command)
    return _TEMPLATE.format(command=escaped, memory=memory)


def install_unit(vault: Path, options: argparse.Namespace) -> int:
    """Write the unit, and start it where there is a service manager of the user."""
    path = unit_path()
    text = unit_text(vault, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o644)
    say(f"Written: {path}")
    started = _systemctl("daemon-reload") and _systemctl("enable", "--now", UNIT)
    if not started:
        complain(
            "systemd does not answer for this user. When it does: systemctl --user enable --now "
            f"{UNIT}"
        )
        return 1
    say(f"Started. See `chorister status` and `journalctl --user -u {UNIT}`.")
    return 0


def remove_unit() -> int:
    """Stop the unit and remove its file."""
    path = unit_path()
    if not path.exists():
        say("There is no unit.")
        return 0
    _systemctl("disable", "--now", UNIT)
    path.unlink()
    _systemctl("daemon-reload")
    say(f"Removed: {path}")
    return 0


def unit_path() -> Path:
    """Return where the unit lies."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / UNIT


def _program() -> Path:
    """Return the installed command, of this very installation if that is where it lies."""
    beside = Path(sys.executable).with_name("chorister")
    found = str(beside) if beside.exists() else shutil.which("chorister")
    if found is None:
        raise UsageError(
            "A service starts the installed command.", f"no 'chorister' beside {sys.executable}",
            "Install Chorister with pip, into an environment that stays.",
        )  # fmt: skip
    return Path(found)


def _systemctl(*arguments: str) -> bool:
    program = shutil.which("systemctl")
    if program is None:
        return False
    try:
        done = subprocess.run(  # noqa: S603 (nothing of it comes from anybody)
            [program, "--user", *arguments], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _escape(part: str) -> str:
    """Return an argument as systemd reads it: quoted, with its own specifiers doubled."""
    if not part.isprintable():
        raise UsageError(
            "A unit's command line is one line.", repr(part)[:80],
            "Rename the folder or file, or choose another.",
        )  # fmt: skip
    if shlex.quote(part) == part and "%" not in part:
        return part
    for special in ("\\", '"'):
        part = part.replace(special, "\\" + special)
    return f'"{part.replace("%", "%%").replace("$", "$$")}"'
