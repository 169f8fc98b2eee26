"""The server against lying devices: a liar is a drop-out with a reason, or is named on abort."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from chorister.server.secagg_coordinator import Coordinator
from chorister.shared.errors import ProtocolViolation, RoundAborted
from chorister.shared.secagg.keys import AgreementKey, commit_share
from chorister.shared.secagg.messages import (
    Advertisement,
    MaskedInput,
    Reveal,
    ShareBundle,
    SurvivorVote,
)
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.thresholds import derive
from chorister.shared.types import Aggregate, MaskedDelta
from chorister.simulations.secagg_rehearsal import (
    NOW_S,
    STAGES,
    Device,
    Network,
    Rehearsal,
    exact_sum,
    rehearsal_terms,
    uniform_deltas,
)

TERMS = rehearsal_terms(6, 4, gamma=0.2)
LIAR = "device-0002"
Forge = Callable[[Rehearsal, bytes], bytes | None]


class Liar(Network):
    """One device's answer in one stage is replaced."""

    def __init__(self, rehearsal: Rehearsal, stage: str, forge: Forge) -> None:
        super().__init__()
        self.rehearsal, self.stage, self.forge = rehearsal, stage, forge

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        if (stage, peer) == (self.stage, LIAR):
            return self.forge(self.rehearsal, message)
        return message


def _run(stage: str, forge: Forge, terms=TERMS) -> tuple[Rehearsal, Aggregate]:  # type: ignore[no-untyped-def]
    rehearsal = Rehearsal(terms, 5)
    deltas = uniform_deltas(terms, 5)
    aggregate = rehearsal.run(deltas, Liar(rehearsal, stage, forge))
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))
    return rehearsal, aggregate


def _liar(rehearsal: Rehearsal) -> Device:
    return rehearsal.devices[LIAR]


GARBAGE: list[Forge] = [
    lambda _, m: b"",
    lambda _, m: m[:-1],
    lambda _, m: m + b"\x00",
    lambda _, m: b"\x9b" + b"\x7f" + b"\xff" * 7,  # an array of 2**63 items
    lambda _, m: b"\x5a\x80\x00\x00\x00",  # a string of 2**31 bytes
    lambda _, m: bytes([m[0]]) * 60_000,
    lambda _, m: m[:-1] + bytes([m[-1] ^ 1]),  # a flipped bit in the signature
]


@pytest.mark.parametrize("stage", STAGES[:4])
@pytest.mark.parametrize("forge", GARBAGE)
def test_garbage_is_that_devices_drop_out(stage: str, forge: Forge) -> None:
    rehearsal, aggregate = _run(stage, forge)
    refused = rehearsal.coordinator.refused
    assert [r.peer for r in refused] == [LIAR]
    assert refused[0].reason
    if stage != "confirm":
        assert _liar(rehearsal).certificate.device_id not in aggregate.survivors


@pytest.mark.parametrize("forge", GARBAGE)
def test_garbage_in_the_last_stage_costs_its_shares_only(forge: Forge) -> None:
    rehearsal, aggregate = _run("reveal", forge)
    assert len(aggregate.survivors) == 6
    assert [r.peer for r in rehearsal.coordinator.refused] == [LIAR]


def test_anothers_identity_is_refused() -> None:
    def steal(rehearsal: Rehearsal, message: bytes) -> bytes:
        own = Advertisement.from_bytes(message)
        victim = rehearsal.devices["device-0004"]
        return (
            replace(own, certificate=victim.certificate)
            .signed(_liar(rehearsal).identity)
            .to_bytes()
        )

    rehearsal, aggregate = _run("advertise", steal)
    assert rehearsal.devices["device-0004"].certificate.device_id in aggregate.survivors
    assert len(aggregate.survivors) == 5


