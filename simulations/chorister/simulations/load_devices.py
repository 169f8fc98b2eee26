"""Devices without a voice, many in one process, against a real server: `chorister server load`.

Each is a thread that runs what a laptop runs: the daemon's loop, the connection with its key over
TLS, the five exchanges with consent, budget, ledger and sealed state on disk. Only training is
replaced: the delta is random. Signatures that one device of a process has verified are not verified
again by another (they share a cache), so a device's processor time here is less than a laptop's.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from chorister.client import contribute, supernode
from chorister.client.budget import DeviceBudget
from chorister.client.bundle_guard import BundleGuard
from chorister.client.consent import Permit
from chorister.client.daemon import Daemon
from chorister.client.device import ENVIRONMENT, Device
from chorister.client.material import Segments
from chorister.client.rounds import RoundStore
from chorister.client.train import TrainingMaterial
from chorister.shared.bundle import BUNDLE_SHA256
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.randomness import Randomness, SystemRandomness
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.types import Adapter, AdapterDelta
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.model import VoiceModel
from chorister.simulations.load_town import FEDERATION, Member, Town

KIND = "load"  # in the group `chorister.devices`
SEGMENTS = 200  # that a device is taken to have: about five minutes of speech
_here = threading.local()  # a thread is a device


class _Counting(supernode._Client):
    """The connection's client, which counts requests and the bytes of their bodies."""

    requests: ClassVar[Counter[str]] = Counter()
    up_bytes = down_bytes = 0
    lock = threading.Lock()

    def _unary_unary(self, **call: Any) -> Any:
        found = super()._unary_unary(**call)
        with _Counting.lock:
            _Counting.requests[call["path"].rpartition("/")[2]] += 1
            _Counting.up_bytes += call["request"].ByteSize()
            _Counting.down_bytes += found.ByteSize()
        return found


class _Place:
    """Where a thread's device lies, and the keys that it was unlocked with."""

    def __init__(self, town: Town, number: int) -> None:
        self.town, self.folder = town, town.device(number)
        self.member: Member = town.member(number)
        self.round_key = SystemRandomness().bytes(32)

    def open_ledger(self) -> LedgerFile:
        owner = self.member.certificate.device_id
        return LedgerFile(self.folder / "ledger.jsonl", owner=owner, federation=FEDERATION)


def open_device(node_config: Mapping[str, object], exchange: str, round_id: str) -> Device:
    """Return this thread's device, opened anew for every message as an installed one is."""
    place: _Place = _here.place
    member, settings = place.member, place.town.server.federation()
    device_id = member.certificate.device_id
    return Device(
        signing_key=member.key,
        certificate=member.certificate,
        authority=place.town.server.server_settings().authority_key,
        federation=FEDERATION,
        acceptance=place.town.acceptance(),
        randomness=SystemRandomness(),
        consent=member.consent,
        withdrawal=None,
        budget=DeviceBudget(
            place.folder / "budget.jsonl", segment=segment_limit(settings.segment_privacy),
            speaker=speaker_limit(settings.speaker_privacy), device_id=device_id,
            federation=FEDERATION,
        ),
        ledger=place.open_ledger(),
        rounds=RoundStore(place.folder / "rounds", place.round_key),
        spec=SharedAdapterSpec(),
        load_material=_nothing_to_train_on,
        load_model=lambda: cast("VoiceModel", None),
        now_s=system_clock,
    )  # fmt: skip


def random_delta(
    model: VoiceModel,
    spec: SharedAdapterSpec,
    adapter: Adapter,
    material: TrainingMaterial,
    task: TrainingTask,
    privacy: SegmentPrivacy | None,
    permit: Permit,
    now_s: int,
    randomness: Randomness,
) -> AdapterDelta:
    """Return a random delta as long as the adapter, in the place of `train_shared_adapter`."""
    permit.require("training", now_s)
    seed = int.from_bytes(randomness.bytes(8), "big")
    values = np.random.default_rng(seed).standard_normal(len(adapter.values))
    return AdapterDelta(values.astype(np.float32))


def _nothing_to_train_on() -> TrainingMaterial:
    segments = cast("Segments", range(SEGMENTS))  # only their number is looked at
    return TrainingMaterial(segments, cast("Any", None))


def take_part(town: Town, number: int, over: threading.Event, said: Counter[str]) -> None:
    """Run one device's daemon in this thread until it is told to end."""
    place = _here.place = _Place(town, number)
    address, root = town.server.server_settings().public_address, town.root_certificate()
    guard = BundleGuard({BUNDLE_SHA256})
    daemon = Daemon(
        federation=FEDERATION,
        folder=place.folder,
        connect=lambda: supernode.connected(  # type: ignore[arg-type,return-value]
            address, root, place.member.node_key, guard
        ),
        reason_to_wait=lambda: None,
        ledger=place.open_ledger,
        over=over,
        on_change=lambda state, reason: said.update([f"{state}{': ' + reason if reason else ''}"]),
    )
    daemon.run()


def run_devices(town: Town, first: int, last: int, report: Path) -> None:
    """Run devices `first` to `last` - 1 until SIGTERM, then write what they cost."""
    os.environ[ENVIRONMENT] = KIND
    vars(contribute)["train_shared_adapter"] = random_delta
    supernode._Client = _Counting  # type: ignore[misc]
    over, said = threading.Event(), Counter[str]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    threads = [
        threading.Thread(target=partial(take_part, town, i, over, said), name=f"device {i}")
        for i in range(first, last)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # laptops do not connect in the same millisecond
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    plain = {
        "devices": last - first, "cpu_s": used.ru_utime + used.ru_stime,
        "peak_rss_mib": used.ru_maxrss / 1024, "requests": dict(_Counting.requests),
        "up_bytes": _Counting.up_bytes, "down_bytes": _Counting.down_bytes, "states": dict(said),
    }  # fmt: skip
    write_atomically(report, json.dumps(plain).encode())


def main() -> None:
    """Run as a process of its own: FOLDER FIRST LAST REPORT."""
    folder, first, last, report = sys.argv[1:]
    run_devices(Town(Path(folder)), int(first), int(last), Path(report))
