"""What the server can compute: only permitted sums lie in the span of everything that it saw.

A round runs for real, and every mask that a device applies is noted by its seed. A masked input
is then one row: its delta plus masks. The server knows the masks whose seeds follow from the shares
that were revealed to it (and from corrupt devices' secrets); all others are unknowns. Combinations
of rows modulo 2**32 in which every unknown cancels are what it can learn, and they must be
multiples of the sum over the honest survivors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

import chorister.client.secagg_party as secagg_party
from chorister.client.secagg_party import Party
from chorister.shared.errors import ProtocolViolation, RoundAborted
from chorister.shared.secagg.keys import AgreementKey, Binding
from chorister.shared.secagg.masks import MaskedSum
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import (
    Inbox,
    Reveal,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
    view_digest,
)
from chorister.shared.secagg.sharing import SHARE_BYTES, reconstruct
from chorister.shared.types import NoisedDelta
from chorister.simulations.secagg_rehearsal import (
    Network,
    Rehearsal,
    rehearsal_terms,
    uniform_deltas,
)

BITS = 32
Row = dict[bytes, int]


@dataclass
class Notes(Network):
    """Notes every mask by its seed, every reveal, and devices' states before masking."""

    drops: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    reveals: dict[str, Reveal] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    current: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.drops)

    def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
        self.current = peer
        if stage == "mask" and self.rehearsal:
            self.states[peer] = self.rehearsal.devices[peer].state
        return super().down(stage, peer, message)

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        if stage == "reveal":
            self.reveals[peer] = Reveal.from_bytes(message)
        return message

    def note(self, seed: bytes, sign: int) -> None:
        row = self.rows.setdefault(self.current, {})
        row[seed] = row.get(seed, 0) + sign


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Notes], None]]:
    def attach(notes: Notes) -> None:
        class Noting(MaskedSum):
            def add_mask(self, seed: bytes) -> None:
                notes.note(seed, 1)
                super().add_mask(seed)

            def subtract_mask(self, seed: bytes) -> None:
                notes.note(seed, -1)
                super().subtract_mask(seed)

        monkeypatch.setattr(secagg_party, "MaskedSum", Noting)

    yield attach


def _run(
    notes: Notes, cohort: int, *, corrupt: int = 0, seed: int = 0, sparse: bool = False
) -> tuple[Rehearsal, set[str]]:
    """Return the finished round and the corrupt devices."""
    options = {"gamma": 0.02, "dropout": 0.02} if sparse else {"gamma": corrupt / cohort + 1e-6}
    rehearsal = Rehearsal(rehearsal_terms(cohort, 2, **options), seed)
    notes.rehearsal = rehearsal
    rehearsal.run(uniform_deltas(rehearsal.terms, seed), notes)
    return rehearsal, set(sorted(rehearsal.devices)[:corrupt])


def _known(
    rehearsal: Rehearsal,
    notes: Notes,
    corrupt: set[str],
    leaked: frozenset[bytes] = frozenset(),
    views: tuple[bytes, ...] = (),
) -> set[bytes]:
    """Return every mask seed that the server can compute."""
    coordinator, roster = rehearsal.coordinator, rehearsal.coordinator._roster
    n, t = len(roster), coordinator.thresholds.share_threshold
    index = {
        name: coordinator.device_ids.index(d.certificate.device_id)
        for name, d in rehearsal.devices.items()
        if d.certificate.device_id in coordinator.device_ids
    }
    seed_shares: dict[int, dict[int, bytes]] = {i: {} for i in range(n)}
    key_shares: dict[int, dict[int, bytes]] = {i: {} for i in range(n)}
    for name, reveal in notes.reveals.items():
        for owner, share in reveal.seed_shares:
            seed_shares[owner][index[name]] = share
        for owner, share in reveal.key_shares:
            key_shares[owner][index[name]] = share
    known, keys = set(leaked), {}
    for name in corrupt:
        party = Party.from_state(notes.states[name])
        known.add(bytes(party._state.secrets.seed))
        keys[index[name]] = bytes(party._state.secrets.masking)
        for owner, pair in _held(rehearsal, notes, name).items():
            # A corrupt device hands over both kinds of share.
            seed_shares[owner][index[name]] = pair[:SHARE_BYTES]
            key_shares[owner][index[name]] = pair[SHARE_BYTES:]
    for owner in range(n):
        if len(seed_shares[owner]) >= t:
            known.add(reconstruct(seed_shares[owner], t))
        if len(key_shares[owner]) >= t:
            keys[owner] = reconstruct(key_shares[owner], t)
    known |= _pairwise(rehearsal, keys, views)
    return known


