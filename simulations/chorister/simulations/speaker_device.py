"""A simulated speaker's device outside of a round: its consent, its budget, its own ledger."""

from __future__ import annotations

from dataclasses import dataclass

from chorister.client.budget import DeviceBudget
from chorister.client.consent import ConsentRecord, Permit, Purpose, permit
from chorister.client.vault import Vault
from chorister.shared import codec
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.signing import SigningKey
from chorister.simulations.enrolment import device_randomness, open_vault
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.speakers import Speaker
from chorister.simulations.world import World


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