def test_a_copied_advertisement_counts_once() -> None:
    kept: dict[str, bytes] = {}

    class Copy(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            kept.setdefault(stage + peer, message)
            return kept[stage + "device-0000"] if (stage, peer) == ("advertise", LIAR) else message

    rehearsal = Rehearsal(TERMS, 5)
    aggregate = rehearsal.run(uniform_deltas(TERMS, 5), Copy())
    assert len(aggregate.survivors) == 5
    assert "twice" in rehearsal.coordinator.refused[0].reason


def test_keys_of_low_order_are_refused_before_they_reach_anybody() -> None:
    def low(rehearsal: Rehearsal, message: bytes) -> bytes:
        advertisement = replace(Advertisement.from_bytes(message), masking_key=bytes(32))
        return advertisement.signed(_liar(rehearsal).identity).to_bytes()

    rehearsal, aggregate = _run("advertise", low)
    assert len(aggregate.survivors) == 5
    assert "order" in rehearsal.coordinator.refused[0].reason


@pytest.mark.parametrize(
    "change",
    [
        lambda b: replace(b, roster=bytes(32)),
        lambda b: replace(b, shares=b.shares[1:]),
        lambda b: replace(b, shares=()),
        lambda b: replace(b, shares=(*b.shares[:-1], replace(b.shares[-1], recipient=77))),
    ],
)
def test_a_bundle_for_others_than_the_roster_is_refused(
    change: Callable[[ShareBundle], ShareBundle],
) -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        return change(ShareBundle.from_bytes(message)).signed(_liar(rehearsal).identity).to_bytes()

    _, aggregate = _run("share", forge)
    assert len(aggregate.survivors) == 5


def test_shares_that_do_not_open_cost_nothing_while_their_sender_stays() -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        bundle = ShareBundle.from_bytes(message)
        first = replace(bundle.shares[0], sealed=bytes(82))
        changed = replace(bundle, shares=(first, *bundle.shares[1:]))
        return changed.signed(_liar(rehearsal).identity).to_bytes()

    rehearsal, aggregate = _run("share", forge)
    assert len(aggregate.survivors) == 6
    reasons = [r.reason for r in rehearsal.coordinator.refused]
    assert len(reasons) == 1
    assert _liar(rehearsal).certificate.device_id in reasons[0]


@pytest.mark.parametrize(("dimension", "bits"), [(3, 32), (5, 32), (4, 16)])
def test_a_masked_input_of_another_size_is_refused(dimension: int, bits: int) -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        view = MaskedInput.from_bytes(message, 4, 32).view
        delta = MaskedDelta(np.zeros(dimension, dtype=np.uint32), bits)
        return MaskedInput.sign(view, delta, _liar(rehearsal).identity).to_bytes()

    _, aggregate = _run("mask", forge)
    assert len(aggregate.survivors) == 5


def test_a_vote_for_another_set_is_refused() -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        survivors = replace(rehearsal.coordinator._survivors, view=bytes(32))
        return SurvivorVote.sign(TERMS.sha256(), survivors, _liar(rehearsal).identity).to_bytes()

    rehearsal, aggregate = _run("confirm", forge)
    assert len(aggregate.survivors) == 6
    assert rehearsal.coordinator.refused[0].device_id == _liar(rehearsal).certificate.device_id


def test_wrong_shares_are_left_out_and_their_holder_is_named() -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        reveal = Reveal.from_bytes(message)
        wrong = tuple((owner, bytes(33)) for owner, _ in reveal.seed_shares)
        return (
            replace(reveal, seed_shares=wrong)
            .signed(rehearsal.coordinator._survivors, _liar(rehearsal).identity)
            .to_bytes()
        )

    rehearsal, aggregate = _run("reveal", forge)
    assert len(aggregate.survivors) == 6
    # Five others' shares are checked against commitments; its own has none and is not needed.
    assert [r.device_id for r in rehearsal.coordinator.refused] == (
        [_liar(rehearsal).certificate.device_id] * 5
    )


def test_an_owner_that_shared_another_secret_is_named() -> None:
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        bundle = ShareBundle.from_bytes(message)
        roster = bundle.roster
        me = rehearsal.coordinator.device_ids.index(_liar(rehearsal).certificate.device_id)
        # Commitments that fit shares of 1, 2, 3, ...: no polynomial through its seed.
        changed = tuple(
            replace(
                s,
                seed_commitment=commit_share(
                    "seed", roster, me, s.recipient, s.recipient.to_bytes(33, "big")
                ),
            )
            for s in bundle.shares
        )
        return replace(bundle, shares=changed).signed(_liar(rehearsal).identity).to_bytes()

    rehearsal = Rehearsal(TERMS, 5)
    network = Liar(rehearsal, "share", forge)

    def lie_too(stage: str, peer: str, message: bytes) -> bytes:
        # Its accomplices among the holders reveal what fits those commitments.
        if stage != "reveal":
            return Liar.up(network, stage, peer, message) or b""
        me = rehearsal.coordinator.device_ids.index(_liar(rehearsal).certificate.device_id)
        device = rehearsal.devices[peer]
        index = rehearsal.coordinator.device_ids.index(device.certificate.device_id)
        reveal = Reveal.from_bytes(message)
        shares = tuple(
            (owner, index.to_bytes(33, "big") if owner == me != index else share)
            for owner, share in reveal.seed_shares
        )
        return (
            replace(reveal, seed_shares=shares)
            .signed(rehearsal.coordinator._survivors, device.identity)
            .to_bytes()
        )

    network.up = lie_too  # type: ignore[method-assign]
    with pytest.raises(RoundAborted, match=_liar(rehearsal).certificate.device_id):
        rehearsal.run(uniform_deltas(TERMS, 5), network)


def _lies(rehearsal: Rehearsal, liars: set[str], message: bytes, peer: str) -> bytes:
    """Return a liar's reveal with every share but its own replaced, and signed."""
    if peer not in liars:
        return message
    reveal = Reveal.from_bytes(message)
    device = rehearsal.devices[peer]
    own = rehearsal.coordinator.device_ids.index(device.certificate.device_id)
    changed = replace(
        reveal,
        seed_shares=tuple((o, s if o == own else bytes(33)) for o, s in reveal.seed_shares),
        key_shares=tuple((o, b"\x01" * 33) for o, _ in reveal.key_shares),
    )
    return changed.signed(rehearsal.coordinator._survivors, device.identity).to_bytes()


@pytest.mark.parametrize("dropped", [set(), {"device-0006"}])
def test_a_threshold_of_honest_shares_beside_liars_recovers_every_secret(dropped: set[str]) -> None:
    terms = rehearsal_terms(7, 4)
    liars = {"device-0000", "device-0001", "device-0002"} - dropped

    class Liars(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return _lies(rehearsal, liars, message, peer) if stage == "reveal" else message

    rehearsal, deltas = Rehearsal(terms, 5), uniform_deltas(terms, 5)
    left = 7 - len(dropped)
    while left - len(liars) < derive_threshold(terms):
        liars.pop()
    # As many liars as there can be: one less honest share and nothing could be recovered.
    assert left - len(liars) == derive_threshold(terms)
    assert liars
    aggregate = rehearsal.run(deltas, Liars({"mask": dropped}))
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert len(names) == left
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))
    assert {rehearsal.name_of(r.device_id) for r in rehearsal.coordinator.refused} == liars


