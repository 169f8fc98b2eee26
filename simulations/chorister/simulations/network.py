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
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from chorister.client.budget import DeviceBudget
from chorister.client.consent import ConsentRecord, Permit, Purpose, give, permit
from chorister.client.device import ENVIRONMENT as DEVICE
from chorister.client.device import Device
from chorister.client.material import Segments, analyse
from chorister.client.prepare import enrolment_gain, level_by, segments
from chorister.client.rounds import RoundStore
from chorister.client.secagg_party import Acceptance
from chorister.client.train import TrainingMaterial
from chorister.client.vault import Vault
from chorister.server.authority import Authority
from chorister.server.budget import FederationBudget
from chorister.server.operator import ENVIRONMENT as OPERATOR
from chorister.server.operator import Operator
from chorister.server.registry import Registry
from chorister.server.rounds import RoundRecord
from chorister.shared import codec
from chorister.shared.enrolment import PossessionProof
from chorister.shared.errors import ChoristerError
from chorister.shared.privacy.budget import PrivacyEvent
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter
from chorister.shared.voice import adapters
from chorister.shared.voice.base import load_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.folder import RunFolder
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Skipped, Speaker, split_speaker
from chorister.simulations.world import World, load_world

FOLDER = "CHORISTER_SIMULATION"
CERTIFICATE_LIFE_S = 365 * 86_400
# More recordings hardly change a profile, and each costs analysis time.
PROFILE_RECORDINGS = 12
CONSENT_LIFE_S = 365 * 86_400
ANALYSIS = ("profile.sealed", "gain.sealed", "training.sealed", "held_out.sealed")
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


def device_randomness(scenario: Scenario, speaker: Speaker) -> SimulatedRandomness:
    """Return the source of everything that a client draws: it follows from seed and speaker."""
    return SimulatedRandomness(scenario.seed, "device", speaker.name)


def _device(world: World, speaker: Speaker, randomness: SimulatedRandomness) -> Device:
    scenario, folder = world.scenario, world.folder.device(speaker.name)
    federation = scenario.federation
    vault = open_vault(folder, randomness)
    certificate = Certificate.from_plain(codec.decode(vault.get("certificate")))
    device_id = certificate.device_id
    return Device(
        signing_key=SigningKey(vault.get("identity")),
        certificate=certificate,
        authority=_authority_key(scenario).verify_key(),
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
        rounds=RoundStore(_made(folder / "rounds"), randomness.fork("round key").bytes(32)),
        spec=spec_of(scenario),
        load_material=partial(load_material, speaker, vault),
        load_model=partial(shared_model, spec_of(scenario).rank),
        now_s=system_clock,
    )


def open_operator() -> Operator:
    """Return the simulated server's desk."""
    world = current_world()
    scenario, folder = world.scenario, world.folder
    federation = scenario.federation
    randomness = SimulatedRandomness(scenario.seed, "server")
    return Operator(
        settings=federation,
        run=f"seed-{scenario.seed}",
        signing_key=server_key(scenario),
        authority=_authority_key(scenario).verify_key(),
        revoked=open_authority(world).revoked,
        registry=Registry(folder.adapters),
        budget=FederationBudget(
            folder.server / "budget.jsonl",
            speaker=speaker_limit(federation.speaker_privacy),
            federation=federation.name,
        ),
        ledger=open_ledger(world),
        randomness=randomness,
        simulated=True,
        folder=folder.server,
        now_s=system_clock,
        on_round=partial(_before_commit, folder),
    )


