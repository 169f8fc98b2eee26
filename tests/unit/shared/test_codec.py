"""One spelling for every message, and no other exception than BadMessage whatever the bytes."""

from __future__ import annotations

import contextlib
import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorister.shared import codec
from chorister.shared.errors import BadMessage

NOT_PLAIN = [
    b"", b"\x00\x00", b"\xa1\x01\x02", b"\xf7", b"\xe0", b"\xff", b"\x9f\xff", b"\xbf\xff",
    b"\x5f\x41a\xff", b"\x18\x01", b"\x1b" + bytes(8), b"\xfb" + bytes(8), b"\xfa\x00\x00\x00\x00",
    b"\x62a", b"\x61\xff", b"\xa2\x61b\x00\x61a\x00", b"\xa2\x61a\x00\x61a\x00", b"\x78\x01a",
    b"\x9b" + b"\xff" * 8, b"\x5b" + b"\xff" * 8, b"\xa1\x80\x00", b"\xa1\xf6\x00",
]  # fmt: skip
TAGGED = [
    b"\xc0\x74" + b"2013-03-21T20:04:00Z", b"\xc1\x00", b"\xc2\x49\x01" + bytes(8),
    b"\xc3\x49\x01" + bytes(8), b"\xc4\x82\x20\x0f", b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",
    b"\xd8\x1e\x82\x01\x00", b"\xd8\x1c\x81\xd8\x1d\x00", b"\xd8\x23\x61(",
    b"\xd8\x25\x50" + bytes(16),
    b"\xd9\x01\x02\x80", b"\xd9\xd9\xf7\x00", b"\xd8\x18\x41\x00", b"\xd9\x12\x34\x00",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text("abcé"), inner), max_leaves=12
)


@pytest.mark.parametrize("data", [*NOT_PLAIN, *TAGGED])
def test_another_spelling_a_tag_or_garbage_is_refused(data):
    with pytest.raises(BadMessage):
        codec.decode(data)


@pytest.mark.parametrize("depth", [33, 60, 330, 340, 900, 5000, 100_000])
@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a"])
def test_depth_is_refused_long_before_the_stack_ends(opening, depth):
    with pytest.raises(BadMessage):
        codec.decode(opening * depth + b"\x00")


def test_what_is_nested_as_deeply_as_a_message_ever_is_passes():
    value = 0
    for _ in range(30):
        value = [value]
    assert codec.decode(codec.encode(value)) == value


def test_a_message_that_is_too_long_is_not_even_looked_at():
    data = codec.encode(b"x" * 100)
    with pytest.raises(BadMessage, match="at most 50 bytes"):
        codec.decode(data, max_bytes=50)


@given(plain)
def test_what_is_encoded_comes_back_and_has_one_spelling(value):
    data = codec.encode(value)
    back = codec.decode(data)
    assert codec.encode(back) == data
    assert repr(back) == repr(value) or isinstance(value, dict | list)


@given(st.binary(max_size=40))
def test_random_bytes_are_plain_data_or_bad_messages(data):
    try:
        value = codec.decode(data)
    except BadMessage:
        return
    assert codec.encode(value) == data


@given(plain, st.data())
def test_a_flipped_bit_is_another_value_or_a_bad_message(value, data):
    good = codec.encode(value)
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    with contextlib.suppress(BadMessage):
        assert codec.encode(codec.decode(bytes(bad))) == bytes(bad)


@given(st.integers(0, 1000), st.binary(max_size=12))
def test_no_tag_passes_whatever_it_holds(tag, content):
    for data in (cbor2.dumps(cbor2.CBORTag(tag, content)), cbor2.dumps(cbor2.CBORTag(tag, [1, 2]))):
        with pytest.raises(BadMessage):
            codec.decode(data)


def test_items_are_counted_before_anything_is_built():
    most = b"\x9a" + codec.MAX_ITEMS.to_bytes(4, "big") + bytes(codec.MAX_ITEMS)
    tracemalloc.start()
    try:
        for items in (codec.MAX_ITEMS, 2**24):
            with pytest.raises(BadMessage, match="items"):
                codec.decode(b"\x9a" + items.to_bytes(4, "big") + bytes(items))
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < 2**20 + 2 * items  # the message itself, twice
    finally:
        tracemalloc.stop()
    one_less = codec.MAX_ITEMS - 1
    assert len(codec.decode(b"\x9a" + one_less.to_bytes(4, "big") + most[-one_less:])) == one_less


def test_a_fraction_of_two_large_numbers_is_not_reduced():
    # Reduced to lowest terms, these two would take hours.
    number = b"\xc2\x5a" + (8 * 2**20).to_bytes(4, "big") + b"\x03" * (8 * 2**20)
    with pytest.raises(BadMessage, match="tag"):
        codec.decode(b"\xd8\x1e\x82" + number + number)
    with pytest.raises(BadMessage, match="tag"):
        codec.decode(b"\x81\xd8\x1e\x82" + number + number)


def test_order_of_keys_does_not_matter_for_a_digest():
    assert codec.digest({"a": 1, "b": 2}) == codec.digest({"b": 2, "a": 1})
    assert codec.digest({"a": 1}) != codec.digest({"a": 1.0})
    assert len(codec.digest(None)) == 64


KINDS = {"n": int, "b": bytes}


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"n": 1}, {"n": 1, "b": b"", "c": 0}, {"n": True, "b": b""}, {"n": 1, "b": ""}],
)
def test_other_fields_or_types_are_refused(value):
    with pytest.raises(BadMessage, match=r"has the fields n \(int\), b \(bytes\)"):
        codec.fields(value, KINDS, "A thing")


def test_the_stated_fields_pass():
    assert codec.fields({"b": b"x", "n": 1}, KINDS, "A thing") == {"n": 1, "b": b"x"}
