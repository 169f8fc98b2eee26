"""The upload, top to bottom: what one device does in the five exchanges of a round.

    1 apply       terms acceptable? consent? budget left?  ->  public keys, consent token
    2 share       the cohort's keys                        ->  encrypted shares of round secrets
    3 contribute  recordings -> delta -> clipped -> quantised -> noised -> masked
    4 confirm     who is in the sum                        ->  a signature, if the set is acceptable
    5 reveal      everybody's signatures                   ->  shares that unmask this sum only

Each function takes the bytes that the server sent and returns the bytes that leave the device.
`contribute` is the whole walk of a voice into the sum; only its last type has a wire form.
"""

from __future__ import annotations

import numpy as np

from chorister.client.consent import Permit, consent_token, permit
from chorister.client.device import Device
from chorister.client.privatise import add_noise, clip, quantise
from chorister.client.secagg_party import Party
from chorister.client.train import planned_event, train_shared_adapter
from chorister.shared import codec
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BudgetExhausted, ProtocolViolation, RoundAborted
from chorister.shared.exchanges import (
    Application,
    Assignment,
    Introduction,
    Invitation,
    RoundTask,
)
from chorister.shared.privacy.charges import speaker_event
from chorister.shared.privacy.speaker_level import check_population
from chorister.shared.randomness import Randomness
from chorister.shared.secagg.messages import Inbox, Roster, Survivors, UnmaskRequest
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import Adapter, AdapterDelta


def introduce(device: Device, round_id: str, request: bytes) -> bytes:
    """Before the first round: say who this device is, and show that it holds the key."""
    return Introduction.make(device.signing_key, device.certificate, request).to_bytes()


def apply(device: Device, round_id: str, request: bytes) -> bytes:
    """Exchange 1: answer an invitation, or refuse before anything is trained.

    Raises:
        ConsentRefused: the speaker's consent does not cover training.
        BudgetExhausted: what is left does not cover a round of these terms.
        ProtocolViolation: the terms are below what this device accepts, or of another round.
        BadSettings: the owner's delta is too large for a cohort of this size.
    """
    invitation = Invitation.from_bytes(request)
    terms = RoundTerms.from_bytes(invitation.terms)
    if terms.round_id != round_id:
        raise ProtocolViolation(
            f"An invitation to round '{round_id}' holds the terms of that round.",
            f"terms of '{terms.round_id}'",
            "The server must send the terms of the round that it runs.",
        )
    permission = _permit(device)
    _check_task(device, invitation.task)
    _check_budget(device, terms)
    randomness = _randomness(device, round_id)
    party, advertisement = Party.begin(
        device.signing_key, device.certificate, device.authority, terms, device.acceptance,
        randomness.fork("keys"), device.now_s(),
    )  # fmt: skip
    token = consent_token(
        device.signing_key, permission, federation=device.federation, round_id=round_id,
        terms_sha256=terms.sha256().hex(), now_s=device.now_s(),
    )  # fmt: skip
    device.rounds.begin(round_id, _state(party, invitation.task), randomness.fork("seal 1"))
    device.ledger.append(
        "round", round=round_id, action="applied", terms=token.terms_sha256,
        consent=token.consent_sha256, expires_s=token.expires_s, signature=token.signature.hex(),
        witness=invitation.witness.to_plain(),
    )  # fmt: skip
    return Application(advertisement.to_bytes(), codec.encode(token.to_plain())).to_bytes()


def share(device: Device, round_id: str, request: bytes) -> bytes:
    """Exchange 2: check everybody's keys and share this round's secrets among the neighbours.

    Raises:
        ProtocolViolation, BadMessage, RoundAborted: the roster is not acceptable.
    """
    party, task = _resume(device, round_id, after="advertise")
    randomness = _randomness(device, round_id)
    bundle = party.share(
        Roster.from_bytes(request), device.signing_key, device.authority, device.acceptance,
        randomness.fork("shares"), device.now_s(),
    )  # fmt: skip
    device.rounds.keep(round_id, "share", _state(party, task), randomness.fork("seal 2"))
    return bundle.to_bytes()


def contribute(device: Device, round_id: str, request: bytes) -> bytes:
    """Exchange 3: the walk from recordings to a masked delta.

    Raises:
        ConsentRefused: the consent ended since the round began.
        BudgetExhausted: what is left does not cover this round.
        ProtocolViolation: the adapter is not the one that the signed terms name, or out of bounds.
        RoundAborted: it took so long that nobody waits for it any more; nothing is charged.
    """
    assignment = Assignment.from_bytes(request)
    party, task = _resume(device, round_id, after="share")
    terms, adapter, randomness = party.terms, assignment.adapter, _randomness(device, round_id)
    if adapter_digest(adapter) != terms.adapter:
        raise ProtocolViolation(
            f"Training starts from the adapter that the terms name, {terms.adapter[:12]}.",
            f"adapter {adapter_digest(adapter)[:12]}", "The server must send the one it announced.",
        )  # fmt: skip
    device.acceptance.check_adapter(adapter)
    permission = _permit(device)
    material = device.load_material()
    segment = planned_event(task.training, task.segment_privacy, len(material.segments))
    speaker = speaker_event(terms)
    noisy = segment is not None or speaker is not None
    if noisy:
        device.budget.reserve(round_id, segment=segment, speaker=speaker)
    try:
        delta = train_shared_adapter(
            device.load_model(), device.spec, adapter, material, task.training,
            task.segment_privacy, permission, device.now_s(), randomness.fork("training"),
        )  # fmt: skip
        clipped = clip(_unless_harmful(device, round_id, adapter, delta), terms.clip_norm)
        quantised = quantise(clipped, terms, party.rotation_seed, randomness.fork("rounding"))
        noised = add_noise(quantised, terms, randomness.fork("noise"))
        masked = party.mask(Inbox.from_bytes(assignment.inbox), noised, device.signing_key)
        _check_in_time(device)
        device.rounds.keep(round_id, "contribute", _state(party, task), randomness.fork("seal 3"))
    except BaseException:
        device.budget.release(round_id)  # nothing has left the device
        raise
    if noisy:
        device.budget.spend(round_id)
    device.ledger.append(
        "round", round=round_id, action="contributed", adapter=terms.adapter,
        terms=terms.sha256().hex(), masked=masked.digest().hex(), simulated=terms.simulated,
        segments=len(material.segments), randomness=device.randomness.statement,
        charges={
            unit: event.to_plain()
            for unit, event in (("segment", segment), ("speaker", speaker))
            if event is not None
        },
    )  # fmt: skip
    return masked.to_bytes()


