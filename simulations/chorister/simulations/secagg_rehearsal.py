"""The secure aggregation protocol by itself: real parties, a real coordinator, a network to break.

No Flower and no training: deltas are given, messages are bytes, and every device continues from the
state that it stored, as it would in a process of its own. Tests, benchmarks and `chorister secagg`
run it; what a hostile network or server does is a `Network`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chorister.client.secagg_checks import Acceptance
from chorister.client.secagg_party import Party
from chorister.server.secagg_coordinator import Coordinator
from chorister.shared.errors import ChoristerError
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.messages import (
    Inbox,
    Roster,
    Survivors,
    UnmaskRequest,
)
from chorister.shared.secagg.planning import plan_cohort, plan_terms
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Aggregate, NoisedDelta
from chorister.simulations.randomness import SimulatedRandomness

FEDERATION = "rehearsal"
STAGES = ("advertise", "share", "mask", "confirm", "reveal")
NOW_S = 1_700_000_000
T = TypeVar("T")


class Network:
    """An honest network on which devices drop out.

    Args:
        drops: stage to the devices that do not answer in it, nor later.
    """

    def __init__(self, drops: Mapping[str, set[str]] | None = None) -> None:
        self._drops = drops or {}

    def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
        """Return what reaches a device, None for nothing."""
        past = STAGES[: STAGES.index(stage) + 1]
        return None if any(peer in self._drops.get(s, ()) for s in past) else message

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        """Return what reaches the server, None for nothing."""
        return message


@dataclass(slots=True)
class Device:
    """One rehearsing device.

    Attributes:
        identity: its signing key.
        certificate: the rehearsal authority's word for it.
        randomness: of its secrets.
        state: what it stored after its last step.
        error: why the round ended on it; None while it goes on.
    """

    identity: SigningKey
    certificate: Certificate
    randomness: Randomness
    state: bytes = b""
    error: ChoristerError | None = None


@dataclass(slots=True)
class Figures:
    """What a rehearsal cost.

    Attributes:
        device_s: stage to processor seconds of all devices together.
        server_s: stage to processor seconds.
        up_bytes: device to bytes sent.
        down_bytes: device to bytes received.
    """

    device_s: dict[str, float] = field(default_factory=dict)
    server_s: dict[str, float] = field(default_factory=dict)
    up_bytes: dict[str, int] = field(default_factory=dict)
    down_bytes: dict[str, int] = field(default_factory=dict)


class Rehearsal:
    """One round for named devices.

    Args:
        terms: of the round; its cohort is the number of devices.
        seed: of everything random.
        acceptance: what devices accept; by default whatever the terms say.
    """

    def __init__(self, terms: RoundTerms, seed: int, acceptance: Acceptance | None = None) -> None:
        self.terms = terms
        self.randomness = SimulatedRandomness(seed, "rehearsal")
        self.authority = SigningKey.generate(self.randomness.fork("authority"))
        self.acceptance = acceptance or Acceptance(FEDERATION, 2, 2, 0.0, 0.5, 0.0, simulated=True)
        self.devices = {f"device-{i:04}": self.enrol(f"device-{i:04}") for i in range(terms.cohort)}
        self.coordinator = Coordinator(
            terms, self.authority.verify_key(), NOW_S, self.randomness.fork("server")
        )
        self.figures = Figures()

    def enrol(self, name: str) -> Device:
        """Return a new device, certified by the rehearsal's authority."""
        randomness = self.randomness.fork(name)
        identity = SigningKey.generate(randomness.fork("identity"))
        certificate = Certificate.issue(
            self.authority, identity.verify_key(), FEDERATION, NOW_S + 3600
        )
        return Device(identity, certificate, randomness)

    def run(
        self, deltas: Mapping[str, NDArray[np.int64]], network: Network | None = None
    ) -> Aggregate:
        """Return the sum over the survivors.

        Args:
            deltas: device to its quantised and noised values, shape (d,).
            network: between devices and server.

        Raises:
            RoundAborted: as the coordinator says.
        """
        net, server = network or Network(), self.coordinator
        bits, authority = self.terms.modulus_bits, self.authority.verify_key()

        def begin(device: Device, message: bytes) -> tuple[Party, bytes]:
            party, advertisement = Party.begin(
                device.identity, device.certificate, authority, RoundTerms.from_bytes(message),
                self.acceptance, device.randomness.fork("keys"), NOW_S,
            )  # fmt: skip
            return party, advertisement.to_bytes()

        def share(device: Device, message: bytes) -> tuple[Party, bytes]:
            party = Party.from_state(device.state)
            bundle = party.share(
                Roster.from_bytes(message), device.identity, authority, self.acceptance,
                device.randomness.fork("shares"), NOW_S,
            )  # fmt: skip
            return party, bundle.to_bytes()

        def confirm(device: Device, message: bytes) -> tuple[Party, bytes]:
            party = Party.from_state(device.state)
            return party, party.confirm(Survivors.from_bytes(message), device.identity).to_bytes()

        def reveal(device: Device, message: bytes) -> tuple[Party, bytes]:
            party = Party.from_state(device.state)
            return party, party.reveal(
                UnmaskRequest.from_bytes(message), device.identity
            ).to_bytes()

        terms = self.terms.to_bytes()
        replies = self._exchange("advertise", dict.fromkeys(self.devices, terms), net, begin)
        rosters = self._serve("advertise", server.advertised, replies)
        replies = self._exchange("share", _encode(rosters), net, share)
        inboxes = self._serve("share", server.shared, replies)
        replies = {}
        for name, message in _encode(inboxes).items():

            def mask(device: Device, message: bytes, name: str = name) -> tuple[Party, bytes]:
                party = Party.from_state(device.state)
                delta = NoisedDelta(deltas[name], bits)
                masked = party.mask(Inbox.from_bytes(message), delta, device.identity)
                return party, masked.to_bytes()

            replies |= self._exchange("mask", {name: message}, net, mask)
        survivors = self._serve("mask", server.masked, replies)
        replies = self._exchange("confirm", _encode(survivors), net, confirm)
        requests = self._serve("confirm", server.confirmed, replies)
        replies = self._exchange("reveal", _encode(requests), net, reveal)
        return self._serve("reveal", server.revealed, replies)

    def name_of(self, device_id: str) -> str:
        """Return the rehearsal's name of a pseudonym."""
        return next(n for n, d in self.devices.items() if d.certificate.device_id == device_id)

    def _exchange(
        self,
        stage: str,
        messages: Mapping[str, bytes],
        network: Network,
        step: Callable[[Device, bytes], tuple[Party, bytes]],
    ) -> dict[str, bytes]:
        replies = {}
        for name, message in messages.items():
            device, arrived = self.devices[name], network.down(stage, name, message)
            if arrived is None or device.error is not None:
                continue
            self.figures.down_bytes[name] = self.figures.down_bytes.get(name, 0) + len(arrived)
            started = time.thread_time()
            try:
                party, reply = step(device, arrived)
                device.state = party.to_state()
            except ChoristerError as error:
                # As in the app: a violation ends the round on this device.
                device.error = error
                continue
            finally:
                spent = time.thread_time() - started
                self.figures.device_s[stage] = self.figures.device_s.get(stage, 0.0) + spent
            self.figures.up_bytes[name] = self.figures.up_bytes.get(name, 0) + len(reply)
            sent = network.up(stage, name, reply)
            if sent is not None:
                replies[name] = sent
        return replies

    def _serve(
        self, stage: str, step: Callable[[Mapping[str, bytes]], T], replies: dict[str, bytes]
    ) -> T:
        started = time.thread_time()
        try:
            return step(replies)
        finally:
            self.figures.server_s[stage] = time.thread_time() - started


