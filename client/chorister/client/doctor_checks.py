"""What a device needs, looked for one by one; nothing is changed and nothing is sent."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from chorister.client.conditions import battery_is_drained, cpu_times, user_is_idle
from chorister.client.consent import refusal_of
from chorister.client.home import Home
from chorister.client.status import vault_state
from chorister.client.vault_key import uses_keyring
from chorister.shared.errors import ChoristerError

State = Literal["good", "note", "missing"]
NEEDED = ("torch", "opacus", "onnx", "onnxruntime", "scipy", "soundfile", "soxr", "flwr", "numpy")
LEAST_FREE_GIB = 1.0
_GIB = 2**30
_EARLIEST_S = 1_750_000_000  # this version is younger: a clock before that is wrong
_ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for.

    Attributes:
        name: what.
        state: 'good'; 'note' if something works less well; 'missing' if it is needed.
        found: in words.
        advice: what to do; '' where nothing has to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def packages() -> list[Check]:
    """Return Python, this package, and the packages that a device needs."""
    fine = (3, 11) <= sys.version_info[:2] < (3, 14)
    found = [
        Check(
            "python", "good" if fine else "missing", platform.python_version(),
            "" if fine else "Install Python 3.11 to 3.13.",
        ),
        Check("chorister", "good", version("chorister")),
    ]  # fmt: skip
    for name in NEEDED:
        try:
            found.append(Check(name, "good", version(name)))
        except PackageNotFoundError:
            advice = "Run: pip install 'chorister[client]'"
            found.append(Check(name, "missing", "not installed", advice))
    return found


def accelerators() -> list[Check]:
    """Return what torch and onnxruntime can compute on."""
    import onnxruntime
    import torch

    found = [Check("cpu", "good", f"{os.cpu_count()} cores, {platform.machine()}")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            what = torch.cuda.get_device_properties(i)
            found.append(Check(
                f"cuda:{i}", "good",
                f"{what.name}, {what.total_memory / _GIB:.1f} GiB, CUDA {torch.version.cuda}, "
                f"driver {_driver()}",
            ))  # fmt: skip
    else:
        found.append(_no_cuda(torch.version.cuda))
    mps = torch.backends.mps.is_available()
    found.append(Check("mps", "good" if mps else "note", "found" if mps else "none"))
    providers = ", ".join(onnxruntime.get_available_providers())
    found.append(Check("onnxruntime providers", "good", providers))
    return found


def _no_cuda(built_for: str | None) -> Check:
    driver = _driver()
    if driver == "none":
        return Check("cuda", "note", "no NVIDIA driver: training runs on the CPU")
    if built_for is None:
        return Check(
            "cuda", "note", f"driver {driver}, but a torch that is built for the CPU alone",
            "Install the torch that pytorch.org names for your driver.",
        )  # fmt: skip
    return Check(
        "cuda", "note", f"driver {driver}, torch for CUDA {built_for}, and no usable GPU",
        "Update the driver to one that this CUDA needs, or install an older torch.",
    )  # fmt: skip


def _driver() -> str:
    """Return the version of the NVIDIA driver, 'none' where there is none."""
    module = Path("/sys/module/nvidia/version")
    if module.exists():
        return module.read_text(encoding="ascii").strip()
    found = _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found.splitlines()[0] if found else "none"


def base_weights() -> Check:
    """Return whether the installed base model is the one that this version was made with."""
    from chorister.shared.voice.base import load_base
    from chorister.shared.voice.base_digest import BASE_SHA256

    try:
        load_base()
    except ChoristerError as error:
        return Check("base model", "missing", error.found, error.advice)
    return Check("base model", "good", BASE_SHA256[:16])


def vault(folder: Path) -> Check:
    """Return the state of the vault, without opening it."""
    state = vault_state(folder)
    if state == "none":
        return Check("vault", "missing", f"none in {folder}", "Make one: chorister enrol.")
    if state != "in use":
        advice = "A new consent needs a new vault: chorister enrol --vault DIR."
        if state.startswith("moved"):
            advice = "Use it on the machine that it was moved to."
        return Check("vault", "missing", f"{folder}: {state}", advice)
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Check(
            "vault", "missing", f"{folder} is open to others (mode {mode:o})",
            f"Run: chmod 700 '{folder}'",
        )  # fmt: skip
    try:
        opens = "the system's keyring" if uses_keyring(folder) else "a passphrase"
    except ChoristerError as error:
        return Check("vault", "missing", error.found, error.advice)
    return Check("vault", "good", f"{folder}, opens with {opens}")


def consent_and_voice(home: Home) -> list[Check]:
    """Return what an opened vault holds for training, and for how long."""
    from chorister.client.agreement import agreements
    from chorister.client.installed import load_material
    from chorister.client.membership import membership

    reason = refusal_of(home.consent, "training", home.device, home.now_s())
    found = [
        Check(
            "consent to training", "missing" if reason else "good",
            reason or f"until {_day(home.consent.expires_s if home.consent else 0)}",
            "Give it: chorister enrol. Or renew it: chorister consent renew." if reason else "",
        )
    ]  # fmt: skip
    try:
        segments = len(load_material(home).segments)
        found.append(Check("enrolled speech", "good", f"{segments} training segments"))
    except ChoristerError as error:
        found.append(Check("enrolled speech", "missing", error.found, error.advice))
    for agreed in agreements(home):
        member = membership(home, agreed.federation)
        certificate = None if member is None else member.certificate
        if certificate is None:
            found.append(Check(
                f"member of '{agreed.federation}'", "missing", "no certificate yet",
                "Send the request to the authority, then: chorister join --certificate FILE",
            ))  # fmt: skip
        else:
            ended = certificate.not_after_s < home.now_s()
            found.append(Check(
                f"member of '{agreed.federation}'", "missing" if ended else "good",
                f"until {_day(certificate.not_after_s)}",
                "Ask the authority for a token, and request membership again." if ended else "",
            ))  # fmt: skip
    return found


def microphone() -> Check:
    """Return whether a microphone can be used; only `enrol --record` and `live` need one."""
    try:
        from chorister.client.record_audio import list_microphones

        found = [line for line in list_microphones() if line.strip()]
    except (ChoristerError, ImportError, OSError) as error:
        what = error.found if isinstance(error, ChoristerError) else str(error)
        return Check(
            "microphone", "note", what[:120],
            "Enrol from files, or: pip install 'chorister[live]' (needs PortAudio).",
        )  # fmt: skip
    if not found:
        return Check("microphone", "note", "none", "Connect one, or enrol from files.")
    return Check("microphone", "good", found[0][:80])


def clock(folder: Path, now_s: Callable[[], float] = time.time) -> Check:
    """Return whether the clock is right as far as this machine can know; consents depend on it."""
    now, newest = now_s(), _newest_entry_s(folder)
    if now < max(_EARLIEST_S, newest - 300):
        return Check(
            "clock", "missing", f"it shows {_day(int(now))}, and the ledger is from later",
            "Set it: timedatectl set-ntp true.",
        )  # fmt: skip
    synchronised = _ask("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if synchronised == "no":
        return Check(
            "clock", "note", "not synchronised with a time server",
            "Turn it on: timedatectl set-ntp true.",
        )  # fmt: skip
    told = {"yes": "synchronised"}.get(synchronised, "plausible; nothing here says if it is synced")
    return Check("clock", "good", told)


def _newest_entry_s(folder: Path) -> int:
    paths = [p for p in folder.rglob("*.jsonl") if p.is_file()] if folder.is_dir() else []
    return max((int(p.stat().st_mtime) for p in paths), default=0)


def disk(folder: Path) -> Check:
    """Return whether there is room where the vault lies."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / _GIB
    if free < LEAST_FREE_GIB:
        return Check(
            "disk", "missing", f"{free:.1f} GiB free at {there}",
            f"Free {LEAST_FREE_GIB:g} GiB: a ledger that cannot be written ends a round.",
        )  # fmt: skip
    return Check("disk", "good", f"{free:.1f} GiB free at {there}")


def conditions() -> list[Check]:
    """Return what this machine can tell of power and idleness; what it cannot is no reason."""
    drained, idle = battery_is_drained(), user_is_idle()
    return [
        Check(
            "power", "note" if drained is None else "good",
            {True: "on battery: it would not train now", False: "on mains"}.get(
                drained if drained is not None else False, ""
            )
            if drained is not None
            else "cannot be told: it counts as mains",
        ),
        Check(
            "idle", "note" if idle is None else "good",
            "no login manager says so: only the load of other programs counts"
            if idle is None
            else ("nobody uses the machine" if idle else "somebody uses the machine"),
        ),
        Check(
            "load", "note" if cpu_times() is None else "good",
            "cannot be told" if cpu_times() is None else "measured",
            "" if cpu_times() else "Run: pip install psutil",
        ),
    ]  # fmt: skip


def _ask(program: str, *arguments: str) -> str:
    found = shutil.which(program)
    if found is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 (nothing of it comes from anybody)
            [found, *arguments], capture_output=True, text=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _day(time_s: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time_s))
