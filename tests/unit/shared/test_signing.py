"""A signature holds for one key, purpose and payload; a certificate for one federation and time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import CERTIFICATE, Certificate, SigningKey, VerifyKey

KEY, OTHER, AUTHORITY = (SigningKey(bytes([i]) * 32) for i in (1, 2, 3))
PUBLIC = KEY.verify_key()
NOT_AFTER_S = 2_000
GOOD = Certificate.issue(AUTHORITY, PUBLIC, "choir", NOT_AFTER_S)


@pytest.mark.parametrize(
    ("key", "label", "payload"),
    [
        (OTHER.verify_key(), "a", b"x"), (PUBLIC, "b", b"x"), (PUBLIC, "a", b"y"),
        (PUBLIC, "a", b""), (PUBLIC, "", b"a\x00x"), (VerifyKey(bytes(32)), "a", b"x"),
        (VerifyKey(b"short"), "a", b"x"), (VerifyKey(b""), "a", b"x"),
    ],
)  # fmt: skip
def test_a_signature_for_anything_else_does_not_verify(key, label, payload):
    with pytest.raises(BadSignature):
        key.verify(label, payload, KEY.sign("a", b"x"))


@given(st.binary(max_size=80))
def test_random_bytes_are_no_signature(signature):
    with pytest.raises(BadSignature):
        PUBLIC.verify("a", b"x", signature)


def test_a_signature_verifies():
    PUBLIC.verify("a", b"x", KEY.sign("a", b"x"))


def test_a_key_is_its_secret_and_shows_it_to_nobody():
    key = SigningKey.generate(SystemRandomness())
    secret = key.secret_bytes()
    assert SigningKey(secret).verify_key() == key.verify_key()
    for text in (repr(key), str(key), f"{key}"):
        assert text == "SigningKey(secret)"
    assert SigningKey.generate(SystemRandomness()).verify_key() != key.verify_key()


def test_a_certificate_that_holds():
    GOOD.check(AUTHORITY.verify_key(), "choir", NOT_AFTER_S)
    assert GOOD.device_id == PUBLIC.name
    assert Certificate.from_plain(GOOD.to_plain()) == GOOD


@pytest.mark.parametrize(
    ("certificate", "authority", "federation", "now_s"),
    [
        (GOOD, OTHER, "choir", 0), (GOOD, AUTHORITY, "band", 0),
        (GOOD, AUTHORITY, "choir", NOT_AFTER_S + 1),
        (replace(GOOD, device_key=OTHER.verify_key()), AUTHORITY, "choir", 0),
        (replace(GOOD, not_after_s=9_999), AUTHORITY, "choir", 0),
        (replace(GOOD, federation="band"), AUTHORITY, "band", 0),
        (replace(GOOD, signature=bytes(64)), AUTHORITY, "choir", 0),
        # The device's own word is not the authority's.
        (Certificate.issue(KEY, PUBLIC, "choir", NOT_AFTER_S), AUTHORITY, "choir", 0),
    ],
)  # fmt: skip
def test_a_certificate_that_does_not_hold(certificate, authority, federation, now_s):
    with pytest.raises(BadSignature):
        certificate.check(authority.verify_key(), federation, now_s)


def test_a_signature_of_the_authority_for_another_purpose_is_no_certificate():
    forged = replace(GOOD, signature=AUTHORITY.sign("other", GOOD._body()))
    assert AUTHORITY.sign(CERTIFICATE, GOOD._body()) == GOOD.signature
    with pytest.raises(BadSignature):
        forged.check(AUTHORITY.verify_key(), "choir", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"device_key": b"short"}, {"signature": bytes(63)}, {"not_after_s": 1.0},
        {"not_after_s": True}, {"federation": b"choir"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_certificate_of_another_form_is_a_bad_message(change):
    with pytest.raises(BadMessage):
        Certificate.from_plain({**GOOD.to_plain(), **change})
