"""When this device may train: on mains power, while nobody needs the machine, in set hours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from chorister.client.compute import Wanted
from chorister.shared.errors import BadSettings
from chorister.shared.settings import NotNegative, Positive, Settings

POWER_SUPPLY = Path("/sys/class/power_supply")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_LOGIND_S = 5.0


class JoinSettings(Settings):
    """How a device takes part; every one of them may be set by an option of `chorister join`.

    Attributes:
        on_mains: only while no battery is being drained.
        idle: only while nobody uses the machine and other programs leave it alone.
        busy_share: share of all cores that other programs may take and the machine still be idle.
        hours: 'HH:MM-HH:MM' by the local clock, over midnight where it ends earlier; '' for always.
        device: what to compute on: auto, cpu, cuda, mps.
        threads: of the training; None for half of the cores.
        memory_gib: of data; None for no bound.
        niceness: how far this process steps back for others, 0 to 19.
    """

    on_mains: bool = True
    idle: bool = True
    busy_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    hours: str = ""
    device: Wanted = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_gib: Positive | None = None
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    check_every_s: Annotated[NotNegative, Field(le=3600)] = 30.0

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, hours: str) -> str:
        if hours and not _HOURS.fullmatch(hours):
            raise ValueError("hours are HH:MM-HH:MM")
        return hours


def battery_is_drained(folder: Path = POWER_SUPPLY) -> bool | None:
    """Return whether a battery of this machine is being drained, None if it cannot be told.

    A machine without a battery is on mains. The batteries of mice and headsets are not the
    machine's: their scope is 'Device'.

    Source: Linux, Documentation/ABI/testing/sysfs-class-power; psutil where that is absent.
    """
    if folder.is_dir():
        found = [
            _read(each / "status")
            for each in sorted(folder.iterdir())
            if _read(each / "type") == "Battery" and _read(each / "scope") != "Device"
        ]
        return "Discharging" in found
    try:
        import psutil

        battery = psutil.sensors_battery()
    except (ImportError, AttributeError, OSError):
        return None
    return False if battery is None else not battery.power_plugged


def user_is_idle() -> bool | None:
    """Return whether the login manager says that nobody uses the machine, None if it says nothing.

    Source: systemd-logind, property IdleHint, which desktops set when the screen locks or blanks.
    """
    found = shutil.which("loginctl")
    if found is None:
        return None
    try:
        asked = subprocess.run(  # noqa: S603 (nothing of it comes from anybody)
            [found, "show-user", str(os.getuid()), "--property=IdleHint", "--value"],
            capture_output=True,
            text=True,
            timeout=_LOGIND_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"yes": True, "no": False}.get(asked.stdout.strip())


@dataclass(slots=True)
class OtherPrograms:
    """The share of all cores that other programs took since it was last asked.

    Attributes:
        times: returns (all, idle, this process's) CPU seconds so far; None if they are unknown.
    """

    times: Callable[[], tuple[float, float, float] | None]
    _before: tuple[float, float, float] | None = field(default=None, init=False)

    def share(self) -> float | None:
        """Return it, in [0, 1]; None the first time, or where it cannot be told."""
        now, before = self.times(), self._before
        self._before = now
        if now is None or before is None or now[0] <= before[0]:
            return None
        whole, idle, own = (after - at for after, at in zip(now, before, strict=True))
        return min(1.0, max(0.0, (whole - idle - own) / whole))


def cpu_times() -> tuple[float, float, float] | None:
    """Return the CPU seconds of all cores, those of them idle, and those of this process."""
    try:
        import psutil

        now, own = psutil.cpu_times(), psutil.Process().cpu_times()
    except (ImportError, OSError):
        return None
    idle = now.idle + float(getattr(now, "iowait", 0.0))
    guests = float(getattr(now, "guest", 0.0)) + float(getattr(now, "guest_nice", 0.0))
    return sum(now) - guests, idle, own.user + own.system


@dataclass(slots=True)
class Conditions:
    """Whether this device may train now, and if not, why.

    Attributes:
        settings: what its owner wants.
        drained: whether a battery is being drained.
        nobody_there: whether nobody uses the machine.
        others: what other programs take.
        local_time: hour and minute of the local clock.
    """

    settings: JoinSettings
    drained: Callable[[], bool | None] = battery_is_drained
    nobody_there: Callable[[], bool | None] = user_is_idle
    others: OtherPrograms = field(default_factory=lambda: OtherPrograms(cpu_times))
    local_time: Callable[[], tuple[int, int]] = field(default_factory=lambda: _local_time)

    def reason_to_wait(self) -> str | None:
        """Return why not now, in plain words; None if it may train.

        What a machine cannot tell is no reason: it would never train.
        """
        settings = self.settings
        if not within_hours(settings.hours, self.local_time()):
            return f"it is outside of the set hours, {settings.hours}"
        if settings.on_mains and self.drained():
            return "the machine runs on its battery"
        if settings.idle:
            if self.nobody_there() is False:
                return "somebody uses the machine"
            share = self.others.share()
            if share is not None and share > settings.busy_share:
                return f"other programs take {share:.0%} of the machine"
        return None


def within_hours(hours: str, now: tuple[int, int]) -> bool:
    """Return whether a local time lies in 'HH:MM-HH:MM', its end excluded; '' is always.

    Raises:
        BadSettings: it is no such text.
    """
    if not hours:
        return True
    match = _HOURS.fullmatch(hours)
    if match is None:
        raise BadSettings("Hours are HH:MM-HH:MM.", repr(hours)[:40], "Correct them.")
    begin, end = ((int(match[i]), int(match[i + 1])) for i in (1, 3))
    if begin == end:
        return True
    return begin <= now < end if begin < end else now >= begin or now < end


def slept_s() -> float:
    """Return how long this machine has been suspended since it was started, in seconds.

    Source: Linux clock_gettime(2): CLOCK_BOOTTIME runs on in suspend, CLOCK_MONOTONIC does not.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boot is None else time.clock_gettime(boot) - time.monotonic()


def _local_time() -> tuple[int, int]:
    now = time.localtime()
    return now.tm_hour, now.tm_min


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
