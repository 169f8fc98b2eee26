import json
from dataclasses import replace

import pytest

from chorister.server.admission import MAX_TOKEN_LIFE_S, Admission
from chorister.shared.enrolment import ConsentToken
from chorister.shared.errors import BadMessage, BadSignature, ConsentRefused, ProtocolViolation
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import Certificate, SigningKey, VerifyKey

AUTHORITY = SigningKey(bytes(range(32)))
DEVICE = SigningKey(bytes(range(1, 33)))
STRANGER = SigningKey(bytes(range(2, 34)))
NOW = 1_000


def certificate(authority=AUTHORITY, federation="choir", not_after_s=NOW):
    return Certificate.issue(authority, DEVICE.verify_key(), federation, not_after_s)


def token(key=DEVICE, **changes):
    claims = {
        "federation": "choir",
        "round_id": "r1",
        "terms_sha256": "a" * 64,
        "consent_sha256": "c" * 64,
        "expires_s": NOW + 60,
    }
    return ConsentToken.sign(key, **{**claims, **changes})


@pytest.fixture
def ledger(tmp_path):
    return LedgerFile(
        tmp_path / "ledger.jsonl", owner="server", federation="choir", clock=lambda: NOW
    )


def door(ledger, **changes):
    rules = {
        "authority": AUTHORITY.verify_key(),
        "federation": "choir",
        "round_id": "r1",
        "terms_sha256": "a" * 64,
        "revoked": frozenset(),
        "withdrawn": frozenset(),
    }
    return Admission(**{**rules, **changes}, ledger=ledger)


def entries(ledger):
    return [json.loads(line) for line in read_lines(ledger.path)][1:]


@pytest.mark.parametrize(
    ("shown", "presented", "error", "reason"),
    [
        (certificate(STRANGER), token(), BadSignature, "does not verify"),
        (certificate(federation="other"), token(), BadSignature, "'other'"),
        (certificate(not_after_s=NOW - 1), token(), BadSignature, "ended at 999"),
        (replace(certificate(), not_after_s=NOW * 9), token(), BadSignature, "does not verify"),
        (certificate(), token(STRANGER), BadSignature, "did not sign"),
        (certificate(), replace(token(), expires_s=NOW + 90), BadSignature, "did not sign"),
        (certificate(), token(round_id="r0"), ProtocolViolation, "round 'r0'"),
        (certificate(), token(federation="other"), ProtocolViolation, "of 'other'"),
        (certificate(), token(terms_sha256="b" * 64), ProtocolViolation, "other terms"),
        (certificate(), token(expires_s=NOW), ConsentRefused, "ends 0 s from now"),
        (certificate(), token(expires_s=NOW + MAX_TOKEN_LIFE_S + 1), ConsentRefused, "3601 s"),
    ],
)
def test_a_device_without_a_valid_consent_token_stays_out(ledger, shown, presented, error, reason):
    with pytest.raises(error, match=reason):
        door(ledger).admit(shown, presented, NOW)
    (entry,) = entries(ledger)
    assert (entry["kind"], entry["fields"]["round"]) == ("refusal", "r1")


@pytest.mark.parametrize("why", ["revoked", "withdrawn"])
def test_a_revoked_or_withdrawn_device_stays_out(ledger, why):
    device_id = DEVICE.verify_key().name
    with pytest.raises(ConsentRefused, match=why):
        door(ledger, **{why: {device_id}}).admit(certificate(), token(), NOW)
    assert entries(ledger)[0]["kind"] == "refusal"


def test_a_token_admits_once(ledger):
    round_door = door(ledger)
    assert round_door.admit(certificate(), token(), NOW) == DEVICE.verify_key().name
    with pytest.raises(ProtocolViolation, match="second use"):
        round_door.admit(certificate(), token(), NOW)
    assert [entry["kind"] for entry in entries(ledger)] == ["admission", "refusal"]


def test_the_ledger_holds_what_anyone_needs_to_check_the_devices_word(ledger):
    door(ledger).admit(certificate(), token(), NOW)
    said = entries(ledger)[0]["fields"]
    ConsentToken(
        "choir", said["round"], said["terms"], said["consent"], said["expires_s"],
        bytes.fromhex(said["signature"]),
    ).check(VerifyKey(bytes.fromhex(said["device_key"])))  # fmt: skip


def test_a_long_reason_that_a_peer_chose_is_cut_in_the_ledger(ledger):
    with pytest.raises(ProtocolViolation):
        door(ledger).admit(certificate(), token(round_id="x" * 10_000), NOW)
    assert len(entries(ledger)[0]["fields"]["reason"]) == 200


def test_a_token_survives_its_bytes_and_other_bytes_are_refused():
    assert ConsentToken.from_bytes(token().to_bytes()) == token()
    for plain in (
        None,
        {},
        {**token().to_plain(), "extra": 1},
        {**token().to_plain(), "expires_s": 1.0},
    ):
        with pytest.raises(BadMessage):
            ConsentToken.from_plain(plain)
    with pytest.raises(BadMessage, match="64 bytes"):
        ConsentToken.from_plain({**token().to_plain(), "signature": b"short"})
