"""Processor time and memory of a server's processes over time, by their part in it."""

from __future__ import annotations

import bisect
import threading
import time
from dataclasses import dataclass, field

import psutil

EVERY_S = 0.2
SUPERLINK, SUPEREXEC, SERVER_APP, DEVICES = "superlink", "superexec", "server_app", "devices"
PARTS = (SUPERLINK, SUPEREXEC, SERVER_APP, DEVICES)


@dataclass(slots=True)
class Series:
    """One part's processor time, as it grew, and its memory at most.

    Attributes:
        times_s: Unix time of each look.
        cpu_s: processor seconds up to then, of all its processes.
        peak_rss_mib: most resident memory of all its processes together.
    """

    times_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_rss_mib: float = 0.0

    def spent_s(self, begin_s: float, end_s: float) -> float:
        """Return the processor seconds between two moments, by linear interpolation."""
        return self.at_s(end_s) - self.at_s(begin_s)

    def at_s(self, moment_s: float) -> float:
        """Return the processor seconds up to a moment; 0 before the first look."""
        times = self.times_s
        i = bisect.bisect_right(times, moment_s)
        if i == 0:
            return 0.0
        if i == len(times):
            return self.cpu_s[-1]
        share = (moment_s - times[i - 1]) / (times[i] - times[i - 1])
        return self.cpu_s[i - 1] + share * (self.cpu_s[i] - self.cpu_s[i - 1])


class Meter:
    """Looks at a server's process tree and at its devices' processes, five times a second.

    Args:
        server: process id of `chorister server start`.
        devices: process ids of what runs devices.
    """

    def __init__(self, server: int, devices: list[int]) -> None:
        self._server, self._devices = server, devices
        self._cpu: dict[int, float] = {}  # of every process that was ever seen
        self._part: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self.series = {part: Series() for part in PARTS}
        self.machine = Series()

    def start(self) -> None:
        """Begin to look."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Look once more and end."""
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Add one point to every series."""
        now_s = time.time()
        rss = dict.fromkeys(PARTS, 0)
        for pid in self._pids():
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    rss[self._part_of(process)] += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended since
            self._cpu[pid] = times.user + times.system
        for part, series in self.series.items():
            series.times_s.append(now_s)
            series.cpu_s.append(sum(s for p, s in self._cpu.items() if self._part[p] == part))
            series.peak_rss_mib = max(series.peak_rss_mib, rss[part] / 2**20)
        times = psutil.cpu_times()
        self.machine.times_s.append(now_s)
        self.machine.cpu_s.append(times.user + times.system + times.nice)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.look()

    def _pids(self) -> list[int]:
        try:
            children = psutil.Process(self._server).children(recursive=True)
        except psutil.Error:
            children = []
        return [self._server, *(child.pid for child in children), *self._devices]

    def _part_of(self, process: psutil.Process) -> str:
        pid = process.pid
        if pid not in self._part:
            self._part[pid] = self._recognise(process)
        return self._part[pid]

    def _recognise(self, process: psutil.Process) -> str:
        if process.pid == self._server:
            return SUPERLINK
        if process.pid in self._devices:
            return DEVICES
        # A process is forked before it becomes what it runs: its parent tells which it is.
        return SUPEREXEC if process.ppid() == self._server else SERVER_APP
