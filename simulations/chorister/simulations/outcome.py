"""What a federation's adapters came to: losses by version, and the rounds as run.json has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chorister.client.train import train_shared_adapter
from chorister.server.registry import Registry
from chorister.server.rounds import RoundRecord
from chorister.shared.console import progress
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.types import Adapter
from chorister.shared.voice.model import VoiceModel
from chorister.simulations import enrolment, network, recordings, speaker_device
from chorister.simulations.measure import losses, paired_test
from chorister.simulations.speakers import Speaker
from chorister.simulations.world import World

NAMES = {
    ADVERTISE: "advertised",
    SHARE: "shared",
    CONTRIBUTE: "masked",
    CONFIRM: "confirmed",
    REVEAL: "revealed",
}
WANTED_RATIO = 0.3

Table = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Held-out loss of each speaker under each version of the shared adapter.

    Attributes:
        versions: oldest first.
        held_out: speaker to losses, one a version.
        clients: the same for clients.
    """

    versions: tuple[Adapter, ...]
    held_out: Table
    clients: Table

    def evaluation(self) -> dict[str, Any]:
        """Return the part of run.json."""
        return evaluation_of(_ends(self.held_out), _ends(self.clients))

    def mean(self, version: int) -> dict[str, float | None]:
        """Return mean losses under one version."""
        return {
            "speakers": _mean([values[version] for values in self.held_out.values()]),
            "clients": _mean([values[version] for values in self.clients.values()]),
        }


def measure_versions(world: World, title: str) -> Measured:
    """Measure every version that the rounds made, on all speakers' held-out recordings."""
    registry = Registry(world.folder.adapters)
    versions = tuple(registry.get(v.sha256) for v in registry.versions())
    model = network.shared_model(enrolment.spec_of(world.scenario))

    def measure(device: speaker_device.OpenSpeaker) -> list[float]:
        return _losses(model, versions, device)

    return Measured(versions, *_each_speaker(world, title, measure))


def measure_alone(world: World, title: str) -> dict[str, Any]:
    """Return the evaluation of each speaker's device training on its own, without privacy.

    Every speaker, held out or not, trains as many steps on its own training set as a client of the
    federation does in all rounds.
    """
    spec = enrolment.spec_of(world.scenario)
    model, first = network.shared_model(spec), enrolment.first_adapter(world.scenario)

    def measure(device: speaker_device.OpenSpeaker) -> list[float]:
        return _losses(model, (first, _train_alone(world, device)), device)

    held_out, clients = _each_speaker(world, title, measure)
    return evaluation_of(_ends(held_out), _ends(clients))


def _each_speaker(
    world: World, title: str, measure: Callable[[speaker_device.OpenSpeaker], list[float]]
) -> tuple[Table, Table]:
    """Return what is measured on each held-out speaker and on each client, by name."""
    with progress(title, len(world.speakers)) as step:

        def table(speakers: Sequence[Speaker]) -> Table:
            found: Table = {}
            for speaker in speakers:
                found[speaker.name] = measure(speaker_device.open_speaker(world, speaker))
                step()
            return found

        return table(world.held_out), table(world.clients)


def _losses(
    model: VoiceModel, versions: Sequence[Adapter], device: speaker_device.OpenSpeaker
) -> list[float]:
    profile, _ = recordings.load_profile(device.speaker, device.vault)
    segments = recordings.load_segments(device.speaker, device.vault, "held_out")
    return losses(model, versions, segments, profile)


def _train_alone(world: World, device: speaker_device.OpenSpeaker) -> Adapter:
    federation, spec = world.scenario.federation, enrolment.spec_of(world.scenario)
    adapter = enrolment.first_adapter(world.scenario)
    material = recordings.load_material(device.speaker, device.vault)
    for number in range(1, federation.rounds + 1):
        delta = train_shared_adapter(
            network.shared_model(spec), spec, adapter, material, federation.training, None,
            device.permit("training"), device.now_s,
            device.randomness.fork(f"alone {number}"),
        )  # fmt: skip
        adapter = Adapter(adapter.values + delta.values, adapter.spec)
    return adapter


def evaluation_of(
    held_out: dict[str, tuple[float, float]], clients: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """Return the part of run.json that compares losses before and after, speaker by speaker."""

    def rows(table: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
        return [
            {"speaker": name, "loss_before": before, "loss_after": after}
            for name, (before, after) in table.items()
        ]

    def test(table: dict[str, tuple[float, float]]) -> dict[str, Any] | None:
        found = paired_test([b for b, _ in table.values()], [a for _, a in table.values()])
        return None if found is None else found.to_json()

    return {
        "speakers": rows(held_out),
        "clients": rows(clients),
        "paired_test": test(held_out),
        "paired_test_clients": test(clients),
    }


def rounds_json(records: Sequence[RoundRecord], measured: Measured) -> list[dict[str, Any]]:
    """Return the rounds as run.json has them."""
    found = []
    version = 0
    for record in records:
        version += record.status == "finished"
        counts = {name: record.answered.get(exchange, 0) for exchange, name in NAMES.items()}
        found.append(
            {
                "round": record.round,
                "status": record.status,
                "reason": record.reason,
                "cohort": record.cohort,
                **counts,
                "survivors": record.survivors,
                "drop_outs": {NAMES[e]: n for e, n in record.drop_outs.items() if n},
                "adapter_sha256": record.adapter_sha256 if record.status == "finished" else None,
                "clip_norm": record.clip_norm,
                "noise_multiplier": record.noise_multiplier,
                "noise_to_signal": noise_to_signal(record, len(measured.versions[0].values)),
                "held_out_loss": measured.mean(version),
                "epsilon_speaker": record.epsilon_speaker,
                "bytes_up": record.bytes_up / max(record.cohort, 1),
                "bytes_down": record.bytes_down / max(record.cohort, 1),
                "seconds": record.seconds,
            }
        )
    return found


def noise_to_signal(record: RoundRecord, d: int) -> float | None:
    """Return noise_multiplier x sqrt(d) / survivors: noise over signal in the mean, at the clip.

    It holds where every delta reaches the clip and all point the same way; otherwise it is worse.
    """
    if record.noise_multiplier is None or record.survivors == 0:
        return None
    return record.noise_multiplier * math.sqrt(d) / record.survivors


def cohort_advice(records: Sequence[RoundRecord], d: int) -> dict[str, Any] | None:
    """Return what cohort would make the noise small beside the signal, if this one does not."""
    ratios = [(noise_to_signal(record, d), record) for record in records]
    known = [(ratio, record) for ratio, record in ratios if ratio is not None]
    if not known or known[-1][0] <= 1:
        return None
    ratio, record = known[-1]
    # The noise in the sum grows with the share of survivors over min_honest, which stays.
    cohort = math.ceil(record.cohort * ratio / WANTED_RATIO)
    return {"noise_to_signal": ratio, "target": WANTED_RATIO, "cohort_for_target": cohort}


def _ends(table: Table) -> dict[str, tuple[float, float]]:
    return {name: (values[0], values[-1]) for name, values in table.items()}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
