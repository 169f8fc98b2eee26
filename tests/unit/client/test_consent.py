import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from chorister.client.consent import (
    PURPOSES,
    CheckFigure,
    ConsentRecord,
    Permit,
    SpokenStatement,
    consent_token,
    give,
    narrow,
    permit,
    withdraw,
)
from chorister.shared.errors import BadSignature, ConsentRefused, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import SigningKey

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(32))
SELF = KEY.verify_key().name
NOON, LATER = 1_000, 2_000


def given(key=KEY, **changes):
    terms = {
        "controller": "The Choir",
        "purposes": ["training", "conversion"],
        "given_s": NOON,
        "expires_s": LATER,
        "jurisdiction": "EU",
    }
    return give(key, **{**terms, **changes})


@pytest.fixture
def ledger(tmp_path):
    return LedgerFile(
        tmp_path / "ledger.jsonl", owner="device", federation="choir", clock=lambda: 0
    )


def entries(ledger):
    return [json.loads(line) for line in read_lines(ledger.path)][1:]


def altered(record, **changes):
    return ConsentRecord.from_plain({**record.to_plain(), **changes})


@pytest.mark.parametrize(
    ("record", "purpose", "now_s", "reason"),
    [
        (None, "training", NOON, "no consent"),
        (given(), "speech", NOON, "covers conversion, training only"),
        (given(), "plain_export", NOON, "covers conversion, training only"),
        (given(), "training", LATER, "expired"),
        (given(), "training", NOON - 1, "after the clock's"),
        (given(OTHER), "training", NOON, "did not sign"),
        (altered(given(), **{"dpv:hasPurpose": list(PURPOSES)}), "speech", NOON, "did not sign"),
        (altered(given(), **{"chorister:expiresAt": LATER * 9}), "training", NOON, "did not sign"),
        (replace(given(OTHER), subject=SELF), "training", NOON, "did not sign"),
    ],
)
def test_a_use_that_no_consent_covers_is_refused_and_in_the_ledger(
    ledger, record, purpose, now_s, reason
):
    with pytest.raises(ConsentRefused, match=reason):
        permit(record, purpose, device=KEY.verify_key(), now_s=now_s, ledger=ledger)
    (entry,) = entries(ledger)
    assert entry["kind"] == "refusal"
    assert reason in entry["fields"]["reason"]


def test_a_withdrawn_consent_permits_nothing(ledger):
    record = given()
    withdrawal = withdraw(record, KEY, now_s=NOON + 5)
    withdrawal.check(KEY.verify_key())
    with pytest.raises(ConsentRefused, match="withdrawn at 1005"):
        permit(
            record, "training", device=KEY.verify_key(), now_s=NOON + 6, ledger=ledger,
            withdrawal=withdrawal,
        )  # fmt: skip
    with pytest.raises(BadSignature):
        withdrawal.check(OTHER.verify_key())


def test_a_granted_use_is_in_the_ledger_before_it_happens(ledger):
    granted = permit(given(), "training", device=KEY.verify_key(), now_s=NOON, ledger=ledger)
    (entry,) = entries(ledger)
    assert entry["kind"] == "consent"
    assert entry["fields"] == {
        "action": "granted", "purpose": "training", "consent": given().sha256,
    }  # fmt: skip
    granted.require("training", LATER - 1)


def test_a_clock_that_was_set_back_revives_nothing(tmp_path):
    clock = [LATER + 1]
    ledger = LedgerFile(
        tmp_path / "ledger.jsonl", owner="device", federation="choir", clock=lambda: clock[0]
    )
    ask = {"device": KEY.verify_key(), "ledger": ledger}
    with pytest.raises(ConsentRefused, match="expired"):
        permit(given(), "training", now_s=LATER + 1, **ask)
    clock[0] = LATER - 400
    for _ in range(2):
        with pytest.raises(ConsentRefused, match="clock was set back: 1600 after 2001"):
            permit(given(), "training", now_s=LATER - 400, **ask)
    assert "set back" in entries(ledger)[-1]["fields"]["reason"]
    permit(given(expires_s=LATER * 2), "training", now_s=LATER - 299, **ask)


def test_there_is_no_grant_where_the_ledger_cannot_be_written(ledger):
    ledger.path.unlink()
    ledger.path.mkdir()
    with pytest.raises(OSError, match=r"."):
        permit(given(), "training", device=KEY.verify_key(), now_s=NOON, ledger=ledger)


def test_a_permit_is_for_one_purpose_and_ends_with_the_consent(ledger):
    granted = permit(given(), "training", device=KEY.verify_key(), now_s=NOON, ledger=ledger)
    with pytest.raises(ConsentRefused, match="for 'conversion'"):
        granted.require("conversion", NOON)
    with pytest.raises(ConsentRefused, match="ends at 2000"):
        granted.require("training", LATER)