def rehearsal_terms(
    cohort: int,
    dimension: int,
    *,
    gamma: float = 0.0,
    dropout: float = 0.1,
    modulus_bits: int = 32,
    noise_multiplier: float = 1.0,
    round_number: int = 0,
    bit_share: float = 0.0,
    rotation: bool = False,
) -> RoundTerms:
    """Return planned terms with a clip norm of 1 and no adapter behind them."""
    return plan_terms(
        plan_cohort(cohort, gamma, dropout), federation=FEDERATION, run="rehearsal",
        round_number=round_number, dimension=dimension, modulus_bits=modulus_bits, clip_norm=1.0,
        noise_multiplier=noise_multiplier, adapter="0" * 64, simulated=True, bit_share=bit_share,
        rotation=rotation,
    )  # fmt: skip


def uniform_deltas(terms: RoundTerms, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return integers within the norm bound for every device, shape (terms.length,) each."""
    generator = np.random.default_rng(seed)
    largest = int(terms.sensitivity / np.sqrt(terms.length)) + 1
    return {
        f"device-{i:04}": generator.integers(-largest, largest, terms.length)
        for i in range(terms.cohort)
    }


def exact_sum(
    deltas: Mapping[str, NDArray[np.int64]], names: Mapping[str, str] | list[str]
) -> NDArray[np.int64]:
    """Return the plain sum of some devices' values, to compare with."""
    total: NDArray[np.int64] = np.sum([deltas[name] for name in names], axis=0)
    return total


def _encode(messages: Mapping[str, Roster | Inbox | Survivors | UnmaskRequest]) -> dict[str, bytes]:
    # One roster goes to everybody: encode each message object once.
    encoded = {
        id(message): message.to_bytes()
        for message in {id(m): m for m in messages.values()}.values()
    }
    return {name: encoded[id(message)] for name, message in messages.items()}