def enrol_devices(world: World, prepared_by: RunFolder | None = None) -> None:
    """Give every speaker what enrolment gives a device: identity, certificate, consent, vault.

    Args:
        world: of the run.
        prepared_by: a run with the same speakers and seed, whose analysis of recordings is copied.
    """
    authority, now_s = open_authority(world), system_clock()
    federation = world.scenario.federation.name
    for speaker in world.speakers:
        randomness = device_randomness(world.scenario, speaker)
        folder = world.folder.device(speaker.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        vault = open_vault(folder, randomness)
        key = SigningKey(randomness.fork("identity").bytes(32))
        challenge = authority.challenge(randomness.fork("challenge"), now_s)
        certificate = authority.issue(
            PossessionProof.make(key, federation, challenge), now_s=now_s, life_s=CERTIFICATE_LIFE_S
        )
        consent = give(
            key, controller=federation, purposes=("training", "conversion", "plain_export"),
            given_s=now_s, expires_s=now_s + CONSENT_LIFE_S, jurisdiction="simulation",
        )  # fmt: skip
        vault.put("identity", key.secret_bytes())
        vault.put("certificate", codec.encode(certificate.to_plain()))
        vault.put("consent", codec.encode(consent.to_plain()))
        open_speaker(world, speaker).ledger.append(
            "consent", action="given", purposes=list(consent.purposes), consent=consent.sha256
        )
        if prepared_by is not None:
            for item in ANALYSIS:
                shutil.copyfile(prepared_by.device(speaker.name) / item, folder / item)
    registry = Registry(world.folder.adapters)
    if registry.latest() is None:
        registry.store(first_adapter(world.scenario), parent=None, round_id=None, survivors=0)
    open_ledger(world).append(
        "note", randomness=SimulatedRandomness.statement, seed=world.scenario.seed
    )


@dataclass(frozen=True, slots=True)
class OpenSpeaker:
    """A speaker's device, opened outside of a round.

    Attributes:
        speaker: whose.
        vault: keys, consent, profile.
        randomness: of everything that it draws.
        consent: of the speaker.
        key: identity.
        ledger: its own.
        now_s: Unix time.
    """

    speaker: Speaker
    vault: Vault
    randomness: SimulatedRandomness
    consent: ConsentRecord
    key: SigningKey
    ledger: LedgerFile
    now_s: int

    def permit(self, purpose: Purpose) -> Permit:
        """Return the permit for one use of this voice, noted in its ledger.

        Raises:
            ConsentRefused: its consent does not cover it.
        """
        return permit(
            self.consent,
            purpose,
            device=self.key.verify_key(),
            now_s=self.now_s,
            ledger=self.ledger,
        )


def open_speaker(world: World, speaker: Speaker) -> OpenSpeaker:
    """Return a speaker's enrolled device."""
    randomness = device_randomness(world.scenario, speaker)
    folder = world.folder.device(speaker.name)
    vault = open_vault(folder, randomness)
    key = SigningKey(vault.get("identity"))
    ledger = LedgerFile(
        folder / "ledger.jsonl",
        owner=key.verify_key().name,
        federation=world.scenario.federation.name,
    )
    consent = ConsentRecord.from_plain(codec.decode(vault.get("consent")))
    return OpenSpeaker(speaker, vault, randomness, consent, key, ledger, system_clock())


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


def load_profile(speaker: Speaker, vault: Vault) -> tuple[SpeakerProfile, float]:
    """Return a speaker's profile and gain by the enrolment set; kept in the vault once computed."""
    if vault.has("profile"):
        gain = float(np.frombuffer(vault.get("gain"), dtype="<f8")[0])
        return SpeakerProfile.from_bytes(vault.get("profile")), gain
    pieces = split_speaker(speaker).enrolment[:PROFILE_RECORDINGS]
    recordings = speaker.read_all(pieces, Skipped())
    gain = enrolment_gain(recordings)
    profile = profile_from([level_by(r, gain) for r in recordings], load_speaker_encoder())
    vault.put("gain", np.array([gain], dtype="<f8").tobytes())
    vault.put("profile", profile.to_bytes())
    return profile, gain


def load_material(speaker: Speaker, vault: Vault) -> TrainingMaterial:
    """Return what a speaker trains on: the enrolment set's profile, the training set's segments."""
    profile, _ = load_profile(speaker, vault)
    return TrainingMaterial(load_segments(speaker, vault, "training"), profile)


def load_segments(
    speaker: Speaker, vault: Vault, part: Literal["training", "held_out"]
) -> Segments:
    """Return the segments of a part of a speaker's recordings; kept in the vault once analysed."""
    if vault.has(part):
        return Segments.from_bytes(vault.get(part))
    _, gain = load_profile(speaker, vault)
    pieces = getattr(split_speaker(speaker), part)
    found = analyse(segments(speaker.read_all(pieces, Skipped()), gain=gain))
    vault.put(part, found.to_bytes())
    return found


def open_vault(folder: Path, randomness: SimulatedRandomness) -> Vault:
    """Return a simulated device's vault; its key follows from the seed, so it keeps no secret."""
    return Vault.with_key(folder, randomness.fork("vault key").bytes(32), randomness.fork("vault"))


def open_authority(world: World) -> Authority:
    """Return the simulated enrolment authority."""
    key = _authority_key(world.scenario)
    path = _made(world.folder.state) / "authority.json"
    return Authority(path, key, world.scenario.federation.name)


def open_ledger(world: World) -> LedgerFile:
    """Return the server's ledger."""
    return LedgerFile(
        world.folder.ledger, owner="server", federation=world.scenario.federation.name
    )


def spec_of(scenario: Scenario) -> adapters.SharedAdapterSpec:
    """Return the layout of a scenario's shared adapter."""
    return adapters.SharedAdapterSpec(rank=scenario.adapter.rank)


def first_adapter(scenario: Scenario) -> Adapter:
    """Return the shared adapter that changes nothing."""
    spec = spec_of(scenario)
    return Adapter(np.zeros(spec.size, dtype=np.float32), spec.digest)


@lru_cache(maxsize=1)
def shared_model(rank: int) -> VoiceModel:
    """Return this process's one copy of the base with a shared adapter attached."""
    model = load_base()
    adapters.attach_shared(model, adapters.SharedAdapterSpec(rank=rank))
    return model


def server_key(scenario: Scenario) -> SigningKey:
    """Return the simulated server's identity, which signs its ledger's checkpoints."""
    return SigningKey(SimulatedRandomness(scenario.seed, "server").fork("identity").bytes(32))


def _authority_key(scenario: Scenario) -> SigningKey:
    return SigningKey(SimulatedRandomness(scenario.seed, "authority").bytes(32))


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


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def budget_events(world: World, speaker: Speaker, unit: str) -> tuple[PrivacyEvent, ...]:
    """Return what a client's own budget has booked on a privacy unit."""
    folder = world.folder.device(speaker.name)
    path = folder / "budget.jsonl"
    if not path.exists():
        return ()
    federation = world.scenario.federation
    device = open_speaker(world, speaker)
    budget = DeviceBudget(
        path,
        segment=segment_limit(federation.segment_privacy),
        speaker=speaker_limit(federation.speaker_privacy),
        device_id=device.key.verify_key().name,
        federation=federation.name,
    )
    return budget.events(unit)
