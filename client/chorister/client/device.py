"""What the client app needs of the machine that it runs on, opened anew for every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from chorister.client.adapter_check import Effect
from chorister.client.budget import DeviceBudget
from chorister.client.consent import ConsentRecord
from chorister.client.rounds import RoundStore
from chorister.client.secagg_party import Acceptance
from chorister.client.train import TrainingMaterial
from chorister.shared import openers
from chorister.shared.enrolment import Withdrawal
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import Randomness
from chorister.shared.signing import Certificate, SigningKey, VerifyKey
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.model import VoiceModel

GROUP = "chorister.devices"
# Set on the device by whoever starts the app there; a server has no say in it.
ENVIRONMENT = "CHORISTER_DEVICE"


@dataclass(frozen=True, slots=True)
class Device:
    """One device, its owner's choices, and where its secrets come from.

    Attributes:
        signing_key: its identity.
        certificate: the enrolment authority's word for it.
        authority: the pinned key of that authority.
        federation: the federation that it joined.
        acceptance: the least cohort, noise and honesty that its owner accepts.
        randomness: of keys, masks, sampling and noise.
        consent: of its speaker; None if there is none.
        withdrawal: the end of that consent; None while it holds.
        budget: what its speaker's voice may cost.
        ledger: its own.
        rounds: sealed state of the round under way.
        spec: layout of the shared adapter that it trains.
        load_material: reads and prepares its recordings.
        load_model: the verified base with a shared adapter attached.
        now_s: its clock, Unix time.
        judge: what a shared adapter does to the speaker's held-out speech; None measures nothing,
            as in simulations, whose figures compare runs that train on.
        most_rounds: rounds that its owner agreed to, in all; None for no end but the budget's.
        most_refusals: a day, before it listens to no message any more; None for no end, as in
            simulations.
        in_time: whether somebody still waits for the answer to the message that is worked on.
    """

    signing_key: SigningKey
    certificate: Certificate
    authority: VerifyKey
    federation: str
    acceptance: Acceptance
    randomness: Randomness
    consent: ConsentRecord | None
    withdrawal: Withdrawal | None
    budget: DeviceBudget
    ledger: LedgerFile
    rounds: RoundStore
    spec: SharedAdapterSpec
    load_material: Callable[[], TrainingMaterial]
    load_model: Callable[[], VoiceModel]
    now_s: Callable[[], int]
    judge: Callable[[Adapter], Effect | None] | None = None
    most_rounds: int | None = None
    most_refusals: int | None = None
    in_time: Callable[[], bool] = lambda: True

    @property
    def device_id(self) -> str:
        """Its pseudonym."""
        return self.certificate.device_id


class OpenDevice(Protocol):
    """How a kind of device is opened."""

    def __call__(self, node_config: Mapping[str, object], exchange: str, round_id: str) -> Device:
        """Return the device behind a node.

        Args:
            node_config: what the node was started with on its own machine.
            exchange: the message type that it is opened for.
            round_id: the round, '' outside of one.
        """


def find_opener() -> OpenDevice:
    """Return how devices on this machine are opened.

    Raises:
        UsageError: the environment does not say, or names a kind that is not installed.
    """
    opener: OpenDevice = openers.find_opener(GROUP, ENVIRONMENT, "device")
    return opener
