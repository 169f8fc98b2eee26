"""Simulated devices and the simulated server's desk, opened from a run folder.

Both engines and every process of a run come here: the folder is named by an environment variable
that the simulation sets, and what a client is follows from its place among the nodes. A device is
a folder of its own, as on a laptop: a vault of keys, consent and profile, a budget, a ledger.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import torch

from chorister.client.budget import DeviceBudget
from chorister.client.consent import ConsentRecord
from chorister.client.device import ENVIRONMENT as DEVICE
from chorister.client.device import Device
from chorister.client.rounds import RoundStore
from chorister.client.secagg_party import Acceptance
from chorister.server.budget import FederationBudget
from chorister.server.operator import ENVIRONMENT as OPERATOR
from chorister.server.operator import Operator
from chorister.server.registry import Registry
from chorister.server.rounds import RoundRecord
from chorister.server.withdrawals import WITHDRAWALS_FILE, Withdrawals
from chorister.shared import codec
from chorister.shared.errors import ChoristerError
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.settings import Federation
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.voice import adapters
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.base import load_base
from chorister.shared.voice.model import VoiceModel
from chorister.simulations.enrolment import (
    authority_key,
    device_randomness,
    made,
    open_authority,
    open_ledger,
    open_vault,
    server_key,
    spec_of,
)
from chorister.simulations.folder import RunFolder
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.recordings import load_material
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Speaker
from chorister.simulations.world import World, load_world

FOLDER = "CHORISTER_SIMULATION"
_STAGES = {
    ADVERTISE: "advertise",
    SHARE: "share",
    CONTRIBUTE: "masked",
    CONFIRM: "confirm",
    REVEAL: "reveal",
}


class DroppedOut(ChoristerError):
    """A simulated client that went away, as the scenario wants it."""


def enter(folder: RunFolder) -> None:
    """Make this process, and those it starts, open devices and the server in a run folder."""
    os.environ[FOLDER] = str(folder.root.resolve())
    os.environ[DEVICE] = os.environ[OPERATOR] = "simulated"


def current_world() -> World:
    """Return the world of the run that this process belongs to."""
    return load_world(Path(os.environ[FOLDER]))


def open_device(node_config: Mapping[str, object], exchange: str, round_id: str) -> Device:
    """Return the simulated client behind a node.

    Raises:
        DroppedOut: the scenario's drop-outs say so.
    """
    torch.set_num_threads(1)  # the same sums in the same order on every engine
    world = current_world()
    place = node_config["partition-id"]
    speaker = world.clients[int(str(place))]
    randomness = device_randomness(world.scenario, speaker)
    _maybe_drop_out(world.scenario, randomness, exchange, round_id)
    return _device(world, speaker, randomness)


def _device(world: World, speaker: Speaker, randomness: SimulatedRandomness) -> Device:
    scenario, folder = world.scenario, world.folder.device(speaker.name)
    federation = scenario.federation
    vault = open_vault(folder, randomness)
    certificate = Certificate.from_plain(codec.decode(vault.get("certificate")))
    device_id = certificate.device_id
    return Device(
        signing_key=SigningKey(vault.get("identity")),
        certificate=certificate,
        authority=authority_key(scenario).verify_key(),
        federation=federation.name,
        acceptance=Acceptance(
            federation=federation.name,
            least_cohort=2,
            least_honest=2,
            least_gamma=federation.aggregation.corrupt_fraction,
            most_dropout=federation.aggregation.dropout_fraction,
            least_noise_multiplier=federation.speaker_privacy.noise_multiplier
            if federation.private
            else 0.0,
            simulated=True,
            **_clip_range(federation),
        ),
        randomness=randomness,
        consent=ConsentRecord.from_plain(codec.decode(vault.get("consent"))),
        withdrawal=None,
        budget=DeviceBudget(
            folder / "budget.jsonl",
            segment=segment_limit(federation.segment_privacy),
            speaker=speaker_limit(federation.speaker_privacy),
            device_id=device_id,
            federation=federation.name,
        ),
        ledger=LedgerFile(folder / "ledger.jsonl", owner=device_id, federation=federation.name),
        rounds=RoundStore(made(folder / "rounds"), randomness.fork("round key").bytes(32)),
        spec=spec_of(scenario),
        load_material=partial(load_material, speaker, vault),
        load_model=partial(shared_model, spec_of(scenario)),
        now_s=system_clock,
    )


def _clip_range(federation: Federation) -> dict[str, float]:
    """Return the clips that a simulated device pins: those that its federation's settings allow."""
    if not federation.private:
        return {}
    privacy = federation.speaker_privacy
    adaptive = privacy.adaptive_clip
    if adaptive is None:
        return {"least_clip": privacy.clip_norm, "most_clip": privacy.clip_norm}
    return {
        "least_clip": min(privacy.clip_norm, adaptive.least_norm),
        "most_clip": max(privacy.clip_norm, adaptive.most_norm),
    }


