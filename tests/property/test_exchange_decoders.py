"""Whatever bytes arrive around the aggregation: a message with one form, or an error of ours."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorister.server.revocations import RevocationList
from chorister.shared import codec
from chorister.shared.enrolment import (
    TOKEN_PREFIX,
    ConsentToken,
    EnrolmentToken,
    PossessionProof,
    Withdrawal,
    WithdrawalNotice,
)
from chorister.shared.errors import ChoristerError
from chorister.shared.exchanges import (
    CHALLENGE_BYTES,
    Application,
    Assignment,
    Introduction,
    Invitation,
    RoundTask,
)
from chorister.shared.invite import Invite, ModelRelease
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Federation, SegmentPrivacy, TrainingTask
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

KEY = SigningKey(bytes(32))
WITNESS = Checkpoint.sign(KEY, "a" * 64, 3, "b" * 64)
TASK = RoundTask(training=TrainingTask(), segment_privacy=SegmentPrivacy())
CERTIFICATE = Certificate.issue(KEY, KEY.verify_key(), "choir", 2_000_000_000)
TOKEN = ConsentToken.sign(
    KEY, federation="choir", round_id="run/1", terms_sha256="a" * 64, consent_sha256="b" * 64,
    expires_s=2_000_000_000,
)  # fmt: skip
ENROLMENT = EnrolmentToken("choir", KEY.verify_key(), bytes(32), 2_000_000_000)
NODE = NodeKey.generate(SystemRandomness())
INVITE = Invite(
    "choir", KEY.verify_key(), "127.0.0.1:9092", "",
    ModelRelease.sign(KEY, "choir", "a" * 64, SharedAdapterSpec(), 1),
    ("b" * 64,), 2, 2, Federation(name="choir"), 1, 2_000_000_000, ENROLMENT,
).signed(KEY)  # fmt: skip
EXAMPLES: dict[str, bytes] = {
    "consent token": TOKEN.to_bytes(),
    "possession": PossessionProof.make(KEY, "choir", bytes(32), NODE.public_bytes()).to_bytes(),
    "notice": WithdrawalNotice(CERTIFICATE, Withdrawal.sign(KEY, "b" * 64, 5)).to_bytes(),
    "revoked": RevocationList.sign(KEY, "choir", ["0" * 16, "1" * 16], 5).to_bytes(),
    "invite": INVITE.to_bytes(),
    "admission": NodeAdmission.sign(
        KEY, "choir", "0" * 16, NODE.public_bytes(), issued_s=1, not_after_s=5
    ).to_bytes(),
    "introduction": Introduction.make(KEY, CERTIFICATE, bytes(CHALLENGE_BYTES)).to_bytes(),
    "invitation": Invitation(b"terms", TASK, WITNESS).to_bytes(),
    "application": Application(b"advertisement", b"token").to_bytes(),
    "assignment": Assignment(b"inbox", Adapter(np.ones(3, np.float32), "spec")).to_bytes(),
}
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "consent token": ConsentToken.from_bytes,
    "possession": PossessionProof.from_bytes,
    "notice": WithdrawalNotice.from_bytes,
    "revoked": RevocationList.from_bytes,
    "invite": Invite.from_bytes,
    "admission": NodeAdmission.from_bytes,
    "introduction": Introduction.from_bytes,
    "invitation": Invitation.from_bytes,
    "application": Application.from_bytes,
    "assignment": Assignment.from_bytes,
}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=70)
    | st.binary(max_size=70)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=8,
)


def _try(name: str, data: bytes) -> None:
    try:
        DECODERS[name](data)
    except ChoristerError as error:
        assert len(str(error)) < 1000, "a peer chose too much of this error"


@pytest.mark.parametrize("name", DECODERS)
def test_every_kind_has_an_example_that_decodes(name: str) -> None:
    assert DECODERS[name](EXAMPLES[name]).to_bytes() == EXAMPLES[name]


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.binary(max_size=200))
def test_random_bytes(name: str, data: bytes) -> None:
    _try(name, data)


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_a_changed_byte(name: str, data: st.DataObject) -> None:
    example = EXAMPLES[name]
    at = data.draw(st.integers(0, len(example) - 1))
    changed = example[:at] + bytes([data.draw(st.integers(0, 255))]) + example[at + 1 :]
    _try(name, changed)
    _try(name, changed[: data.draw(st.integers(0, len(changed)))])


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(data=st.data())
def test_a_field_of_another_value(name: str, data: st.DataObject) -> None:
    """Replace one field, at the top or within a table, by anything that CBOR can say."""
    plain = cbor2.loads(EXAMPLES[name])
    table = plain
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        if not isinstance(table[key], dict) or not table[key] or data.draw(st.booleans()):
            break
        table = table[key]
    table[key] = data.draw(VALUES)
    _try(name, codec.encode(plain))


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_too_large_is_refused_unread(name: str) -> None:
    with pytest.raises(ChoristerError):
        DECODERS[name](codec.encode({"federation": b"x" * 2**24}))


def _try_token(text: str) -> None:
    try:
        EnrolmentToken.from_text(text)
    except ChoristerError as error:
        assert len(str(error)) < 1000, "a peer chose too much of this error"


def test_an_enrolment_token_decodes_and_a_long_line_is_refused() -> None:
    assert EnrolmentToken.from_text(ENROLMENT.to_text()) == ENROLMENT
    with pytest.raises(ChoristerError):
        EnrolmentToken.from_text(TOKEN_PREFIX + "A" * 10**6)


@QUICK
@given(body=st.text(max_size=200), cut=st.integers(0, 400), at=st.integers(0, 400))
def test_an_enrolment_token_of_any_text(body: str, cut: int, at: int) -> None:
    _try_token(body)
    _try_token(TOKEN_PREFIX + body)
    whole = ENROLMENT.to_text()
    _try_token(whole[:cut])
    _try_token(whole[:at] + body[:3] + whole[at + 1 :])


@QUICK
@given(plain=st.data())
def test_an_enrolment_token_with_a_field_of_another_value(plain: st.DataObject) -> None:
    fields = {
        "federation": "choir", "authority": KEY.verify_key().raw, "challenge": bytes(32),
        "expires_s": 5,
    }  # fmt: skip
    fields[plain.draw(st.sampled_from(sorted(fields)))] = plain.draw(VALUES)
    body = base64.urlsafe_b64encode(codec.encode(fields)).decode().rstrip("=")
    _try_token(TOKEN_PREFIX + body)
