"""Devices as they are installed: vaults, invitations, certificates, and a server between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chorister.client import contribute, installed
from chorister.client.agreement import Agreement, OwnerLimits, agree
from chorister.client.consent import give
from chorister.client.enrol import HELD_OUT, TRAINING
from chorister.client.home import PROFILE, Home, create_home
from chorister.client.membership import accept_certificate
from chorister.server.budget import FederationBudget
from chorister.server.operator import Operator
from chorister.server.registry import Registry
from chorister.server.withdrawals import Withdrawals
from chorister.shared.errors import ChoristerError
from chorister.shared.invite import Invite, ModelRelease
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.privacy.limits import speaker_limit
from chorister.shared.randomness import SystemRandomness
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.settings import Federation, TrainingTask
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.base_digest import BASE_SHA256

NOW_S = 1_800_000_000
NAME = "choir"
SPEC = SharedAdapterSpec(1)
AUTHORITY = SigningKey(bytes(range(32)))
BUNDLE = "b" * 64
TERMS = Federation(
    name=NAME, rounds=3,
    training=TrainingTask(local_steps=1, expected_batch_size=3, learning_rate=0.1),
)  # fmt: skip
STEPS = {
    ADVERTISE: contribute.apply,
    SHARE: contribute.share,
    CONTRIBUTE: contribute.contribute,
    CONFIRM: contribute.confirm,
    REVEAL: contribute.reveal,
}


@dataclass
class Clock:
    """A clock that a test moves."""

    now_s: int = NOW_S

    def __call__(self) -> int:
        return self.now_s


def an_invite(authority: SigningKey = AUTHORITY, **changed: object) -> Invite:
    """An invitation to a server on this machine."""
    fields: dict[str, object] = {
        "federation": NAME, "authority": authority.verify_key(), "server": "127.0.0.1:9092",
        "root_certificate": "",
        "release": ModelRelease.sign(authority, NAME, BASE_SHA256, SPEC, NOW_S),
        "bundles": (BUNDLE,), "least_cohort": 2, "least_honest": 2, "terms": TERMS,
        "issued_s": NOW_S, "expires_s": NOW_S + 86_400, "token": None,
    }  # fmt: skip
    return Invite(**(fields | changed)).signed(authority)  # type: ignore[arg-type]


def a_home(
    folder: Path, materials: object, clock: Clock, *, seed: int = 0, purposes: tuple = ("training",)
) -> Home:
    """A vault with a consent and enrolled segments."""
    home = create_home(folder, "correct horse", clock=clock)
    if purposes:
        record = give(
            home.key, controller=NAME, purposes=purposes, given_s=clock(),
            expires_s=clock() + 2**25, jurisdiction="EU",
        )  # fmt: skip
        home = home.keep_consent(record, "given")
    material = materials(5, seed)  # type: ignore[operator]
    home.vault.put(PROFILE, material.profile.to_bytes(), "features")
    home.vault.put(TRAINING, material.segments.to_bytes(), "features")
    home.vault.put(HELD_OUT, materials(3, seed + 100).segments.to_bytes(), "features")  # type: ignore[operator]
    return home


def join(
    home: Home, invite: Invite, authority: SigningKey = AUTHORITY, limits: OwnerLimits | None = None
) -> Agreement:
    """Agree to an invitation, and get the certificate."""
    agreed = agree(home, invite, limits or OwnerLimits())
    accept_certificate(
        home, Certificate.issue(authority, home.device, invite.federation, home.now_s() + 2**25)
    )
    return agreed


@dataclass
class Members:
    """Installed devices and a server's desk, with a network in memory between them.

    Every exchange opens its device anew, as a message in a process of its own does.
    """

    root: Path
    homes: list[Home]
    clock: Clock
    spec: SharedAdapterSpec = SPEC
    gone: dict[str, set[str]] = field(default_factory=dict)
    heard: dict[tuple[str, str], bytes] = field(default_factory=dict)
    errors: dict[tuple[str, str], Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_name = {home.device.name: home for home in self.homes}
        self.names = sorted(self.by_name)
        self.operator = self._operator()

    def open(self, name: str, exchange: str = "", round_id: str = "") -> object:
        """The device as the opener of a real machine gives it."""
        installed.unlock(self.by_name[name])
        return installed.open_device({installed.FEDERATION: NAME}, exchange, round_id)

    def _operator(self) -> Operator:
        folder = self.root / "server"
        folder.mkdir(parents=True)
        registry = Registry(folder / "adapters")
        registry.store(
            Adapter(np.zeros(self.spec.size, np.float32), self.spec.digest),
            parent=None, round_id=None, survivors=0,
        )  # fmt: skip
        ledger = LedgerFile(
            folder / "ledger.jsonl", owner="server", federation=NAME, clock=self.clock
        )
        public = AUTHORITY.verify_key()
        return Operator(
            settings=TERMS, run="run", signing_key=SigningKey(bytes(32)), authority=public,
            revoked=frozenset,
            withdrawals=Withdrawals(
                folder / "withdrawals.json", authority=public, federation=NAME, ledger=ledger,
                registry=registry,
            ),
            registry=registry,
            budget=FederationBudget(
                folder / "budget.jsonl", speaker=speaker_limit(TERMS.speaker_privacy),
                federation=NAME, clock=self.clock,
            ),
            ledger=ledger, randomness=SystemRandomness(), simulated=False, folder=folder,
            now_s=self.clock, on_round=lambda record: None,
        )  # fmt: skip

    def discover(self) -> Mapping[str, Certificate]:
        return {name: self.open(name).certificate for name in self.names}  # type: ignore[attr-defined]

    def exchange(
        self, exchange: str, round_id: str, requests: Mapping[str, bytes]
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        order = list(STEPS)
        lost = {d for e in order[: order.index(exchange) + 1] for d in self.gone.get(e, ())}
        answers: dict[str, bytes] = {}
        reasons: dict[str, str] = {}
        for name, request in requests.items():
            self.heard[exchange, name] = request
            if name in lost:
                reasons[name] = "no answer"
                continue
            try:
                device = self.open(name, exchange, round_id)
                answers[name] = STEPS[exchange](device, round_id, request)  # type: ignore[arg-type]
            except ChoristerError as error:
                self.errors[exchange, name] = error
                reasons[name] = "refused"
        return answers, reasons
