"""A choir in memory: tiny devices, a server's desk, and a network between them to break.

`conftest.py` loads this where a test asks for it: it imports torch and Opacus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from chorister.client import consent, contribute
from chorister.client.budget import DeviceBudget
from chorister.client.device import Device
from chorister.client.material import Segments
from chorister.client.rounds import RoundStore
from chorister.client.secagg_party import Acceptance
from chorister.client.train import TrainingMaterial
from chorister.server.budget import FederationBudget
from chorister.server.operator import Operator
from chorister.server.registry import Registry
from chorister.server.withdrawals import Withdrawals
from chorister.shared.errors import ChoristerError
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.settings import Federation, TrainingTask
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter, FeatureSequence, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.simulations.randomness import SimulatedRandomness

NOW_S = 1_800_000_000
SPEC = adapters.SharedAdapterSpec(rank=1)
SEGMENT_SAMPLES = 3200


def a_material(segments: int, seed: int = 0) -> TrainingMaterial:
    """Segments of 0.2 s: noise, with features that are as random and belong to nothing."""
    rng = np.random.default_rng(seed)
    recordings = tuple(
        Recording((0.1 * rng.standard_normal(SEGMENT_SAMPLES)).astype(np.float32), f"s{i}")
        for i in range(segments)
    )
    frames = SEGMENT_SAMPLES // 160
    features = tuple(
        FeatureSequence(
            rng.normal(-4.0, 1.0, (frames, 80)).astype(np.float32),
            rng.uniform(100.0, 200.0, frames).astype(np.float32),
        )
        for _ in recordings
    )
    return TrainingMaterial(Segments(recordings, features), _profile(rng))


def _profile(rng: np.random.Generator) -> SpeakerProfile:
    vector = rng.normal(size=256).astype(np.float32)
    mean, std = rng.normal(-4.0, 1.0, 80), rng.uniform(0.5, 2.0, 80)
    return SpeakerProfile(
        vector / np.linalg.norm(vector),
        mean.astype(np.float32),
        std.astype(np.float32),
        5.0,
        0.2,
        9.0,
        rng.normal(size=(30, 8)).astype(np.float32),
        rng.normal(-4.0, 1.0, (30, 80)).astype(np.float32),
    )


def a_trainable_model(model: VoiceModel) -> VoiceModel:
    """The model with directions that say something and a shared adapter attached."""
    generator = torch.Generator().manual_seed(5)
    model.decoder.directions.copy_(torch.randn(model.decoder.directions.shape, generator=generator))
    model.decoder.directions_mean.copy_(0.5 * torch.randn(24, generator=generator))
    adapters.attach_shared(model, SPEC)
    return model.requires_grad_(False).eval()


STEPS = {
    ADVERTISE: contribute.apply,
    SHARE: contribute.share,
    CONTRIBUTE: contribute.contribute,
    CONFIRM: contribute.confirm,
    REVEAL: contribute.reveal,
}
Tamper = Callable[[str, str, bytes], bytes | None]


def rounds_limit(most: int) -> Limit:
    """A limit that counts events: the accountants have tests of their own."""
    return Limit(float(most), 1e-3, lambda events: float(len(events)))


@dataclass
class Choir:
    """Devices in folders, a server's desk, and a network in memory between them.

    Attributes:
        root: where all files lie.
        model: that all devices train, one after the other.
        federation: what the operator decided.
        singers: how many devices there are.
        most_rounds: of the budgets.
        gone: exchange to devices that do not answer in it or later.
        down, up: what becomes of a message to or from a device; None loses it.
        heard: (exchange, device) to the request that reached it.
        errors: (exchange, device) to what it raised.
    """

    root: Path
    model: VoiceModel
    federation: Federation
    singers: int = 4
    most_rounds: int = 10
    gone: dict[str, set[str]] = field(default_factory=dict)
    down: Tamper = lambda exchange, device, message: message
    up: Tamper = lambda exchange, device, message: message
    heard: dict[tuple[str, str], bytes] = field(default_factory=dict)
    errors: dict[tuple[str, str], Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.randomness = SimulatedRandomness(11, "choir")
        self.authority = SigningKey.generate(self.randomness.fork("authority"))
        self.model_calls = 0
        self.devices = {d.device_id: d for d in map(self._device, range(self.singers))}
        self.names = sorted(self.devices)

    def _device(self, i: int) -> Device:
        randomness = self.randomness.fork(f"singer {i}")
        key = SigningKey.generate(randomness.fork("identity"))
        device_id = key.verify_key().name
        folder = self.root / f"singer-{i}"
        (folder / "rounds").mkdir(parents=True)
        name, private = self.federation.name, self.federation.private
        return Device(
            signing_key=key,
            certificate=Certificate.issue(
                self.authority, key.verify_key(), name, NOW_S + 86_400
            ),
            authority=self.authority.verify_key(),
            federation=name,
            acceptance=Acceptance(
                name, 2, 2, 0.0, 0.5,
                self.federation.speaker_privacy.noise_multiplier if private else 0.0,
                simulated=True,
            ),
            randomness=randomness,
            consent=consent.give(
                key, controller=name, purposes=("training",), given_s=NOW_S,
                expires_s=NOW_S + 3600, jurisdiction="EU",
            ),
            withdrawal=None,
            budget=DeviceBudget(
                folder / "budget.jsonl", segment=rounds_limit(self.most_rounds),
                speaker=rounds_limit(self.most_rounds), device_id=device_id, federation=name,
                clock=lambda: NOW_S,
            ),
            ledger=LedgerFile(
                folder / "ledger.jsonl", owner=device_id, federation=name, clock=lambda: NOW_S
            ),
            rounds=RoundStore(folder / "rounds", randomness.fork("round key").bytes(32)),
            spec=SPEC,
            load_material=lambda: a_material(5, i),
            load_model=self._load_model,
            now_s=lambda: NOW_S,
        )  # fmt: skip

    def _load_model(self) -> VoiceModel:
        self.model_calls += 1
        return self.model

    def change(self, device: str, **changes: object) -> None:
        """Give a device other owner's choices."""
        self.devices[device] = replace(self.devices[device], **changes)  # type: ignore[arg-type]

    @cached_property
    def operator(self) -> Operator:
        """The server's desk, with a first adapter that changes nothing."""
        folder = self.root / "server"
        folder.mkdir()
        registry = Registry(folder / "adapters")
        first = Adapter(np.zeros(SPEC.size, np.float32), SPEC.digest)
        registry.store(first, parent=None, round_id=None, survivors=0)
        name = self.federation.name
        ledger = LedgerFile(
            folder / "ledger.jsonl", owner="server", federation=name, clock=lambda: NOW_S
        )
        return Operator(
            settings=self.federation,
            run="run",
            signing_key=SigningKey.generate(self.randomness.fork("server key")),
            authority=self.authority.verify_key(),
            revoked=frozenset,
            withdrawals=Withdrawals(
                folder / "withdrawals.json", authority=self.authority.verify_key(),
                federation=name, ledger=ledger, registry=registry,
            ),
            registry=registry,
            budget=FederationBudget(
                folder / "budget.jsonl", speaker=rounds_limit(self.most_rounds), federation=name,
                clock=lambda: NOW_S,
            ),
            ledger=ledger,
            randomness=self.randomness.fork("server"),
            simulated=True,
            folder=folder,
            now_s=lambda: NOW_S,
            on_round=lambda record: None,
        )  # fmt: skip

    def discover(self) -> Mapping[str, Certificate]:
        return {name: self.devices[name].certificate for name in self.names}

    def exchange(
        self, exchange: str, round_id: str, requests: Mapping[str, bytes]
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        order = list(STEPS)
        lost = {d for e in order[: order.index(exchange) + 1] for d in self.gone.get(e, ())}
        answers, reasons = {}, {}
        for name, request in requests.items():
            message = None if name in lost else self.down(exchange, name, request)
            answer = None
            if message is not None:
                self.heard[exchange, name] = message
                try:
                    answer = STEPS[exchange](self.devices[name], round_id, message)
                except ChoristerError as error:
                    self.errors[exchange, name] = error
            if answer is not None:
                answer = self.up(exchange, name, answer)
            if answer is None:
                reasons[name] = "no answer"
            else:
                answers[name] = answer
        return answers, reasons


PLAIN = Federation(
    name="choir",
    private=False,
    training=TrainingTask(local_steps=1, expected_batch_size=3, learning_rate=0.1),
)
PRIVATE = PLAIN.model_copy(update={"private": True})
