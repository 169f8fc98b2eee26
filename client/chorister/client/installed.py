"""The device that is installed on this machine: its opener in the group `chorister.devices`.

Opened anew for every message, from the vault: what another process changed meanwhile (a narrowed
consent, a withdrawal, a move) holds from the next message on. The vault's key comes from the
process that `chorister join` unlocked it in, or, in another process, from the passphrase's file or
the keyring.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from chorister.client import compute
from chorister.client.adapter_check import Effect, effect_of
from chorister.client.adapter_file import keep_adapter
from chorister.client.agreement import Agreement, agreement, folder_of
from chorister.client.budget import DeviceBudget
from chorister.client.device import Device
from chorister.client.enrol import HELD_OUT, TRAINING
from chorister.client.home import (
    BUDGET_FILE,
    LEDGER_FILE,
    PASSPHRASE_FILE_VARIABLE,
    PROFILE,
    Home,
    default_folder,
    open_home,
    read_passphrase,
    reopen,
)
from chorister.client.material import Segments
from chorister.client.membership import membership, short
from chorister.client.outbox import refuse_if_withdrawn
from chorister.client.refusals import MOST_A_DAY
from chorister.client.rounds import MOST_ROUNDS_A_DAY, RoundStore
from chorister.client.train import TrainingMaterial
from chorister.client.vault_key import uses_keyring
from chorister.shared.errors import BadCorpus, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import Certificate
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.adapters import attach_shared
from chorister.shared.voice.base import load_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile

KIND = "installed"
# Of the node's configuration, which this machine writes.
FEDERATION = "federation"
ENDS_S = "ends-s"  # Unix time at which the server waits for no answer any more
ROUNDS = "rounds"
ADAPTERS = "adapters"
HARMFUL = "harmful-adapters"
_ROUND_KEY = "round-key-{}"


@dataclass(slots=True)
class _Process:
    """What this process was unlocked with; nothing in a process that was not."""

    home: Home | None = None
    wanted: compute.Wanted = "auto"

    def __repr__(self) -> str:
        return "_Process()"


_process = _Process()


def unlock(home: Home, wanted: compute.Wanted = "auto") -> None:
    """Open devices of this process from a home that its owner has opened.

    Args:
        home: opened with the passphrase, which is needed no more.
        wanted: what to compute on.
    """
    _process.home, _process.wanted = home, wanted


def forget() -> None:
    """Let go of the home that this process was unlocked with."""
    _process.home = None


def open_device(node_config: Mapping[str, object], exchange: str, round_id: str) -> Device:
    """Return this machine's device in the federation that the node's configuration names.

    Raises:
        Withdrawn: the speaker withdrew; with the notice for the server.
        ConsentRefused, VaultError: the vault is not to be used, or not opened.
        UsageError: this device is not a member, or agreed to nothing.
        BadSignature: the certificate has ended.
    """
    federation = str(node_config.get(FEDERATION, ""))
    folder = _process.home.folder if _process.home else default_folder()
    refuse_if_withdrawn(folder, federation)
    home = reopen(_process.home) if _process.home else _open_by_file(folder)
    agreed, certificate = require_member(home, federation)
    certificate.check(agreed.invite.authority, federation, home.now_s())
    ends_s = node_config.get(ENDS_S)
    in_time = partial(_in_time, ends_s) if isinstance(ends_s, float) else _always
    return replace(device_of(home, agreed, certificate), in_time=in_time)


def device_of(home: Home, agreed: Agreement, certificate: Certificate) -> Device:
    """Return a device as an agreement makes it.

    Args:
        home: opened.
        agreed: with the federation.
        certificate: of this device.
    """
    federation, device_id = agreed.federation, certificate.device_id
    own = folder_of(home.folder, federation)
    rounds = own / ROUNDS
    rounds.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec = agreed.invite.release.spec
    return Device(
        signing_key=home.key,
        certificate=certificate,
        authority=agreed.invite.authority,
        federation=federation,
        acceptance=agreed.acceptance(),
        randomness=SystemRandomness(),
        consent=home.consent,
        withdrawal=None,
        budget=open_budget(home, agreed, device_id),
        ledger=open_ledger(home, federation, device_id),
        rounds=RoundStore(rounds, _round_key(home, federation), MOST_ROUNDS_A_DAY, home.now_s),
        spec=spec,
        load_material=partial(load_material, home),
        load_model=partial(load_model, spec, _process.wanted),
        now_s=home.now_s,
        judge=partial(judge, home, federation, spec),
        most_rounds=agreed.invite.terms.rounds,
        most_refusals=MOST_A_DAY,
    )


def require_member(home: Home, federation: str) -> tuple[Agreement, Certificate]:
    """Return what this device agreed to, and its certificate.

    Raises:
        UsageError: either is missing.
    """
    agreed, member = agreement(home, federation), membership(home, federation)
    if agreed is None:
        raise UsageError(
            "A device joins by an invitation.", f"none to '{federation[:64]}' in this vault",
            "Run: chorister join --invite FILE",
        )  # fmt: skip
    if member is None or member.certificate is None:
        raise UsageError(
            "A member of a federation has the authority's certificate.",
            f"none for '{federation[:64]}' in this vault",
            "Send the request to the authority, then: chorister join --certificate FILE",
        )
    return agreed, member.certificate


def open_ledger(home: Home, federation: str, device_id: str) -> LedgerFile:
    """Return this device's ledger of one federation."""
    own = folder_of(home.folder, federation)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    return LedgerFile(own / LEDGER_FILE, owner=device_id, federation=federation, clock=home.now_s)


