import json

import pytest

from chorister.server.authority import CHALLENGE_LIFE_S, Authority
from chorister.shared.enrolment import PossessionProof
from chorister.shared.errors import BadSignature, UsageError
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey

RANDOMNESS = SystemRandomness()
AUTHORITY = SigningKey(bytes(range(32)))
DEVICE = SigningKey(bytes(range(1, 33)))
STRANGER = SigningKey(bytes(range(2, 34)))


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority.json", AUTHORITY, "choir")


def enrolled(authority, key=DEVICE):
    proof = PossessionProof.make(key, "choir", authority.challenge(RANDOMNESS, 100))
    return authority.issue(proof, now_s=100, life_s=1_000)


def test_a_device_that_does_not_hold_its_key_gets_no_certificate(authority):
    challenge = authority.challenge(RANDOMNESS, 100)
    forged = PossessionProof.make(STRANGER, "choir", challenge)
    forged = PossessionProof(DEVICE.verify_key(), "choir", challenge, forged.signature)
    with pytest.raises(BadSignature, match="proof of possession"):
        authority.issue(forged, now_s=100, life_s=1_000)
    assert authority.devices() == ()


def test_a_challenge_is_good_once_and_for_a_day_and_only_if_the_authority_made_it(authority):
    challenge = authority.challenge(RANDOMNESS, 100)
    late = PossessionProof.make(DEVICE, "choir", challenge)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(late, now_s=101 + CHALLENGE_LIFE_S, life_s=1_000)
    authority.issue(late, now_s=100 + CHALLENGE_LIFE_S, life_s=1_000)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(late, now_s=101, life_s=1_000)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(
            PossessionProof.make(DEVICE, "choir", bytes(32)), now_s=101, life_s=1_000
        )  # fmt: skip


def test_a_proof_for_another_federation_is_refused(authority):
    proof = PossessionProof.make(DEVICE, "other", authority.challenge(RANDOMNESS, 100))
    with pytest.raises(BadSignature, match="enrols for 'choir'"):
        authority.issue(proof, now_s=100, life_s=1_000)


def test_the_certificate_is_the_authoritys_and_names_no_one(authority):
    certificate = enrolled(authority)
    certificate.check(AUTHORITY.verify_key(), "choir", 1_100)
    assert certificate.device_id == DEVICE.verify_key().name
    with pytest.raises(BadSignature):
        certificate.check(STRANGER.verify_key(), "choir", 1_100)
    with pytest.raises(BadSignature, match="has not ended"):
        certificate.check(AUTHORITY.verify_key(), "choir", 1_101)


def test_a_revoked_device_stays_revoked_and_gets_no_new_certificate(authority, tmp_path):
    device_id = enrolled(authority).device_id
    authority.revoke(device_id, now_s=200)
    authority.revoke(device_id, now_s=300)
    reopened = Authority(tmp_path / "authority.json", AUTHORITY, "choir")
    assert reopened.revoked() == {device_id}
    assert reopened.devices()[0].revoked_s == 200
    with pytest.raises(BadSignature, match="revoked device key"):
        enrolled(reopened)
    with pytest.raises(UsageError, match="known device"):
        reopened.revoke("nobody", now_s=300)


def test_a_certificate_that_lasts_no_time_is_refused(authority):
    proof = PossessionProof.make(DEVICE, "choir", authority.challenge(RANDOMNESS, 100))
    with pytest.raises(UsageError, match="more than 0 s"):
        authority.issue(proof, now_s=100, life_s=0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 1}'])
def test_a_damaged_file_is_refused(authority, tmp_path, content):
    enrolled(authority)
    (tmp_path / "authority.json").write_bytes(content)
    with pytest.raises(UsageError, match="something else"):
        Authority(tmp_path / "authority.json", AUTHORITY, "choir")


def test_another_authoritys_file_is_refused(authority, tmp_path):
    enrolled(authority)
    with pytest.raises(UsageError, match="federation 'other'"):
        Authority(tmp_path / "authority.json", AUTHORITY, "other")
    with pytest.raises(UsageError, match=STRANGER.verify_key().name):
        Authority(tmp_path / "authority.json", STRANGER, "choir")


def test_the_file_holds_no_secret_and_forgets_expired_challenges(authority, tmp_path):
    authority.challenge(RANDOMNESS, 0)
    proof = PossessionProof.make(DEVICE, "choir", authority.challenge(RANDOMNESS, 100_000))
    authority.issue(proof, now_s=100_000, life_s=1)
    content = (tmp_path / "authority.json").read_text()
    assert AUTHORITY.secret_bytes().hex() not in content
    assert json.loads(content)["challenges"] == {}