def confirm(device: Device, round_id: str, request: bytes) -> bytes:
    """Exchange 4: sign the set of survivors, if this device can stand for it.

    Raises:
        ProtocolViolation: the set is too small or is not what this device masked for.
    """
    party, task = _resume(device, round_id, after="contribute")
    vote = party.confirm(Survivors.from_bytes(request), device.signing_key)
    seal = _randomness(device, round_id).fork("seal 4")
    device.rounds.keep(round_id, "confirm", _state(party, task), seal)
    return vote.to_bytes()


def reveal(device: Device, round_id: str, request: bytes) -> bytes:
    """Exchange 5: give the shares that unmask the sum, once and for one set of survivors.

    Raises:
        ProtocolViolation: too few devices signed the set that this one signed, or a second request.
    """
    party, _ = _resume(device, round_id, after="confirm")
    shares = party.reveal(UnmaskRequest.from_bytes(request), device.signing_key)
    device.rounds.end(round_id)  # on disk before it is sent
    device.budget.finish(round_id)
    device.ledger.append("round", round=round_id, action="revealed")
    device.ledger.checkpoint(device.signing_key)
    return shares.to_bytes()


def _check_in_time(device: Device) -> None:
    """Return unless the machine slept, or trained, past the stage's end: it would be charged."""
    if not device.in_time():
        raise RoundAborted(
            "A delta is charged and sent while the server waits for it.", "a stage that is over",
            "Nothing was sent, and what was reserved is given back.",
        )  # fmt: skip


def _unless_harmful(
    device: Device, round_id: str, adapter: Adapter, delta: AdapterDelta
) -> AdapterDelta:
    """Return the delta, or zeros where the adapter makes this speaker's speech much worse.

    After training, and without a word to the server: neither the time that an answer takes nor what
    is visible of it says which of the two it is. Why, is in `adapter_check`.
    """
    effect = device.judge(adapter) if device.judge is not None else None
    if effect is None:
        return delta
    # One entry either way: the disk takes as long for one as for the other.
    device.ledger.append(
        "refusal" if effect.harmful else "note", exchange="train.contribute", round=round_id,
        found=str(effect), rule="an adapter that makes the speaker's own speech much worse "
        "is not trained from: the delta is zeros then",
    )  # fmt: skip
    return AdapterDelta(np.zeros_like(delta.values)) if effect.harmful else delta


def _permit(device: Device) -> Permit:
    return permit(
        device.consent, "training", device=device.signing_key.verify_key(), now_s=device.now_s(),
        ledger=device.ledger, withdrawal=device.withdrawal,
    )  # fmt: skip


def _check_task(device: Device, task: RoundTask) -> None:
    if task.segment_privacy is None and device.acceptance.least_noise_multiplier > 0:
        raise ProtocolViolation(
            "This device trains with DP-SGD only.", "a task without it",
            "Ask the operator for a private run.",
        )  # fmt: skip
    privacy, least = task.segment_privacy, device.acceptance.least_segment_noise
    if privacy is not None and privacy.noise_multiplier < least:
        raise ProtocolViolation(
            f"This device trains with a segment noise multiplier of {least:g} or more.",
            f"{privacy.noise_multiplier:g}", "Ask the operator for the noise that was agreed.",
        )  # fmt: skip


def _check_budget(device: Device, terms: RoundTerms) -> None:
    event = speaker_event(terms)
    if event is not None:
        done = len(device.budget.events("speaker"))
        if device.most_rounds is not None and done >= device.most_rounds:
            raise BudgetExhausted(
                f"This device's owner agreed to {device.most_rounds} rounds.", f"{done} done",
                "Ask the authority for an invitation to more of them.",
            )  # fmt: skip
        check_population(device.budget.delta_speaker, terms.cohort)
        device.budget.check_speaker(event)


def _randomness(device: Device, round_id: str) -> Randomness:
    return device.randomness.fork(f"round {round_id}")


def _state(party: Party, task: RoundTask) -> bytes:
    return codec.encode({"party": party.to_state(), "task": task.model_dump(mode="json")})


def _resume(device: Device, round_id: str, after: str) -> tuple[Party, RoundTask]:
    plain = codec.decode(device.rounds.take(round_id, after))
    return Party.from_state(plain["party"]), RoundTask.parse(plain["task"], "the round's task")