def open_operator() -> Operator:
    """Return the simulated server's desk."""
    world = current_world()
    scenario, folder = world.scenario, world.folder
    federation = scenario.federation
    randomness = SimulatedRandomness(scenario.seed, "server")
    authority = authority_key(scenario).verify_key()
    ledger, registry = open_ledger(world), Registry(folder.adapters)
    return Operator(
        settings=federation,
        run=f"seed-{scenario.seed}",
        signing_key=server_key(scenario),
        authority=authority,
        revoked=open_authority(world).revoked,
        withdrawals=Withdrawals(
            made(folder.server) / WITHDRAWALS_FILE, authority=authority,
            federation=federation.name, ledger=ledger, registry=registry,
        ),
        registry=registry,
        budget=FederationBudget(
            folder.server / "budget.jsonl",
            speaker=speaker_limit(federation.speaker_privacy),
            federation=federation.name,
        ),
        ledger=ledger,
        randomness=randomness,
        simulated=True,
        folder=folder.server,
        now_s=system_clock,
        on_round=partial(_before_commit, folder),
    )  # fmt: skip


def rewind(folder: RunFolder, finished: int, adapter_sha256: str | None) -> None:
    """Take a run folder back to the end of its last committed round.

    Only a simulation may do this: what an unfinished round had booked was never sent to anybody.

    Args:
        folder: of the run.
        finished: the last committed round, 0 if there is none.
        adapter_sha256: the newest version after that round; None leaves the first alone.
    """
    registry = Registry(folder.adapters)
    versions = registry.versions()
    if versions:
        registry.truncate(adapter_sha256 or versions[0].sha256)
    lengths: dict[str, int] = {}
    if finished:
        lengths = json.loads(_lengths_path(folder, finished).read_text(encoding="utf-8"))
    for path in _journals(folder):
        keep = lengths.get(str(path.relative_to(folder.root)), 0)
        if path == folder.ledger and not finished:
            continue
        if keep == 0:
            path.unlink()
        else:
            os.truncate(path, keep)
    for marks in (folder.state / "devices").glob("*/rounds"):
        shutil.rmtree(marks)


@lru_cache(maxsize=1)
def shared_model(spec: SharedAdapterSpec) -> VoiceModel:
    """Return this process's one copy of the base with a shared adapter attached."""
    model = load_base()
    adapters.attach_shared(model, spec)
    return model


def _maybe_drop_out(
    scenario: Scenario, randomness: SimulatedRandomness, exchange: str, round_id: str
) -> None:
    """Who has gone stays away for the rest of the round."""
    for name, stage in _STAGES.items():
        draw = randomness.fork(f"drop-out {round_id} {stage}").uint64(1)
        if float(draw[0]) * 2.0**-64 < getattr(scenario.dropout, stage):
            raise DroppedOut(
                "A simulated client may go away.", f"it did at {stage}", "None needed."
            )
        if name == exchange:
            return


_listeners: list[Callable[[], None]] = []


@contextmanager
def on_each_round(listener: Callable[[], None]) -> Iterator[None]:
    """Have a function called whenever a round of this process's server ends, inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _before_commit(folder: RunFolder, record: RoundRecord) -> None:
    """Note how long every journal is at a round's commit, so that a resumed run can go back."""
    for listener in _listeners:
        listener()
    lengths = {str(p.relative_to(folder.root)): p.stat().st_size for p in _journals(folder)}
    folder.write_json(_lengths_path(folder, record.round), lengths)


def _lengths_path(folder: RunFolder, number: int) -> Path:
    return folder.server / f"journals-{number:05d}.json"


def _journals(folder: RunFolder) -> list[Path]:
    devices = sorted((folder.state / "devices").glob("*/*.jsonl"))
    return [p for p in (folder.ledger, folder.server / "budget.jsonl", *devices) if p.exists()]
