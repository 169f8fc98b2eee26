"""One whole round of a real server with devices without voices, measured: `chorister server load`.

The server is `chorister server start` with TLS and members' keys, as deployed, in a process of its
own that starts SuperExec and the ServerApp; the devices are threads of a few more processes. All of
it listens and dials on 127.0.0.1 and ends with the measurement, whatever happens.

Server and devices share this machine's processors here and nowhere else. So processor time is taken
part by part, and what a server would need by itself is derived from its own parts alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from chorister.server.plan import Plan, write_plan
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, read_rounds
from chorister.server.server_log import LOG_FILE
from chorister.shared.errors import ChoristerError
from chorister.shared.records import ROUND
from chorister.simulations.load_meter import PARTS, SERVER_APP, SUPERLINK, Meter
from chorister.simulations.load_town import CHORISTER, Town, build_town

DEVICE_CODE = "from chorister.simulations.load_devices import main; main()"
START_S = 120.0  # for a server to listen, and for each hundred devices to connect
STOP_S = 20.0
FLEET_EXCHANGES = len(ROUND) + 1  # and the hello that a ServerApp begins with


class LoadFailed(ChoristerError):
    """Something did not start, or no round came to its end in time."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One exchange of a round, or the work around the exchanges.

    Attributes:
        name: 'hello', an exchange, or 'after' for the server's work after the last answer.
        wall_s: seconds by the clock.
        cpu_s: part to processor seconds meanwhile.
    """

    name: str
    wall_s: float
    cpu_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """What one round cost.

    Attributes:
        devices: asked.
        dimension: d.
        survivors: in the sum.
        status: 'finished' or 'aborted'.
        reason: why it was aborted.
        round_s: from the first question to the new adapter.
        start_s: before that, until the ServerApp was at work.
        stages: in order; they add up to round_s.
        cpu_s: part to processor seconds of the round.
        peak_rss_mib: part to most memory; of devices, all together.
        others_cpu_s: processor seconds of everything else on this machine meanwhile.
        load_average: of this machine when the round ended, over one minute.
        messages: requests and answers of the protocol.
        protocol_up_bytes: of all devices' messages of the protocol.
        protocol_down_bytes: of all messages to devices.
        requests: Fleet API call to how often it was made, from first connection to the end.
        fleet_up_bytes, fleet_down_bytes: bodies of those calls, without HTTP's headers and TLS.
        refusals: reason to devices.
        device_states: what devices said of their connection to how many did.
        idle_cpu_s_per_s: of the SuperLink while all devices were connected and nothing happened.
    """

    devices: int
    dimension: int
    survivors: int
    status: str
    reason: str | None
    round_s: float
    start_s: float
    stages: tuple[Stage, ...]
    cpu_s: dict[str, float]
    peak_rss_mib: dict[str, float]
    others_cpu_s: float
    load_average: float
    messages: int
    protocol_up_bytes: int
    protocol_down_bytes: int
    requests: dict[str, int]
    fleet_up_bytes: int
    fleet_down_bytes: int
    refusals: dict[str, int]
    device_states: dict[str, int]
    idle_cpu_s_per_s: float

    def server_alone_s(self, cores: int = 2) -> float:
        """Derive how long the round would take where devices have processors of their own.

        The SuperLink and the ServerApp are two processes of one core each: Python runs one thread
        of each at a time. A stage takes at least what its busier process needs; nothing is
        subtracted for waiting, so devices that take long to answer come on top.

        Args:
            cores: of the server.
        """
        total = 0.0
        for stage in self.stages:
            link, app = stage.cpu_s[SUPERLINK], stage.cpu_s[SERVER_APP]
            total += max(link, app) if cores > 1 else link + app
        return total

    def to_plain(self) -> dict[str, Any]:
        """Return all figures for --json, derived ones under a name that says so."""
        return {**asdict(self), "derived": {"server_alone_s": self.server_alone_s()}}


def measure(
    root: Path,
    devices: int,
    dimension: int,
    *,
    gamma: float,
    dropout: float,
    processes: int,
    most_s: float,
    say: Callable[[str], None] = lambda text: None,
) -> Load:
    """Run one round and return what it cost.

    Args:
        root: an empty folder; what is in it afterwards may be looked at and deleted.
        devices: how many.
        dimension: d.
        gamma: share of devices assumed corrupt.
        dropout: share of devices that may vanish.
        processes: to spread devices over.
        most_s: a round that takes longer is given up.
        say: told what happens.

    Raises:
        LoadFailed: a process ended, or something was not there in time; its log says why.
    """
    say(f"enrolling {devices} devices")
    town = build_town(root, devices, dimension, gamma=gamma, dropout=dropout, deadline_s=most_s)
    with _started(town, say) as server:
        bounds = [devices * i // processes for i in range(processes + 1)]
        reports = [root / f"devices-{i}.json" for i in range(processes)]
        with _crowd(town, bounds, reports, say) as crowd:
            meter = Meter(server.pid, [process.pid for process in crowd])
            meter.start()
            try:
                _wait(lambda: _online(town) >= devices, START_S * (1 + devices / 100), town,
                      "devices that are connected")  # fmt: skip
                idle = _idle(meter)
                planned_s = time.time()
                write_plan(town.server.plan_file, Plan(target=1, least_devices=devices))
                say("all are connected; the round begins")
                _wait(lambda: _rounds(town), most_s + START_S, town, "a round that ends")
                load_average = os.getloadavg()[0]
            finally:
                meter.stop()
        told = [json.loads(report.read_bytes()) for report in reports]
    return _figures(town, meter, told, planned_s, load_average, idle, dimension)


def _idle(meter: Meter) -> float:
    """Return processor seconds a second of the SuperLink over five quiet seconds."""
    begin_s = time.time()
    time.sleep(5.0)
    return meter.series[SUPERLINK].spent_s(begin_s, time.time() - 0.5) / 4.5


def _figures(
    town: Town,
    meter: Meter,
    told: list[dict[str, Any]],
    planned_s: float,
    load_average: float,
    idle: float,
    dimension: int,
) -> Load:
    record = _rounds(town)[-1]
    ended_s = _events(town, "round")[-1][0]
    began_s = ended_s - record.seconds
    stages = tuple(
        Stage(name, end - begin, {p: meter.series[p].spent_s(begin, end) for p in PARTS})
        for name, begin, end in _stages(town, began_s, ended_s)
    )
    cpu = {part: meter.series[part].spent_s(began_s, ended_s) for part in PARTS}
    requests: dict[str, int] = {}
    states: dict[str, int] = {}
    for one in told:
        for into, found in ((requests, one["requests"]), (states, one["states"])):
            for name, count in found.items():
                into[name] = into.get(name, 0) + count
    return Load(
        devices=record.cohort, dimension=dimension, survivors=record.survivors,
        status=record.status, reason=record.reason, round_s=record.seconds,
        start_s=began_s - planned_s, stages=stages, cpu_s=cpu,
        peak_rss_mib={part: meter.series[part].peak_rss_mib for part in PARTS},
        others_cpu_s=meter.machine.spent_s(began_s, ended_s) - sum(cpu.values()),
        load_average=load_average, messages=_messages(record),
        protocol_up_bytes=record.bytes_up, protocol_down_bytes=record.bytes_down,
        requests=requests, fleet_up_bytes=sum(one["up_bytes"] for one in told),
        fleet_down_bytes=sum(one["down_bytes"] for one in told), refusals=dict(record.refusals),
        device_states=states, idle_cpu_s_per_s=idle,
    )  # fmt: skip


def _messages(record: RoundRecord) -> int:
    """Return how many messages of the protocol went either way."""
    answered = sum(record.answered.values())
    return 2 * answered + sum(record.drop_outs.values())


def _stages(town: Town, began_s: float, ended_s: float) -> Iterator[tuple[str, float, float]]:
    """Give name, begin and end of each stage, without a gap between them."""
    begins = [(s, str(line["exchange"])) for s, line in _events(town, "exchange")]
    marks = [(began_s, "hello"), *begins]
    answers = [s for s, _ in _events(town, "answers")]
    if answers and len(answers) == len(begins):
        marks.append((answers[-1], "after"))
    marks.append((ended_s, ""))
    for (begin, name), (end, _) in pairwise(marks):
        yield name.rpartition(".")[2], begin, end


def _events(town: Town, kind: str) -> list[tuple[float, dict[str, Any]]]:
    """Return Unix time and fields of one kind of line in the server's log."""
    try:
        lines = (town.server.logs / LOG_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = [line for line in map(json.loads, lines) if line["event"] == kind]
    return [(datetime.fromisoformat(line["at"]).timestamp(), line) for line in found]


def _rounds(town: Town) -> list[RoundRecord]:
    path = town.server.state / ROUNDS_FILE
    return read_rounds(path) if path.exists() and _events(town, "round") else []


def _online(town: Town) -> int:
    try:
        return int(json.loads(town.server.status_file.read_bytes())["online"])
    except (OSError, ValueError, KeyError):
        return 0


@contextmanager
def _started(town: Town, say: Callable[[str], None]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server while the block does, once it listens."""
    say("starting the server")
    command = [CHORISTER, "server", "start", "--folder", str(town.server.root)]
    server = _start(command, town.root / "server.out")
    try:
        _wait(lambda: server.poll() is not None or _events(town, "started"), START_S, town,
              "a server that listens")  # fmt: skip
        if server.poll() is not None:
            raise _failed("A server starts.", town)
        yield server
    finally:
        _end([server])


@contextmanager
def _crowd(
    town: Town, bounds: list[int], reports: list[Path], say: Callable[[str], None]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the devices while the block does; they have reported when it ends."""
    say(f"starting the devices in {len(reports)} processes")
    crowd = [
        _start([DEVICE_CODE, str(town.root), str(first), str(last), str(report)],
               town.root / f"{report.stem}.out")
        for first, last, report in zip(bounds, bounds[1:], reports, strict=False)
    ]  # fmt: skip
    try:
        yield crowd
        for process in crowd:
            process.terminate()
        _wait(lambda: all(report.exists() for report in reports), START_S, town,
              "devices that report what they cost")  # fmt: skip
    finally:
        _end(crowd)


def _start(code: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 (our own command line)
            [sys.executable, "-c", *code], stdout=out, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask each to end, then end it with all that it started."""
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(found: Callable[[], object], within_s: float, town: Town, what: str) -> None:
    end = time.monotonic() + within_s
    while not found():
        if time.monotonic() > end:
            raise _failed(f"Within {within_s:.0f} s there are {what}.", town)
        time.sleep(0.2)


def _failed(rule: str, town: Town) -> LoadFailed:
    said = [path.read_text(errors="replace")[-600:] for path in sorted(town.root.glob("*.out"))]
    return LoadFailed(
        rule, f"{_online(town)} devices connected; {' | '.join(filter(None, said)) or 'no word'}",
        f"See the logs in {town.root} (--keep), or ask for fewer devices.",
    )  # fmt: skip
