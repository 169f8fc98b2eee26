"""What enrolment gives simulated devices and their server: keys, certificates, consents, vaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chorister.client.consent import give
from chorister.client.vault import Vault
from chorister.server.authority import Authority
from chorister.server.registry import Registry
from chorister.shared import codec
from chorister.shared.enrolment import PossessionProof
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.simulations.folder import RunFolder
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Speaker
from chorister.simulations.world import World

CERTIFICATE_LIFE_S = 365 * 86_400
CONSENT_LIFE_S = 365 * 86_400
ANALYSIS = ("profile", "gain", "training", "held_out")


def vaults(world: World) -> Iterator[tuple[Speaker, Vault]]:
    """Give every speaker with a vault, made if it is new."""
    for speaker in world.speakers:
        folder = world.folder.device(speaker.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield speaker, open_vault(folder, device_randomness(world.scenario, speaker))


def enrol_devices(world: World, prepared_by: RunFolder | None = None) -> None:
    """Give every speaker what enrolment gives a device: identity, certificate, consent, vault.

    Args:
        world: of the run.
        prepared_by: a run with the same speakers and seed, whose analysis of recordings is copied.
    """
    authority, now_s = open_authority(world), system_clock()
    federation = world.scenario.federation.name
    for speaker, vault in vaults(world):
        randomness = device_randomness(world.scenario, speaker)
        folder = world.folder.device(speaker.name)
        key = SigningKey(randomness.fork("identity").bytes(32))
        token = authority.token(SystemRandomness(), now_s)  # no result depends on it
        proof = PossessionProof.make(key, federation, token.challenge)
        certificate = authority.issue(proof, now_s=now_s, life_s=CERTIFICATE_LIFE_S)
        consent = give(
            key, controller=federation, purposes=("training", "conversion", "plain_export"),
            given_s=now_s, expires_s=now_s + CONSENT_LIFE_S, jurisdiction="simulation",
        )  # fmt: skip
        vault.put("identity", key.secret_bytes(), "key")
        vault.put("certificate", codec.encode(certificate.to_plain()), "certificate")
        vault.put("consent", codec.encode(consent.to_plain()), "consent")
        ledger = LedgerFile(
            folder / "ledger.jsonl", owner=certificate.device_id, federation=federation
        )
        ledger.append(
            "consent", action="given", purposes=list(consent.purposes), consent=consent.sha256
        )
        if prepared_by is not None:
            prepared = open_vault(prepared_by.device(speaker.name), randomness)
            for item in ANALYSIS:
                vault.put(item, prepared.get(item), "features")
    registry = Registry(world.folder.adapters)
    if registry.latest() is None:
        registry.store(first_adapter(world.scenario), parent=None, round_id=None, survivors=0)
    open_ledger(world).append(
        "note", randomness=SimulatedRandomness.statement, seed=world.scenario.seed
    )


def device_randomness(scenario: Scenario, speaker: Speaker) -> SimulatedRandomness:
    """Return the source of everything that a client draws: it follows from seed and speaker."""
    return SimulatedRandomness(scenario.seed, "device", speaker.name)


def open_vault(folder: Path, randomness: SimulatedRandomness) -> Vault:
    """Return a simulated device's vault; its key follows from the seed, so it keeps no secret."""
    return Vault.with_key(folder, randomness.fork("vault key").bytes(32), randomness.fork("vault"))


def open_authority(world: World) -> Authority:
    """Return the simulated enrolment authority."""
    key = authority_key(world.scenario)
    path = made(world.folder.state).resolve() / "authority.db"
    return Authority(f"sqlite:///{path}", key, world.scenario.federation.name)


def open_ledger(world: World) -> LedgerFile:
    """Return the server's ledger."""
    return LedgerFile(
        world.folder.ledger, owner="server", federation=world.scenario.federation.name
    )


def server_key(scenario: Scenario) -> SigningKey:
    """Return the simulated server's identity, which signs its ledger's checkpoints."""
    return SigningKey(SimulatedRandomness(scenario.seed, "server").fork("identity").bytes(32))


def authority_key(scenario: Scenario) -> SigningKey:
    """Return the simulated enrolment authority's key."""
    return SigningKey(SimulatedRandomness(scenario.seed, "authority").bytes(32))


def spec_of(scenario: Scenario) -> SharedAdapterSpec:
    """Return the layout of a scenario's shared adapter."""
    return SharedAdapterSpec(scenario.adapter.rank, scenario.adapter.placement)


def first_adapter(scenario: Scenario) -> Adapter:
    """Return the shared adapter that changes nothing."""
    spec = spec_of(scenario)
    return Adapter(np.zeros(spec.size, dtype=np.float32), spec.digest)


def made(folder: Path) -> Path:
    """Return a folder that is there now."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