def test_a_permit_cannot_be_made_by_hand():
    with pytest.raises(TypeError, match="comes from"):
        Permit("training", "0" * 64, LATER, made_by=object())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purposes": []}, "none"),
        ({"purposes": ["training", "resale"]}, "resale"),
        ({"controller": " "}, "controller"),
        ({"expires_s": NOON}, "ends after it was given"),
    ],
)
def test_a_consent_that_says_too_little_cannot_be_given(changes, reason):
    with pytest.raises(UsageError, match=reason):
        given(**changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("dpv:hasPurpose"),
        lambda p: p.update(extra=1),
        lambda p: p.update({"dpv:hasPurpose": ["resale"]}),
        lambda p: p.update({"chorister:expiresAt": "never"}),
        lambda p: p.update({"chorister:expiresAt": True}),
        lambda p: p.update({"chorister:signature": "zz"}),
        lambda p: p.update({"chorister:statement": {"sha256": "0"}}),
        lambda p: p.update({"chorister:statement": 5}),
        lambda p: p.update({"dpv:hasLegalBasis": "eu-gdpr:A6-1-f"}),
        lambda p: p.update({"dct:identifier": "urn:another"}),
    ],
)
def test_a_document_with_other_fields_is_no_consent(change):
    plain = given().to_plain()
    change(plain)
    with pytest.raises(ConsentRefused, match=r"docs/consent\.md"):
        ConsentRecord.from_plain(plain)


def test_a_record_survives_json():
    again = ConsentRecord.from_plain(json.loads(json.dumps(given().to_plain())))
    again.check(KEY.verify_key())
    assert again == given()


FIGURE = CheckFigure("same speaker", 0.96, 0.93, "cosine", True)
SPOKEN = SpokenStatement("0" * 64, "en", True, "pocketsphinx", (FIGURE,))
SCHEMA = Path(__file__).parents[3] / "docs" / "consent.schema.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["checks"][0].update(figure="0.96"),
        lambda s: s["checks"][0].update(figure=float("nan")),
        lambda s: s["checks"][0].pop("limit"),
        lambda s: s.update(checks=[1]),
        lambda s: s.update(words_checked=1),
        lambda s: s.update(transcript="my name is"),
    ],
)
def test_a_statement_with_other_figures_is_no_part_of_a_consent(change):
    plain = given(statement=SPOKEN).to_plain()
    change(plain["chorister:statement"])
    with pytest.raises(ConsentRefused, match=r"docs/consent\.md"):
        ConsentRecord.from_plain(plain)


def test_the_statements_facts_are_signed_and_survive_json():
    record = given(statement=SPOKEN)
    again = ConsentRecord.from_plain(json.loads(json.dumps(record.to_plain())))
    again.check(KEY.verify_key())
    assert (again.statement, again.statement_sha256) == (SPOKEN, "0" * 64)
    with pytest.raises(BadSignature):
        replace(record, statement=replace(SPOKEN, words_checked=False)).check(KEY.verify_key())


@pytest.mark.parametrize("record", [given(), given(statement=SPOKEN)])
def test_a_record_meets_the_published_schema(record):
    jsonschema.validate(record.to_plain(), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("dpv:hasPurpose"),
        lambda p: p.update({"dpv:hasPurpose": []}),
        lambda p: p.update({"dpv:hasPurpose": ["resale"]}),
        lambda p: p.update({"schema:name": "Anna"}),
        lambda p: p["chorister:statement"].update(transcript="I, Anna"),
        lambda p: p.update({"chorister:signature": ""}),
    ],
)
def test_the_schema_refuses_what_is_no_record(change):
    plain = given(statement=SPOKEN).to_plain()
    change(plain)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, json.loads(SCHEMA.read_text()))


def test_narrowing_keeps_the_expiry_and_names_what_it_replaces(ledger):
    record = given()
    narrowed = narrow(record, KEY, purposes=["conversion"], now_s=NOON + 1)
    narrowed.check(KEY.verify_key())
    assert (narrowed.replaces, narrowed.expires_s) == (record.sha256, LATER)
    with pytest.raises(ConsentRefused):
        permit(narrowed, "training", device=KEY.verify_key(), now_s=NOON + 1, ledger=ledger)
    for purposes in ([], ["training", "conversion"], ["speech"]):
        with pytest.raises(UsageError, match="Narrowing keeps some"):
            narrow(record, KEY, purposes=purposes, now_s=NOON + 1)


def test_a_token_needs_a_permit_for_training_and_ends_no_later_than_it(ledger):
    allow = {"device": KEY.verify_key(), "now_s": NOON, "ledger": ledger}
    training = permit(given(), "training", **allow)
    round_terms = {"federation": "choir", "round_id": "r1", "terms_sha256": "0" * 64}
    token = consent_token(KEY, training, **round_terms, now_s=LATER - 10)
    assert token.expires_s == LATER
    token.check(KEY.verify_key())
    with pytest.raises(ConsentRefused):
        consent_token(KEY, training, **round_terms, now_s=LATER)
    conversion = permit(given(), "conversion", **allow)
    with pytest.raises(ConsentRefused, match="for 'training'"):
        consent_token(KEY, conversion, **round_terms, now_s=NOON)