def _pairwise(
    rehearsal: Rehearsal, keys: dict[int, bytes], views: tuple[bytes, ...] = ()
) -> set[bytes]:
    """Return the seeds, in any view, of all pairs of which one masking key is known."""
    coordinator = rehearsal.coordinator
    terms = rehearsal.terms.sha256()
    bindings = [Binding(terms, view) for view in views or (coordinator._view,)]
    everyone = coordinator._roster.advertisements
    seeds = set()
    for owner, secret in keys.items():
        for peer in range(len(everyone)):
            if peer != owner:
                low, high = sorted((owner, peer))
                agreed = AgreementKey(secret).agree(everyone[peer].masking_key)
                first = everyone[low].certificate.device_key.raw
                second = everyone[high].certificate.device_key.raw
                seeds |= {binding.mask_seed(agreed, first, second) for binding in bindings}
    return seeds


def _learnable(rows: dict[str, Row], known: set[bytes]) -> list[dict[str, int]]:
    """Return generators of the combinations of deltas in which all unknown masks cancel."""
    names = sorted(rows)
    unknown = sorted({seed for row in rows.values() for seed in row} - known)
    column = {seed: j for j, seed in enumerate(unknown)}
    modulus, width = 2**BITS, len(unknown)
    # [masks | identity] in Python integers; the ring is a chain, so pivots go by 2-adic valuation.
    table = [[0] * (width + len(names)) for _ in names]
    for i, name in enumerate(names):
        for seed, sign in rows[name].items():
            if seed in column:
                table[i][column[seed]] = sign % modulus
        table[i][width + i] = 1
    todo, pivots = table, []
    for j in range(width):
        candidates = [r for r in todo if r[j] % modulus]
        if not candidates:
            continue
        pivot = min(candidates, key=lambda r: _valuation(r[j]))
        v = _valuation(pivot[j])
        inverse = pow(pivot[j] >> v, -1, modulus)
        todo = [r for r in todo if r is not pivot]
        for r in todo:
            if r[j]:
                factor = (r[j] >> v) * inverse % modulus
                r[:] = [(a - factor * b) % modulus for a, b in zip(r, pivot, strict=True)]
        if v:
            # Multiples of the pivot row that vanish in this column go on.
            todo.append([a * (modulus >> v) % modulus for a in pivot])
        pivots.append(pivot)
    found = []
    for r in todo:
        combination = {n: r[width + i] for i, n in enumerate(names) if r[width + i]}
        if combination:
            found.append(combination)
    return found


def _valuation(number: int) -> int:
    return (number & -number).bit_length() - 1


def _only_the_sum(found: list[dict[str, int]], honest: set[str], corrupt: set[str]) -> bool:
    """Return whether every combination is a multiple of the honest sum, plus corrupt deltas."""
    for combination in found:
        factors = {combination.get(name, 0) for name in honest}
        others = combination.keys() - honest - corrupt
        if len(factors) > 1 or others:
            return False
    return True


def _honest_survivors(rehearsal: Rehearsal, corrupt: set[str]) -> set[str]:
    survivors = rehearsal.coordinator._survivors.survivors
    ids = rehearsal.coordinator.device_ids
    return {rehearsal.name_of(ids[i]) for i in survivors} - corrupt


@pytest.mark.parametrize("corrupt", [0, 1])
@pytest.mark.parametrize(
    "drops",
    [{}, {"mask": {"device-0003"}}, {"confirm": {"device-0002"}}, {"share": {"device-0006"}},
     {"mask": {"device-0003"}, "reveal": {"device-0004"}}],
)  # fmt: skip
def test_only_the_sum_of_the_honest_survivors_can_be_learned(
    noting: Callable[[Notes], None], corrupt: int, drops: dict[str, set[str]]
) -> None:
    notes = Notes(drops=drops)
    noting(notes)
    rehearsal, bad = _run(notes, 8, corrupt=corrupt)
    found = _learnable(notes.rows, _known(rehearsal, notes, bad))
    honest = _honest_survivors(rehearsal, bad)
    assert _only_the_sum(found, honest, bad)
    assert any(combination.get(next(iter(honest))) for combination in found), "the sum is learned"


def test_a_masked_input_that_came_too_late_is_never_opened(
    noting: Callable[[Notes], None],
) -> None:
    class Late(Notes):
        late: bytes = b""

        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if (stage, peer) == ("mask", "device-0003"):
                return None  # the server keeps it, and calls the device a drop-out
            return super().up(stage, peer, message)

    notes = Late()
    noting(notes)
    rehearsal, bad = _run(notes, 8, corrupt=1)
    assert "device-0003" in notes.rows
    found = _learnable(notes.rows, _known(rehearsal, notes, bad))
    assert _only_the_sum(found, _honest_survivors(rehearsal, bad), bad)