def derive_threshold(terms: RoundTerms) -> int:
    return derive(
        terms.cohort, terms.cohort, terms.gamma, terms.dropout, terms.min_honest
    ).share_threshold


def test_one_liar_more_than_that_aborts_and_says_what_is_missing() -> None:
    terms = rehearsal_terms(7, 4)
    rehearsal = Rehearsal(terms, 5)
    liars = {f"device-{i:04}" for i in range(7 - derive_threshold(terms) + 1)}

    class Liars(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return _lies(rehearsal, liars, message, peer) if stage == "reveal" else message

    with pytest.raises(RoundAborted, match="shares"):
        rehearsal.run(uniform_deltas(terms, 5), Liars())
    assert {rehearsal.name_of(r.device_id) for r in rehearsal.coordinator.refused} == liars


def test_an_owner_with_one_wrong_commitment_is_named_and_costs_nothing() -> None:
    terms = rehearsal_terms(7, 4)
    rehearsal, deltas = Rehearsal(terms, 5), uniform_deltas(terms, 5)

    def index(name: str) -> int:
        return rehearsal.coordinator.device_ids.index(rehearsal.devices[name].certificate.device_id)

    ids = {device.certificate.device_id: name for name, device in rehearsal.devices.items()}
    accomplice = ids[min(i for i in ids if ids[i] != LIAR)]
    wrong = b"\x00" * 32 + b"\x05"

    class Pair(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if (stage, peer) == ("share", LIAR):
                bundle = ShareBundle.from_bytes(message)
                changed = tuple(
                    replace(
                        s,
                        seed_commitment=commit_share(
                            "seed", bundle.roster, index(LIAR), s.recipient, wrong
                        ),
                    )
                    if s.recipient == index(accomplice)
                    else s
                    for s in bundle.shares
                )
                bundle = replace(bundle, shares=changed)
                return bundle.signed(rehearsal.devices[LIAR].identity).to_bytes()
            if (stage, peer) == ("reveal", accomplice):
                reveal = Reveal.from_bytes(message)
                shares = tuple((o, wrong if o == index(LIAR) else s) for o, s in reveal.seed_shares)
                return (
                    replace(reveal, seed_shares=shares)
                    .signed(
                        rehearsal.coordinator._survivors, rehearsal.devices[accomplice].identity
                    )
                    .to_bytes()
                )
            return message

    aggregate = rehearsal.run(deltas, Pair())
    assert np.array_equal(aggregate.values, exact_sum(deltas, list(deltas)))
    # The wrong share fits its commitment: it is among the first t, and other subsets are tried.
    (refusal,) = rehearsal.coordinator.refused
    assert refusal.device_id == rehearsal.devices[LIAR].certificate.device_id
    assert "belong together" in refusal.reason


def test_a_spoiled_sum_is_what_a_liar_can_do() -> None:
    # Inputs are not range-proved: a device that signs an altered vector shifts the sum by it.
    def forge(rehearsal: Rehearsal, message: bytes) -> bytes:
        masked = MaskedInput.from_bytes(message, 4, 32)
        delta = MaskedDelta(masked.delta.values + np.uint32(7), 32)
        return MaskedInput.sign(masked.view, delta, _liar(rehearsal).identity).to_bytes()

    rehearsal, deltas = Rehearsal(TERMS, 5), uniform_deltas(TERMS, 5)
    aggregate = rehearsal.run(deltas, Liar(rehearsal, "mask", forge))
    assert np.array_equal(aggregate.values, exact_sum(deltas, list(deltas)) + 7)


def test_stages_run_once_and_in_order() -> None:
    coordinator = Coordinator(TERMS, Rehearsal(TERMS, 1).authority.verify_key(), NOW_S)
    with pytest.raises(ProtocolViolation, match="order"):
        coordinator.masked({})
    with pytest.raises(RoundAborted):
        coordinator.advertised({})
    with pytest.raises(ProtocolViolation, match="order"):
        coordinator.advertised({})


def test_a_peer_that_was_not_asked_is_not_heard() -> None:
    class Ghost(Network):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return message

    rehearsal = Rehearsal(TERMS, 5)
    shared = rehearsal.coordinator.shared
    rehearsal.coordinator.shared = lambda r: shared({**r, "ghost": b"boo"})  # type: ignore[method-assign]
    rehearsal.run(uniform_deltas(TERMS, 5), Ghost())
    assert [(r.peer, r.device_id) for r in rehearsal.coordinator.refused] == [("ghost", "")]


def test_unmasking_holds_no_secret_in_its_errors() -> None:
    rehearsal = Rehearsal(TERMS, 5)
    with pytest.raises(RoundAborted) as caught:
        rehearsal.run(
            uniform_deltas(TERMS, 5),
            Network({"reveal": {"device-0000", "device-0001", "device-0003"}}),
        )
    assert "shares" in str(caught.value)
    assert AgreementKey(bytes(31) + b"\x01").public().hex() not in str(caught.value)


class Recorder(Network):
    """Keeps both directions of every message."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[tuple[str, str], bytes] = {}
        self.said: dict[tuple[str, str], bytes] = {}

    def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
        self.heard[stage, peer] = message
        return message

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        self.said[stage, peer] = message
        return message


@pytest.fixture(scope="module")
def another_round() -> Recorder:
    """A round of the same devices, whose keys happen to be the same: only its number differs."""
    terms, recorder = rehearsal_terms(6, 4, gamma=0.2, round_number=1), Recorder()
    Rehearsal(terms, 5).run(uniform_deltas(terms, 5), recorder)
    return recorder


@pytest.mark.parametrize("stage", STAGES)
def test_an_answer_of_another_round_is_refused_even_under_the_same_keys(
    stage: str, another_round: Recorder
) -> None:
    rehearsal = Rehearsal(TERMS, 5)
    deltas = uniform_deltas(TERMS, 5)
    replay = another_round.said[stage, LIAR]
    aggregate = rehearsal.run(deltas, Liar(rehearsal, stage, lambda _, m: replay))
    assert replay
    assert [r.peer for r in rehearsal.coordinator.refused] == [LIAR]
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert np.array_equal(aggregate.values, exact_sum(deltas, names))
    assert (LIAR in names) == (stage in ("confirm", "reveal"))


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_request_of_another_round_ends_the_round_on_the_device(
    stage: str, another_round: Recorder
) -> None:
    class Replay(Network):
        def down(self, at: str, peer: str, message: bytes) -> bytes | None:
            return another_round.heard[at, peer] if (at, peer) == (stage, LIAR) else message

    rehearsal = Rehearsal(TERMS, 5)
    rehearsal.run(uniform_deltas(TERMS, 5), Replay())
    assert isinstance(_liar(rehearsal).error, ProtocolViolation)
    assert [name for name, d in rehearsal.devices.items() if d.error] == [LIAR]


def test_the_same_keys_in_another_round_make_other_masks(another_round: Recorder) -> None:
    recorder = Recorder()
    Rehearsal(TERMS, 5).run(uniform_deltas(TERMS, 5), recorder)
    one, two = (
        Advertisement.from_bytes(r.said["advertise", LIAR]) for r in (recorder, another_round)
    )
    assert (one.masking_key, one.sealing_key) == (two.masking_key, two.sealing_key)
    assert one.seed_commitment != two.seed_commitment
    first, second = (
        MaskedInput.from_bytes(r.said["mask", LIAR], 4, 32).delta.values
        for r in (recorder, another_round)
    )
    assert not np.any(first == second)