def open_budget(home: Home, agreed: Agreement, device_id: str) -> DeviceBudget:
    """Return this device's budget in one federation."""
    own = folder_of(home.folder, agreed.federation)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    return DeviceBudget(
        own / BUDGET_FILE, segment=agreed.segment_limit(), speaker=agreed.speaker_limit(),
        device_id=device_id, federation=agreed.federation, clock=home.now_s,
    )  # fmt: skip


def load_material(home: Home) -> TrainingMaterial:
    """Return what the vault has to train on: the enrolment's profile, the training segments.

    Raises:
        BadCorpus: no recordings were enrolled, or none of them gave a segment.
    """
    if not home.vault.has(TRAINING) or not home.vault.has(PROFILE):
        raise _nothing_enrolled()
    segments = Segments.from_bytes(home.vault.get(TRAINING))
    if not len(segments):
        raise _nothing_enrolled()
    return TrainingMaterial(segments, SpeakerProfile.from_bytes(home.vault.get(PROFILE)))


@lru_cache(maxsize=1)
def load_model(spec: SharedAdapterSpec, wanted: compute.Wanted) -> VoiceModel:
    """Return this process's one copy of the installed base, a shared adapter attached.

    Raises:
        BadWeights: the installed base is not the one that this version was made with.
    """
    model = load_base()
    attach_shared(model, spec)
    return compute.with_fallback(compute.best_device(wanted), model.to)


def judge(home: Home, federation: str, spec: SharedAdapterSpec, adapter: Adapter) -> Effect | None:
    """Return what an adapter does to this speaker's held-out speech, None where there is none.

    The newest that does no harm is kept beside the ledger, for `chorister personalise --adapter`.
    One that harms is written as well, to a place of its own: the server sees when an answer comes,
    and must not tell by a write that is left out.
    """
    if not home.vault.has(HELD_OUT):
        return None
    held_out = Segments.from_bytes(home.vault.get(HELD_OUT))
    if not len(held_out):
        return None
    profile = SpeakerProfile.from_bytes(home.vault.get(PROFILE))
    effect = effect_of(adapter, load_model(spec, _process.wanted), held_out, profile)
    kept = HARMFUL if effect.harmful else ADAPTERS
    keep_adapter(folder_of(home.folder, federation) / kept, adapter)
    return effect


def _in_time(ends_s: float) -> bool:
    return time.time() <= ends_s


def _always() -> bool:
    return True


def _open_by_file(folder: Path) -> Home:
    named = os.environ.get(PASSPHRASE_FILE_VARIABLE)
    passphrase = None if uses_keyring(folder) else read_passphrase(Path(named) if named else None)
    return open_home(folder, passphrase)


def _round_key(home: Home, federation: str) -> bytes:
    name = _ROUND_KEY.format(short(federation))
    if not home.vault.has(name):
        home.vault.put(name, SystemRandomness().bytes(32), "key")
    return home.vault.get(name)


def _nothing_enrolled() -> BadCorpus:
    return BadCorpus(
        "A device trains on the recordings that its speaker enrolled.",
        "no recordings in the vault, or none with enough speech",
        "Enrol some minutes of speech: chorister enrol.",
    )