def test_on_a_sparse_graph_only_the_sum_can_be_learned(noting: Callable[[Notes], None]) -> None:
    notes = Notes(drops={"mask": {"device-0050"}, "share": {"device-0003"}})
    noting(notes)
    rehearsal, bad = _run(notes, 160, sparse=True)
    assert not rehearsal.coordinator.thresholds.complete
    found = _learnable(notes.rows, _known(rehearsal, notes, bad))
    assert len(found) == 1
    assert _only_the_sum(found, _honest_survivors(rehearsal, bad), bad)


def test_a_server_that_tells_devices_different_sharers_learns_nothing(
    noting: Callable[[Notes], None],
) -> None:
    class TwoViews(Notes):
        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if stage == "mask" and peer in {"device-0000", "device-0001"}:
                inbox = Inbox.from_bytes(message)
                keep = Members.of([i for i in inbox.sharers if i != self.hidden])
                message = Inbox(
                    inbox.roster, keep, tuple(s for s in inbox.shares if s[0] in keep)
                ).to_bytes()
            return super().down(stage, peer, message)

        @property
        def hidden(self) -> int:
            assert self.rehearsal is not None
            ids = self.rehearsal.coordinator.device_ids
            return ids.index(self.rehearsal.devices["device-0007"].certificate.device_id)

    notes = TwoViews()
    noting(notes)
    rehearsal = Rehearsal(rehearsal_terms(8, 2, gamma=0.13), 0)
    notes.rehearsal = rehearsal
    # The coordinator of this package refuses inputs of another view; this server would not.
    rehearsal.coordinator._fits = lambda message, index: None  # type: ignore[method-assign]
    rehearsal.run(uniform_deltas(rehearsal.terms, 0), notes)
    lied_to = {name for name, device in rehearsal.devices.items() if device.error}
    assert lied_to == {"device-0000", "device-0001"}
    # Even all self-mask seeds do not help: masks of different views never cancel.
    seeds = {bytes(Party.from_state(s)._state.secrets.seed) for s in notes.states.values()}
    assert len(notes.rows) == 8
    assert _learnable(notes.rows, seeds) == []


def test_control_a_revealed_key_exposes_its_device(noting: Callable[[Notes], None]) -> None:
    notes = Notes()
    noting(notes)
    rehearsal, bad = _run(notes, 8)
    victim = Party.from_state(notes.states["device-0005"])
    index = rehearsal.coordinator.device_ids.index(
        rehearsal.devices["device-0005"].certificate.device_id
    )
    leaked = frozenset(_pairwise(rehearsal, {index: bytes(victim._state.secrets.masking)}))
    found = _learnable(notes.rows, _known(rehearsal, notes, bad, leaked))
    assert not _only_the_sum(found, _honest_survivors(rehearsal, bad), bad)
    assert {"device-0005": 1} in [{k: v for k, v in c.items() if v} for c in found] or len(
        found
    ) > 1


