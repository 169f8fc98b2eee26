"""A device against a lying server: what it refuses, and what goes wrong beyond the assumptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from chorister.client.secagg_checks import Acceptance, choose_neighbours
from chorister.client.secagg_party import Party
from chorister.shared.errors import (
    BadMessage,
    BadSignature,
    ChoristerError,
    ProtocolViolation,
    RoundAborted,
)
from chorister.shared.randomness import SystemRandomness
from chorister.shared.secagg.keys import AgreementKey, Binding
from chorister.shared.secagg.masks import MaskedSum, centred
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import (
    Advertisement,
    Inbox,
    MaskedInput,
    Roster,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
)
from chorister.shared.secagg.sharing import SHARE_BYTES, reconstruct
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import NoisedDelta
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import (
    FEDERATION,
    NOW_S,
    Network,
    Rehearsal,
    rehearsal_terms,
    uniform_deltas,
)

TERMS = rehearsal_terms(6, 4, gamma=0.2)
ANYTHING = Acceptance(FEDERATION, 4, 2, 0.0, 0.5, 0.0, simulated=True)


class Tap(Network):
    """Keeps the last message of each stage for each device; nobody answers the last stage."""

    def __init__(self, until: str) -> None:
        super().__init__()
        self.until = until
        self.seen: dict[tuple[str, str], bytes] = {}
        self.sent: dict[tuple[str, str], bytes] = {}

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        self.sent[stage, peer] = message
        return message

    def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
        self.seen[stage, peer] = message
        return None if stage == self.until else message


def _stopped(until: str, terms: RoundTerms = TERMS, seed: int = 1) -> tuple[Rehearsal, Tap]:
    """Return a round in which every device has been asked for `until` and has not answered."""
    rehearsal, tap = Rehearsal(terms, seed, ANYTHING), Tap(until)
    with pytest.raises(RoundAborted):
        rehearsal.run(uniform_deltas(terms, seed), tap)
    return rehearsal, tap


def _party(rehearsal: Rehearsal, name: str) -> Party:
    return Party.from_state(rehearsal.devices[name].state)


def _share(rehearsal: Rehearsal, name: str, roster: Roster) -> object:
    device = rehearsal.devices[name]
    return _party(rehearsal, name).share(
        roster,
        device.identity,
        rehearsal.authority.verify_key(),
        ANYTHING,
        device.randomness,
        NOW_S,
    )


NAME = "device-0000"


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        ({}, {"federation": "another"}),
        ({}, {"least_cohort": 7}),
        ({}, {"least_honest": 6}),
        ({}, {"least_gamma": 0.25}),
        ({}, {"most_dropout": 0.05}),
        ({}, {"least_noise_multiplier": 1.5}),
        ({}, {"simulated": False}),
        ({"simulated": False}, {}),
    ],
)
def test_terms_below_the_pinned_limits_are_refused(
    change: dict[str, bool], limits: dict[str, object]
) -> None:
    rehearsal = Rehearsal(TERMS, 1)
    device = rehearsal.devices[NAME]
    with pytest.raises(ProtocolViolation):
        Party.begin(
            device.identity, device.certificate, rehearsal.authority.verify_key(),
            replace(TERMS, **change), replace(ANYTHING, **limits), device.randomness, NOW_S,
        )  # fmt: skip


def test_a_real_device_takes_no_simulated_randomness() -> None:
    rehearsal = Rehearsal(TERMS, 1)
    device, real = rehearsal.devices[NAME], replace(ANYTHING, simulated=False)
    arguments = (device.identity, device.certificate, rehearsal.authority.verify_key())
    terms = replace(TERMS, simulated=False)
    with pytest.raises(ProtocolViolation, match="simulated randomness"):
        Party.begin(*arguments, terms, real, device.randomness, NOW_S)
    Party.begin(*arguments, terms, real, SystemRandomness(), NOW_S)


def test_swapped_keys_are_noticed() -> None:
    rehearsal, tap = _stopped("share")
    roster = Roster.from_bytes(tap.seen["share", NAME])
    other = next(a for a in roster.advertisements if a.device_id != _id(rehearsal, NAME))
    for key in ("sealing_key", "masking_key", "seed_commitment"):
        swapped = replace(other, **{key: bytes(31) + b"\x09"})
        advertisements = tuple(swapped if a is other else a for a in roster.advertisements)
        with pytest.raises(BadSignature):
            _share(rehearsal, NAME, Roster(roster.terms, advertisements))


def test_a_device_demands_its_own_unchanged_keys() -> None:
    rehearsal, tap = _stopped("share")
    roster = Roster.from_bytes(tap.seen["share", NAME])
    others = tuple(a for a in roster.advertisements if a.device_id != _id(rehearsal, NAME))
    with pytest.raises(ProtocolViolation, match="own keys"):
        _share(rehearsal, NAME, Roster(roster.terms, others))


def test_a_server_cannot_slip_in_devices_that_the_authority_did_not_certify() -> None:
    rehearsal, tap = _stopped("share")
    roster = Roster.from_bytes(tap.seen["share", NAME])
    server = SimulatedRandomness(9, "server")
    identity, impostor_authority = SigningKey.generate(server), SigningKey.generate(server)
    certificate = Certificate.issue(
        impostor_authority, identity.verify_key(), FEDERATION, NOW_S + 10
    )
    sybil = Advertisement(certificate, TERMS.sha256(), bytes(32), bytes(32), bytes(32), b"")
    kept = [a for a in roster.advertisements if a.device_id == _id(rehearsal, NAME)]
    kept += [a for a in roster.advertisements if a not in kept][:4]
    ads = sorted([*kept, sybil.signed(identity)], key=lambda a: a.device_id)
    with pytest.raises(BadSignature):
        _share(rehearsal, NAME, Roster(roster.terms, tuple(ads)))


@pytest.mark.parametrize("size", [2, 3])
def test_a_shrunken_cohort_is_refused(size: int) -> None:
    rehearsal, tap = _stopped("share")
    roster = Roster.from_bytes(tap.seen["share", NAME])
    own = [a for a in roster.advertisements if a.device_id == _id(rehearsal, NAME)]
    others = [a for a in roster.advertisements if a not in own][: size - 1]
    ads = tuple(sorted(own + others, key=lambda a: a.device_id))
    with pytest.raises(ProtocolViolation, match="devices"):
        _share(rehearsal, NAME, Roster(roster.terms, ads))


def test_a_roster_of_another_round_is_refused() -> None:
    later = rehearsal_terms(6, 4, gamma=0.2, round_number=1)
    _, earlier_tap = _stopped("share")
    rehearsal, tap = _stopped("share", later)
    earlier = Roster.from_bytes(earlier_tap.seen["share", NAME])
    roster = Roster.from_bytes(tap.seen["share", NAME])
    with pytest.raises(ProtocolViolation, match="terms"):
        _share(rehearsal, NAME, earlier)
    # One replayed advertisement among fresh ones.
    victim = _id(rehearsal, "device-0001")
    ads = tuple(
        next(e for e in earlier.advertisements if e.device_id == victim)
        if a.device_id == victim
        else a
        for a in roster.advertisements
    )
    with pytest.raises(BadMessage, match="same terms"):
        _share(rehearsal, NAME, Roster(roster.terms, ads))


def _mask(rehearsal: Rehearsal, name: str, inbox: Inbox, d: int = 4, bits: int = 32) -> Party:
    party = _party(rehearsal, name)
    delta = NoisedDelta(np.ones(d, dtype=np.int64), bits)
    party.mask(inbox, delta, rehearsal.devices[name].identity)
    return party


def test_an_inbox_that_splits_the_cohort_is_refused() -> None:
    rehearsal, tap = _stopped("mask")
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    own = _index(rehearsal, NAME)
    for size in (1, 2, 3):
        part = {own, *[i for i in range(6) if i != own][: size - 1]}
        split = Inbox(
            inbox.roster, Members.of(part), tuple(s for s in inbox.shares if s[0] in part)
        )
        with pytest.raises(ProtocolViolation, match="share"):
            _mask(rehearsal, NAME, split)


@pytest.mark.parametrize(
    "change",
    [
        lambda i: replace(i, roster=bytes(32)),
        lambda i: replace(i, sharers=Members.of([*i.sharers, 6])),
        lambda i: replace(i, sharers=Members.of([*i.sharers, 4095])),
        lambda i: replace(i, shares=i.shares[1:]),
        lambda i: replace(i, shares=()),
        lambda i: replace(i, sharers=Members.of(list(i.sharers)[:-1])),
    ],
)
def test_an_inconsistent_inbox_is_refused(change: Callable[[Inbox], Inbox]) -> None:
    rehearsal, tap = _stopped("mask")
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    with pytest.raises(ProtocolViolation):
        _mask(rehearsal, NAME, change(inbox))


def test_a_delta_of_another_size_or_modulus_is_refused() -> None:
    rehearsal, tap = _stopped("mask")
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    for d, bits in ((3, 32), (4, 31)):
        with pytest.raises(ProtocolViolation, match="values modulo"):
            _mask(rehearsal, NAME, inbox, d, bits)


def test_a_changed_share_costs_its_sender_not_the_round() -> None:
    rehearsal, tap = _stopped("mask")
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    sender, sealed = inbox.shares[0]
    changed = replace(
        inbox, shares=((sender, sealed[:-1] + bytes([sealed[-1] ^ 1])), *inbox.shares[1:])
    )
    party = _mask(rehearsal, NAME, changed)
    assert party.phase == "masked"
    assert party._state.unreadable == (sender,)


@pytest.mark.parametrize("step", ["share", "mask", "confirm", "reveal"])
def test_every_step_runs_once_and_in_order(step: str) -> None:
    order = ["share", "mask", "confirm", "reveal"]
    for reached in order:
        if reached == step:
            continue
        rehearsal, _ = _stopped(reached)
        party, identity = _party(rehearsal, NAME), rehearsal.devices[NAME].identity
        _, other_tap = _stopped(step)
        message = other_tap.seen[step, NAME]
        with pytest.raises(ProtocolViolation, match="once, right after"):
            if step == "share":
                _share(rehearsal, NAME, Roster.from_bytes(message))
            elif step == "mask":
                _mask(rehearsal, NAME, Inbox.from_bytes(message))
            elif step == "confirm":
                party.confirm(Survivors.from_bytes(message), identity)
            else:
                party.reveal(UnmaskRequest.from_bytes(message), identity)


def test_shares_are_revealed_once() -> None:
    rehearsal, tap = _stopped("reveal")
    party, identity = _party(rehearsal, NAME), rehearsal.devices[NAME].identity
    request = UnmaskRequest.from_bytes(tap.seen["reveal", NAME])
    party.reveal(request, identity)
    for again in (party, Party.from_state(party.to_state())):
        with pytest.raises(ProtocolViolation, match="once"):
            again.reveal(request, identity)
    assert not party._state.secrets.held


def test_no_secret_of_the_sum_is_left_after_masking() -> None:
    rehearsal, tap = _stopped("mask")
    device, before = rehearsal.devices[NAME], _party(rehearsal, NAME)
    secrets = [bytes(s) for s in (before._state.secrets.masking, before._state.secrets.seed)]
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    after = _mask(rehearsal, NAME, inbox).to_state()
    assert all(len(s) == 32 and s in device.state for s in secrets)
    assert not any(s in after for s in secrets)


def test_secrets_have_no_readable_form() -> None:
    rehearsal, _ = _stopped("mask")
    party = _party(rehearsal, NAME)
    shown = repr(party) + repr(party._state.secrets) + str(party)
    for secret in (
        party._state.secrets.masking,
        party._state.secrets.seed,
        party._state.secrets.sealing,
    ):
        assert bytes(secret).hex() not in shown
        assert repr(bytes(secret)) not in shown


def _id(rehearsal: Rehearsal, name: str) -> str:
    return rehearsal.devices[name].certificate.device_id


def _index(rehearsal: Rehearsal, name: str) -> int:
    return rehearsal.coordinator.device_ids.index(_id(rehearsal, name))


@pytest.mark.parametrize("kept", [3, 2, 0])
def test_a_survivor_set_below_the_least_is_refused(kept: int) -> None:
    rehearsal, tap = _stopped("confirm")
    survivors = Survivors.from_bytes(tap.seen["confirm", NAME])
    own = _index(rehearsal, NAME)
    few = [own, *[i for i in range(6) if i != own]][:kept]
    with pytest.raises(ProtocolViolation):
        _party(rehearsal, NAME).confirm(
            Survivors(survivors.view, Members.of(few)), rehearsal.devices[NAME].identity
        )


def test_a_survivor_set_with_strangers_or_without_oneself_is_refused() -> None:
    terms = rehearsal_terms(7, 4, gamma=0.15)
    rehearsal = Rehearsal(terms, 1, ANYTHING)
    tap = Tap("confirm")
    # One device never shares: it cannot survive.
    down = tap.down

    def without_one(stage: str, peer: str, message: bytes) -> bytes | None:
        return None if (stage, peer) == ("share", "device-0006") else down(stage, peer, message)

    tap.down = without_one  # type: ignore[method-assign]
    with pytest.raises(RoundAborted):
        rehearsal.run(uniform_deltas(terms, 1), tap)
    survivors = Survivors.from_bytes(tap.seen["confirm", NAME])
    own, absent = _index(rehearsal, NAME), _index(rehearsal, "device-0006")
    identity = rehearsal.devices[NAME].identity
    for members in (
        survivors.survivors.indices | {absent},
        survivors.survivors.indices - {own},
    ):
        with pytest.raises(ProtocolViolation):
            _party(rehearsal, NAME).confirm(
                Survivors(survivors.view, Members.of(members)), identity
            )
    with pytest.raises(ProtocolViolation, match="view"):
        _party(rehearsal, NAME).confirm(Survivors(bytes(32), survivors.survivors), identity)


def _votes(rehearsal: Rehearsal, names: list[str], survivors: Survivors) -> UnmaskRequest:
    digest = rehearsal.terms.sha256()
    votes = [
        (_index(rehearsal, n), SurvivorVote.sign(digest, survivors, rehearsal.devices[n].identity))
        for n in names
    ]
    return UnmaskRequest(tuple(sorted(votes, key=lambda v: v[0])))


def _confirmed(rehearsal: Rehearsal, name: str, survivors: Survivors) -> Party:
    party = _party(rehearsal, name)
    party.confirm(survivors, rehearsal.devices[name].identity)
    return party


def test_too_few_or_foreign_votes_reveal_nothing() -> None:
    rehearsal, tap = _stopped("confirm")
    names = sorted(rehearsal.devices)
    survivors = Survivors.from_bytes(tap.seen["confirm", NAME])
    smaller = Survivors(survivors.view, Members.of([i for i in range(6) if i != 5]))
    identity = rehearsal.devices[NAME].identity
    good = _votes(rehearsal, names[:4], survivors)
    mixed = UnmaskRequest((*good.votes[:3], *_votes(rehearsal, names[4:5], smaller).votes))
    repeated = UnmaskRequest((*good.votes[:3], good.votes[2]))
    for bad in (
        UnmaskRequest(()),
        _votes(rehearsal, names[:3], survivors),
        UnmaskRequest(tuple(sorted(mixed.votes, key=lambda v: v[0]))),
    ):
        with pytest.raises(ProtocolViolation):
            _confirmed(rehearsal, NAME, survivors).reveal(bad, identity)
    with pytest.raises(BadMessage, match="ascending"):
        UnmaskRequest.from_bytes(repeated.to_bytes())
    assert _confirmed(rehearsal, NAME, survivors).reveal(good, identity).seed_shares


@dataclass
class TwoSets:
    """What a server got that showed two sets of survivors."""

    rehearsal: Rehearsal
    tap: Tap
    victim: str
    threshold: int
    seeds: dict[int, bytes]
    keys: dict[int, bytes]


def _two_sets(corrupt: list[str]) -> TwoSets:
    """Let a server with corrupt devices show two sets; return the victim's shares that it gets.

    The victim survives in one set and has dropped out in the other. Corrupt devices vote for both
    and hand over both of their shares.
    """
    rehearsal, tap = _stopped("confirm")
    survivors = Survivors.from_bytes(tap.seen["confirm", NAME])
    victim = next(n for n in sorted(rehearsal.devices) if n not in corrupt)
    owner = _index(rehearsal, victim)
    without = Survivors(survivors.view, Members.of(survivors.survivors.indices - {owner}))
    honest = [n for n in sorted(rehearsal.devices) if n not in corrupt and n != victim]
    half = (len(honest) + 1) // 2
    # The victim itself stands for the set that it is in.
    groups = {True: [victim, *honest[: half - 1]], False: honest[half - 1 :]}
    seeds: dict[int, bytes] = {}
    keys: dict[int, bytes] = {}
    for alive, members in groups.items():
        shown = survivors if alive else without
        request = _votes(rehearsal, members + corrupt, shown)
        for name in members:
            party = _confirmed(rehearsal, name, shown)
            try:
                reveal = party.reveal(request, rehearsal.devices[name].identity)
            except ProtocolViolation:
                continue
            seeds |= {_index(rehearsal, name): s for o, s in reveal.seed_shares if o == owner}
            keys |= {_index(rehearsal, name): s for o, s in reveal.key_shares if o == owner}
    for name in corrupt:
        pair = _party(rehearsal, name)._state.secrets.held[owner]
        seeds[_index(rehearsal, name)] = pair[:SHARE_BYTES]
        keys[_index(rehearsal, name)] = pair[SHARE_BYTES:]
    threshold = rehearsal.coordinator.thresholds.share_threshold
    return TwoSets(rehearsal, tap, victim, threshold, seeds, keys)


@pytest.mark.parametrize("corrupt", [[], ["device-0005"]])
def test_two_survivor_sets_never_yield_both_kinds_of_share(corrupt: list[str]) -> None:
    got = _two_sets(corrupt)
    assert min(len(got.seeds), len(got.keys)) < got.threshold


def test_beyond_the_assumed_fraction_a_device_is_exposed() -> None:
    # gamma = 0.2 of 6 devices is one; two corrupt ones reach every quorum on both sides, so both
    # secrets of the victim come out, and with them its noised delta, alone.
    got = _two_sets(["device-0004", "device-0005"])
    rehearsal, own = got.rehearsal, _index(got.rehearsal, got.victim)
    coordinator = rehearsal.coordinator
    everyone = coordinator._roster.advertisements
    key = AgreementKey(reconstruct(got.keys, got.threshold))
    assert key.public() == everyone[own].masking_key
    masked = MaskedInput.from_bytes(got.tap.sent["mask", got.victim], 4, 32)
    total = MaskedSum(4)
    total.add(masked.delta.values)
    total.subtract_mask(reconstruct(got.seeds, got.threshold))
    binding = Binding(TERMS.sha256(), coordinator._view)
    for peer, advertisement in enumerate(everyone):
        if peer != own:
            low, high = sorted((own, peer))
            seed = binding.mask_seed(
                key.agree(advertisement.masking_key),
                everyone[low].certificate.device_key.raw,
                everyone[high].certificate.device_key.raw,
            )
            if own == low:
                total.subtract_mask(seed)
            else:
                total.add_mask(seed)
    exposed = centred(total.reduced(32), 32)
    assert np.array_equal(exposed, uniform_deltas(TERMS, 1)[got.victim])


def test_a_damaged_state_ends_the_round() -> None:
    rehearsal, _ = _stopped("mask")
    state = rehearsal.devices[NAME].state
    for damaged in (b"", state[:-1], state.replace(b"shared", b"shaved"), bytes(32), b"x"):
        with pytest.raises(ProtocolViolation, match="damaged"):
            Party.from_state(damaged)


def test_a_low_order_key_is_an_error_of_ours() -> None:
    rehearsal, _ = _stopped("share")
    party = _party(rehearsal, NAME)
    with pytest.raises(BadMessage, match="large order"):
        AgreementKey(bytes(party._state.secrets.sealing)).agree(bytes(32))


@pytest.mark.parametrize("purpose", ["sealing_key", "masking_key"])
def test_a_low_order_key_in_a_roster_ends_the_round(purpose: str) -> None:
    # Only a lying server passes one on. A device that tried again would draw other neighbours.
    class Low(Tap):
        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if (stage, peer) == ("advertise", "device-0003"):
                device = rehearsal.devices[peer]
                changed = replace(Advertisement.from_bytes(message), **{purpose: bytes(32)})
                party = Party.from_state(device.state)
                party._state.advertisement = changed.signed(device.identity).to_bytes()
                device.state = party.to_state()
                return party._state.advertisement
            return super().up(stage, peer, message)

    rehearsal = Rehearsal(TERMS, 1, ANYTHING)
    coordinator = rehearsal.coordinator
    key = rehearsal.authority.verify_key()
    coordinator._check_keys = (  # type: ignore[method-assign]
        lambda advertisement: advertisement.check(key, FEDERATION, TERMS.sha256(), NOW_S)
    )
    with pytest.raises(RoundAborted):
        rehearsal.run(uniform_deltas(TERMS, 1), Low(""))
    others = [d.error for name, d in rehearsal.devices.items() if name != "device-0003"]
    assert all(isinstance(error, ProtocolViolation) for error in others)
    assert all("large order" in str(error) for error in others)


def test_neighbours_are_uniform_and_never_oneself() -> None:
    counts = np.zeros(20)
    for seed in range(600):
        chosen = choose_neighbours(7, 20, 5, SimulatedRandomness(seed))
        assert len(chosen) == 5
        for i in chosen:
            counts[i] += 1
    assert counts[7] == 0
    others = np.delete(counts, 7)
    # Expected 3000 / 19 = 158 each, standard deviation 11: six of them.
    assert abs(others - 3000 / 19).max() < 66


def test_in_a_complete_graph_everybody_else_is_chosen() -> None:
    assert list(choose_neighbours(2, 5, 4, SimulatedRandomness(0))) == [0, 1, 3, 4]


def test_an_error_names_no_secret() -> None:
    rehearsal, tap = _stopped("mask")
    party = _party(rehearsal, NAME)
    inbox = Inbox.from_bytes(tap.seen["mask", NAME])
    try:
        party.mask(replace(inbox, shares=()), NoisedDelta(np.ones(4, dtype=np.int64), 32),
                   rehearsal.devices[NAME].identity)  # fmt: skip
    except ChoristerError as error:
        for secret in (party._state.secrets.masking, party._state.secrets.seed):
            assert bytes(secret).hex() not in str(error)
    else:
        pytest.fail("an empty inbox was accepted")
