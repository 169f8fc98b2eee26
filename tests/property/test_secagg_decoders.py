"""Whatever bytes arrive: a decoder returns a message with one form, or raises an error of ours."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorister.shared.errors import BadMessage, RoundAborted
from chorister.shared.secagg.messages import (
    Advertisement,
    Inbox,
    MaskedInput,
    Reveal,
    Roster,
    RoundTerms,
    ShareBundle,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
)
from chorister.simulations.secagg_rehearsal import (
    Network,
    Rehearsal,
    rehearsal_terms,
    uniform_deltas,
)

TERMS = rehearsal_terms(4, 3)
Decoder = Callable[[bytes], Any]
DECODERS: dict[str, Decoder] = {
    "terms": RoundTerms.from_bytes,
    "advertisement": Advertisement.from_bytes,
    "roster": Roster.from_bytes,
    "bundle": ShareBundle.from_bytes,
    "inbox": Inbox.from_bytes,
    "masked": lambda data: MaskedInput.from_bytes(data, 3, 32),
    "survivors": Survivors.from_bytes,
    "vote": SurvivorVote.from_bytes,
    "unmask": UnmaskRequest.from_bytes,
    "reveal": Reveal.from_bytes,
}
ERRORS = BadMessage


def _examples() -> dict[str, bytes]:
    """Return one real message of each kind."""
    seen: dict[str, bytes] = {"terms": TERMS.to_bytes()}
    down = {"share": "roster", "mask": "inbox", "confirm": "survivors", "reveal": "unmask"}
    up = {"advertise": "advertisement", "share": "bundle", "mask": "masked", "confirm": "vote",
          "reveal": "reveal"}  # fmt: skip

    class Tap(Network):
        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            seen[down.get(stage, "terms")] = message
            return message

        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            seen[up[stage]] = message
            return message

    rehearsal = Rehearsal(TERMS, 0)
    rehearsal.run(uniform_deltas(TERMS, 0), Tap())
    return seen


EXAMPLES = _examples()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def _try(name: str, data: bytes) -> None:
    try:
        message = DECODERS[name](data)
    except ERRORS as error:
        assert len(str(error)) < 600
        return
    assert message.to_bytes() == data, "two byte strings for one message"


def test_every_kind_has_an_example_that_decodes() -> None:
    assert EXAMPLES.keys() == DECODERS.keys()
    for name, data in EXAMPLES.items():
        assert DECODERS[name](data).to_bytes() == data
        for other in DECODERS.keys() - {name}:
            with pytest.raises(ERRORS):
                DECODERS[other](data)


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.binary(max_size=300))
def test_random_bytes(name: str, data: bytes) -> None:
    _try(name, data)


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_changed_messages(name: str, data: st.DataObject) -> None:
    message = bytearray(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(message) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "repeat", "insert"]))
        if what == "flip":
            message[where] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del message[where : where + data.draw(st.integers(1, 8))]
        elif what == "repeat":
            message[where:where] = message[where : where + data.draw(st.integers(1, 40))]
        else:
            message[where:where] = data.draw(st.binary(max_size=9))
        if not message:
            break
    _try(name, bytes(message))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.binary(max_size=82)
    | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_structures_of_other_types(name: str, data: st.DataObject) -> None:
    plain = cbor2.loads(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        here = plain
        # Walk down at random and replace what is found there.
        for _ in range(data.draw(st.integers(0, 3))):
            keys = list(here) if isinstance(here, dict) else range(len(here))
            deeper = [k for k in keys if isinstance(here[k], list | dict) and here[k]]
            if not deeper:
                break
            here = here[data.draw(st.sampled_from(deeper))]
        keys = list(here) if isinstance(here, dict) else range(len(here))
        here[data.draw(st.sampled_from(list(keys)))] = data.draw(PLAIN)
    _try(name, cbor2.dumps(plain, canonical=True))


HUGE = [
    b"\x9b" + b"\x7f" + b"\xff" * 7,  # an array of 2**63 items
    b"\x9a\x80\x00\x00\x00",  # an array of 2**31 items
    b"\x5b" + b"\x7f" + b"\xff" * 7,  # a string of 2**63 bytes
    b"\x5a\x80\x00\x00\x00",  # a string of 2**31 bytes
    b"\xbb" + b"\x7f" + b"\xff" * 7,  # a map of 2**63 pairs
    b"\x9f" + b"\x9f" * 50_000,  # nested for ever
    b"\x81" * 50_000 + b"\x00",
    b"\xc2\x5a\x80\x00\x00\x00",  # a big number of 2**31 bytes
    b"\xd8\x1c\x81\xd8\x1d\x00",  # a reference to itself
]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("data", HUGE)
def test_announced_sizes_cost_no_memory(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ERRORS):
            DECODERS[name](data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_round_on_a_network_that_changes_everything_is_exact_or_aborts(
    data: st.DataObject,
) -> None:
    class Chaos(Network):
        def _change(self, message: bytes) -> bytes | None:
            fate = data.draw(st.integers(0, 30))
            if fate == 0:
                return None
            if fate == 1:
                where = data.draw(st.integers(0, len(message) - 1))
                return message[:where] + bytes([message[where] ^ 1]) + message[where + 1 :]
            return message

        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return self._change(message)

        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            return self._change(message)

    rehearsal, deltas = Rehearsal(TERMS, 0), uniform_deltas(TERMS, 0)
    try:
        aggregate = rehearsal.run(deltas, Chaos())
    except RoundAborted:
        return
    names = [rehearsal.name_of(device) for device in aggregate.survivors]
    assert (aggregate.values == sum(deltas[name] for name in names)).all()
