"""Masks cancel, cover every bit of the modulus, and are AES-256-CTR as published."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared.errors import BadMessage
from chorister.shared.randomness import expand
from chorister.shared.secagg.keys import (
    AgreementKey,
    Binding,
    commit_seed,
    commit_share,
    open_sealed,
    seal,
)
from chorister.shared.secagg.masks import MaskedSum, centred, expand_mask, residues
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.packing import pack, unpack
from chorister.shared.types import MaskedDelta

# NIST SP 800-38A, F.5.5 has another counter; this is the key stream of a zero counter for its key,
# that is AES-256-ECB of block 0 and 1, computed with OpenSSL.
KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")


@pytest.mark.parametrize("dimension", [1, 3, 4, 5, 65_535, 65_536, 65_537, 200_001])
def test_masks_of_any_length_are_the_key_stream(dimension: int) -> None:
    stream = np.frombuffer(expand(KEY, 4 * dimension), dtype="<u4")
    assert np.array_equal(expand_mask(KEY, dimension, 32), stream)
    assert np.array_equal(expand_mask(KEY, dimension, 17), stream & (2**17 - 1))


def test_a_mask_added_and_subtracted_is_gone() -> None:
    total = MaskedSum(70_000)
    values = np.arange(70_000, dtype=np.uint32)
    total.add(values)
    total.add_mask(KEY)
    assert not np.array_equal(total.reduced(32), values)
    total.subtract_mask(KEY)
    assert np.array_equal(total.reduced(32), values)
    assert str(values[5]) not in repr(total)


def test_masks_use_every_bit() -> None:
    mask = expand_mask(KEY, 20_000, 32)
    ones = [(mask >> np.uint32(bit) & np.uint32(1)).mean() for bit in range(32)]
    # Standard deviation 0.0035 each.
    assert all(abs(share - 0.5) < 0.02 for share in ones)


@pytest.mark.parametrize("bits", [16, 17, 23, 31, 32])
def test_signed_values_survive_the_modulus(bits: int) -> None:
    half = 2 ** (bits - 1)
    values = np.array([-half, -1, 0, 1, half - 1])
    assert np.array_equal(centred(residues(values, bits), bits), values)
    # A value outside wraps around.
    assert centred(residues(np.array([half]), bits), bits)[0] == -half


@pytest.mark.parametrize("bits", [16, 17, 20, 31, 32])
@pytest.mark.parametrize("dimension", [1, 2, 7, 8, 100])
def test_packing_is_reversible_and_has_one_form(bits: int, dimension: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, dimension, dtype=np.uint32)
    packed = pack(MaskedDelta(values, bits))
    assert len(packed) == (dimension * bits + 7) // 8
    assert np.array_equal(unpack(packed, dimension, bits).values, values)
    if dimension * bits % 8:
        with pytest.raises(BadMessage, match="Spare"):
            unpack(packed[:-1] + bytes([packed[-1] | 0x80]), dimension, bits)


def test_sets_of_devices_have_one_form() -> None:
    for indices in ((), (0,), (7,), (8,), (4095,), (1, 2, 300)):
        members = Members.of(indices)
        assert Members.from_bytes(members.to_bytes()) == members
        assert list(members) == sorted(indices)
    for bad in (b"\x00", b"\x01\x00", bytes(512) + b"\x01", "x", None, 3):
        with pytest.raises(BadMessage):
            Members.from_bytes(bad)


def test_both_sides_agree_and_nothing_else_does() -> None:
    a, b, c = (AgreementKey(bytes([i]) * 32) for i in (1, 2, 3))
    terms, context, low, high = (bytes([i]) * 32 for i in (4, 5, 6, 7))
    binding = Binding(terms, context)
    seed = binding.mask_seed(a.agree(b.public()), low, high)
    assert seed == binding.mask_seed(b.agree(a.public()), low, high)
    others = {
        binding.mask_seed(a.agree(c.public()), low, high),
        binding.mask_seed(a.agree(b.public()), high, low),
        binding.sealing_key(a.agree(b.public()), low, high),
        Binding(context, context).mask_seed(a.agree(b.public()), low, high),
        Binding(terms, terms).mask_seed(a.agree(b.public()), low, high),
    }
    assert len(others) == 5
    assert seed not in others
    assert "01" * 8 not in repr(a)


@pytest.mark.parametrize("low_order", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_low_order_is_refused(low_order: bytes) -> None:
    with pytest.raises(BadMessage, match="order"):
        AgreementKey(bytes([1]) * 32).agree(low_order)


def test_sealed_shares_open_unchanged_only() -> None:
    sealed = seal(KEY, b"x" * 66)
    assert len(sealed) == 82
    assert open_sealed(KEY, sealed) == b"x" * 66
    for i in (0, 65, 66, 81):
        changed = sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :]
        with pytest.raises(BadMessage, match="open"):
            open_sealed(KEY, changed)
    with pytest.raises(BadMessage):
        open_sealed(bytes(32), sealed)


def test_commitments_bind_everything_that_they_name() -> None:
    a, b = bytes(32), bytes([1]) * 32
    seeds = {commit_seed(*three) for three in ((a, a, a), (b, a, a), (a, b, a), (a, a, b))}
    assert len(seeds) == 4
    variants = [
        ("seed", a, 1, 2, bytes(33)), ("key", a, 1, 2, bytes(33)), ("seed", b, 1, 2, bytes(33)),
        ("seed", a, 2, 2, bytes(33)), ("seed", a, 1, 3, bytes(33)),
        ("seed", a, 1, 2, b"\x01" + bytes(32)),
    ]  # fmt: skip
    assert len({commit_share(*v) for v in variants}) == 6
