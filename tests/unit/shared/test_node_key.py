"""The key of a device's connection, and the authority's admission of it."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.node_key import ORDER, NodeAdmission, NodeKey, node_public
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey

AUTHORITY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
KEY = NodeKey.generate(SystemRandomness())


def admission(**changed):
    fields = {"federation": "choir", "device_id": "a" * 16, "node_key": KEY.public_bytes()}
    return NodeAdmission.sign(AUTHORITY, **(fields | changed), issued_s=1, not_after_s=100)


def test_a_key_comes_back_from_its_bytes_and_shows_nothing():
    again = NodeKey(KEY.secret_bytes())
    assert again.public_bytes() == KEY.public_bytes()
    assert KEY.secret_bytes().hex() not in repr(KEY)


@pytest.mark.parametrize("secret", [b"", bytes(48), ORDER.to_bytes(48, "big"), bytes(47)])
def test_no_key_is_refused(secret):
    with pytest.raises(BadMessage, match="on P-384"):
        NodeKey(secret)


@pytest.mark.parametrize(
    "raw",
    [b"", bytes(49), b"\x02" + b"\xff" * 48, KEY.public_bytes() + b"x"],
    # A random key is no name: processes that share the tests out must see the same ones.
    ids=["empty", "zeros", "beyond the field", "a byte too long"],
)
def test_what_is_no_point_is_no_public_key(raw):
    with pytest.raises(BadMessage, match="point of P-384"):
        node_public(raw)
    with pytest.raises(BadMessage, match="point of P-384"):
        admission(node_key=raw)


def test_the_server_gets_the_key_in_flowers_two_forms():
    found = NodeAdmission.from_bytes(admission().to_bytes())
    found.check(AUTHORITY.verify_key(), "choir", 100)
    assert load_ssh_public_key(found.ssh_line().encode()) == node_public(KEY.public_bytes())
    assert load_pem_public_key(found.pem()) == node_public(KEY.public_bytes())


def test_an_admission_by_others_to_others_or_after_its_end_is_refused():
    found = admission()
    for authority, federation, now_s in [
        (OTHER, "choir", 1), (AUTHORITY, "other", 1), (AUTHORITY, "choir", 101),
    ]:  # fmt: skip
        with pytest.raises(BadSignature):
            found.check(authority.verify_key(), federation, now_s)
    for changed in ({"device_id": "b" * 16}, {"issued_s": 2}, {"not_after_s": 101}):
        swapped = replace(found, **changed)
        with pytest.raises(BadSignature):
            swapped.check(AUTHORITY.verify_key(), "choir", 1)
