"""The invitation: what is signed, what is refused."""

from dataclasses import replace

import cbor2
import pytest

from chorister.shared import codec
from chorister.shared.enrolment import EnrolmentToken
from chorister.shared.errors import BadMessage, BadSignature
from chorister.shared.invite import Invite, ModelRelease
from chorister.shared.settings import Federation
from chorister.shared.signing import SigningKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

SPEC = SharedAdapterSpec(2, "harmonic")
AUTHORITY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))


def made(**changed):
    fields = {
        "federation": "choir", "authority": AUTHORITY.verify_key(), "server": "127.0.0.1:9092",
        "root_certificate": "",
        "release": ModelRelease.sign(AUTHORITY, "choir", "a" * 64, SPEC, 10),
        "bundles": ("b" * 64,), "least_cohort": 4, "least_honest": 3,
        "terms": Federation(name="choir"), "issued_s": 10, "expires_s": 100, "token": None,
    }  # fmt: skip
    return Invite(**(fields | changed))


def altered(invite, **changed):
    return Invite.from_bytes(codec.encode(cbor2.loads(invite.to_bytes()) | changed))


def test_it_comes_back_and_checks():
    token = EnrolmentToken("choir", AUTHORITY.verify_key(), bytes(32), 90)
    for invite in (made().signed(AUTHORITY), made(token=token).signed(AUTHORITY)):
        again = Invite.from_bytes(invite.to_bytes())
        again.check(100)
        assert again == invite
        assert bytes(32).hex() not in repr(again)


@pytest.mark.parametrize(
    "changed",
    [
        {"server": "127.0.0.1:9093"}, {"bundles": ["c" * 64]}, {"least_cohort": 5},
        {"expires_s": 10**6}, {"issued_s": 1}, {"signature": bytes(64)},
        {"authority": OTHER.verify_key().raw},
        {"terms": Federation(name="choir", rounds=3).model_dump(mode="json")},
    ],
)  # fmt: skip
def test_whatever_is_altered_is_noticed(changed):
    with pytest.raises(BadSignature):
        altered(made().signed(AUTHORITY), **changed).check(50)


def test_a_release_or_a_token_of_others_is_refused():
    other = ModelRelease.sign(OTHER, "choir", "a" * 64, SPEC, 10)
    with pytest.raises(BadSignature):
        made(release=other).signed(AUTHORITY)
    with pytest.raises(BadSignature, match="'choir'"):
        made(release=ModelRelease.sign(AUTHORITY, "quire", "a" * 64, SPEC, 10)).signed(AUTHORITY)
    token = EnrolmentToken("quire", AUTHORITY.verify_key(), bytes(32), 90)
    with pytest.raises(BadSignature, match="token"):
        made(token=token).signed(AUTHORITY)


def test_it_is_answered_between_its_begin_and_its_end():
    invite = made(issued_s=1_000, expires_s=2_000).signed(AUTHORITY)
    for now_s, what in [(2_001, "ended"), (600, "clock")]:
        with pytest.raises(BadSignature, match=what):
            invite.check(now_s)
    invite.check(800)  # a clock may be a little slow


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"format": 2}, "Update Chorister"),
        ({"format": 0}, "format 1"),
        ({"server": "https://x:1"}, "HOST:PORT"),
        ({"server": "x:0"}, "HOST:PORT"),
        ({"server": "x:65536"}, "HOST:PORT"),
        ({"server": "example.org:443"}, "root certificate"),
        ({"root_certificate": "-----BEGIN CERTIFICATE-----"}, "in PEM"),
        ({"root_certificate": "x" * 17_000}, "at most"),
        ({"bundles": []}, "bundles"),
        ({"bundles": ["x"]}, "bundles"),
        ({"bundles": ["b" * 64] * 9}, "bundles"),
        ({"least_cohort": 1}, "2 to 4096"),
        ({"least_honest": 9}, "2 to 4096"),
        ({"expires_s": 10}, "ends after"),
        ({"federation": "quire"}, "own federation"),
        ({"federation": ""}, "1 to 64"),
        ({"authority": b""}, "32 bytes"),
        ({"terms": {"rounds": 0}}, "rounds"),
        ({"terms": {"surprise": 1}}, "known keys"),
        ({"token": "x"}, "token"),
        ({"extra": 1}, "fields"),
    ],
)  # fmt: skip
def test_what_is_no_invitation_is_refused_before_anything_is_verified(changed, what):
    with pytest.raises(BadMessage, match=what):
        altered(made().signed(AUTHORITY), **changed)


def test_a_large_file_is_refused_unread():
    with pytest.raises(BadMessage, match="at most"):
        Invite.from_bytes(bytes(65 * 2**10))


def test_a_release_names_its_layout_in_what_is_signed():
    release = ModelRelease.sign(AUTHORITY, "choir", "a" * 64, SPEC, 10)
    assert ModelRelease.from_plain(release.to_plain()).spec == SPEC
    for other in (SharedAdapterSpec(3, "harmonic"), SharedAdapterSpec(2, "noise")):
        with pytest.raises(BadSignature):
            replace(release, spec=other).check(AUTHORITY.verify_key(), "choir")
    plain = release.to_plain()
    for changed in (
        {"adapter_rank": 9}, {"adapter_placement": "none"}, {"base_sha256": "x"}, {"signature": b""}
    ):  # fmt: skip
        with pytest.raises(BadMessage):
            ModelRelease.from_plain(plain | changed)