def test_control_a_reused_mask_exposes_differences(
    noting: Callable[[Notes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Binding, "mask_seed", lambda *_: bytes(32))
    notes = Notes()
    noting(notes)
    rehearsal, bad = _run(notes, 8)
    found = _learnable(notes.rows, _known(rehearsal, notes, bad) - {bytes(32)})
    assert not _only_the_sum(found, _honest_survivors(rehearsal, bad), bad)


def test_control_corruption_beyond_gamma_exposes_a_drop_out(
    noting: Callable[[Notes], None],
) -> None:
    # Planned for nobody corrupt; five corrupt devices hold a threshold of both kinds of share.
    notes = Notes()
    noting(notes)
    rehearsal, _ = _run(notes, 8)
    bad = set(sorted(rehearsal.devices)[:5])
    found = _learnable(notes.rows, _known(rehearsal, notes, bad))
    assert not _only_the_sum(found, _honest_survivors(rehearsal, bad), bad)


def _held(rehearsal: Rehearsal, notes: Notes, name: str) -> dict[int, bytes]:
    """Return both shares of everybody that a device received, opened with its sealing key."""
    party = Party.from_state(notes.states[name])
    coordinator = rehearsal.coordinator
    me = coordinator.device_ids.index(rehearsal.devices[name].certificate.device_id)
    entries = tuple(
        (owner, entry.sealed)
        for owner, bundle in sorted(coordinator._bundles.items())
        for entry in bundle.shares
        if entry.recipient == me
    )
    assert party._state.peers is not None
    inbox = Inbox(coordinator._roster_digest, Members.of(coordinator._bundles), entries)
    return party._open(inbox, party._state.peers)[0]


def test_the_notes_are_complete(noting: Callable[[Notes], None]) -> None:
    # With every mask known, each delta is known: the rows hold all that hides a delta.
    notes = Notes()
    noting(notes)
    _run(notes, 6)
    every = {seed for row in notes.rows.values() for seed in row}
    assert len(_learnable(notes.rows, every)) == 6
    # One seed of its own and one for each of five neighbours.
    assert all(len(row) == 6 for row in notes.rows.values())


@pytest.mark.parametrize("seed", range(25))
def test_a_server_that_lies_at_random_learns_only_sums_of_enough_honest_devices(
    noting: Callable[[Notes], None], seed: int
) -> None:
    notes = Notes()
    noting(notes)
    found, bad, rehearsal, _ = _random_lies(notes, seed, devices=7, corrupt=1)
    honest = rehearsal.devices.keys() - bad
    for combination in found:
        factors = [combination.get(name, 0) for name in honest if combination.get(name, 0)]
        assert len(set(factors)) <= 1, "honest deltas come apart"
        assert not factors or len(factors) >= rehearsal.terms.min_honest


def test_random_lies_do_reach_the_end_now_and_then(noting: Callable[[Notes], None]) -> None:
    ends = 0
    for seed in range(25):
        notes = Notes()
        noting(notes)
        found, _, _, revealed = _random_lies(notes, seed, devices=7, corrupt=1)
        ends += bool(revealed) and bool(found)
    assert ends >= 3


def test_control_random_lies_with_too_many_corrupt_devices_take_sums_apart(
    noting: Callable[[Notes], None],
) -> None:
    apart = 0
    for seed in range(25):
        notes = Notes()
        noting(notes)
        found, bad, rehearsal, _ = _random_lies(notes, seed, devices=7, corrupt=4)
        honest = rehearsal.devices.keys() - bad
        factors = [[c.get(name, 0) for name in honest] for c in found]
        apart += any(0 < sum(map(bool, f)) < rehearsal.terms.min_honest for f in factors)
    assert apart > 0


def _random_lies(
    notes: Notes, seed: int, devices: int, corrupt: int
) -> tuple[list[dict[str, int]], set[str], Rehearsal, int]:
    """Return what a server learns that shows every device something else, and how many revealed.

    It chooses among a few sets of sharers and of survivors at random, for each device by itself;
    corrupt devices vote for every set and give it everything.
    """

    class Halt(Notes):
        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if stage == "mask":
                inboxes[peer] = Inbox.from_bytes(message)
                notes.states[peer] = rehearsal.devices[peer].state
                return None
            return message

    inboxes: dict[str, Inbox] = {}
    generator = np.random.default_rng(seed)
    # Thresholds are those for one corrupt device, however many there are.
    rehearsal = Rehearsal(rehearsal_terms(devices, 2, gamma=1 / devices + 1e-6), seed)
    notes.rehearsal = rehearsal
    with pytest.raises(RoundAborted):
        rehearsal.run(uniform_deltas(rehearsal.terms, seed), Halt())
    names = sorted(rehearsal.devices)
    bad = set(names[:corrupt])
    ids = rehearsal.coordinator.device_ids
    index = {n: ids.index(rehearsal.devices[n].certificate.device_id) for n in names}
    everybody = set(range(devices))
    needed = rehearsal.coordinator.thresholds.min_survivors
    digest, roster = rehearsal.terms.sha256(), rehearsal.coordinator._roster_digest

    def some(of: set[int]) -> Members:
        size = int(generator.integers(min(needed, len(of)), len(of) + 1))
        return Members.of(int(i) for i in generator.permutation(sorted(of))[:size])

    sharers = [Members.of(everybody), some(everybody)]
    views = tuple(view_digest(digest, roster, u) for u in sharers)
    shown = [
        Survivors(view, some(set(u.indices)))
        for view, u in zip(views, sharers, strict=True)
        for _ in range(2)
    ]
    votes: dict[Survivors, dict[int, SurvivorVote]] = {s: {} for s in shown}
    parties: dict[str, tuple[Party, Survivors]] = {}
    for name in names:
        device = rehearsal.devices[name]
        if name in bad:
            for s in shown:
                if index[name] in s.survivors:
                    votes[s][index[name]] = SurvivorVote.sign(digest, s, device.identity)
            continue
        party = Party.from_state(device.state)
        told = sharers[int(generator.random() < 0.2)]
        shares = tuple(s for s in inboxes[name].shares if s[0] in told)
        notes.current = name
        try:
            delta = NoisedDelta(np.zeros(2, dtype=np.int64), BITS)
            party.mask(Inbox(roster, told, shares), delta, device.identity)
            choice = shown[int(generator.integers(0, 2 if told is sharers[0] else 4))]
            votes[choice][index[name]] = party.confirm(choice, device.identity)
            parties[name] = party, choice
        except ProtocolViolation:
            continue
    for name, (party, choice) in parties.items():
        request = UnmaskRequest(tuple(sorted(votes[choice].items())))
        try:
            notes.reveals[name] = party.reveal(request, rehearsal.devices[name].identity)
        except ProtocolViolation:
            continue
    known = _known(rehearsal, notes, bad, views=views)
    return _learnable(notes.rows, known), bad, rehearsal, len(notes.reveals)
