"""What server and device say around the aggregation: round trips, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSettings
from chorister.shared.exchanges import Application, Assignment, Invitation, RoundTask
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.settings import SegmentPrivacy, TrainingTask
from chorister.shared.signing import SigningKey
from chorister.shared.types import Adapter

TASK = RoundTask(training=TrainingTask(learning_rate=2.0), segment_privacy=SegmentPrivacy())
WITNESS = Checkpoint.sign(SigningKey(bytes(32)), "a" * 64, 3, "d" * 64)
INVITATION = Invitation(b"terms", TASK, WITNESS)
APPLICATION = Application(b"advertisement", b"token")
VALUES = np.array([0.5, -0.0, 1e-40, 3.4e38], np.float32)
ASSIGNMENT = Assignment(b"inbox", Adapter(VALUES, "s" * 64))


@pytest.mark.parametrize("task", [TASK, RoundTask(training=TrainingTask(), segment_privacy=None)])
def test_an_invitation_comes_back(task):
    invitation = Invitation(b"terms", task, WITNESS)
    assert Invitation.from_bytes(invitation.to_bytes()) == invitation


def test_an_application_comes_back():
    assert Application.from_bytes(APPLICATION.to_bytes()) == APPLICATION


def test_an_assignment_comes_back_to_the_bit():
    found = Assignment.from_bytes(ASSIGNMENT.to_bytes())
    assert found.adapter.values.tobytes() == VALUES.tobytes()
    assert found.adapter.values.dtype == np.float32
    assert (found.inbox, found.adapter.spec) == (b"inbox", "s" * 64)


@pytest.mark.parametrize("kind", [Invitation, Application, Assignment])
@pytest.mark.parametrize("plain", [None, [], {}, 0, {"terms": b"", "inbox": b""}, "x"])
def test_another_message_is_refused(kind, plain):
    with pytest.raises(BadMessage):
        kind.from_bytes(codec.encode(plain))


@pytest.mark.parametrize("message", [INVITATION, APPLICATION, ASSIGNMENT])
def test_a_message_with_a_field_more_or_less_is_refused(message):
    plain = codec.decode(message.to_bytes())
    for field in plain:
        fewer = {k: v for k, v in plain.items() if k != field}
        for changed in (fewer, {**plain, "more": 1}, {**plain, field: None}):
            with pytest.raises(BadMessage):
                type(message).from_bytes(codec.encode(changed))


@pytest.mark.parametrize(
    "values", [b"abc", np.array([np.nan], "<f4").tobytes(), np.array([-np.inf], "<f4").tobytes()]
)
def test_an_adapter_that_is_no_finite_vector_is_refused(values):
    plain = {**codec.decode(ASSIGNMENT.to_bytes()), "values": values}
    with pytest.raises(BadMessage):
        Assignment.from_bytes(codec.encode(plain))


@pytest.mark.parametrize(
    "task",
    [
        {}, {"training": {}}, {"training": {"local_steps": 0}, "segment_privacy": None},
        {"training": {"local_steps": 10**9}, "segment_privacy": None},
        {"training": {}, "segment_privacy": {"noise_multiplier": 0.0}},
        {"training": {}, "segment_privacy": {"clip_norm": float("nan")}},
        {"training": {}, "segment_privacy": None, "upload": "everything"},
    ],
)  # fmt: skip
def test_a_task_out_of_range_is_refused(task):
    with pytest.raises(BadSettings):
        plain = {"terms": b"", "task": task, "witness": WITNESS.to_plain()}
        Invitation.from_bytes(codec.encode(plain))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Invitation, Invitation(bytes(7000), TASK, WITNESS)),
        (Application, Application(bytes(100), bytes(4000))),
        (Assignment, Assignment(bytes(2**20), Adapter(np.zeros(2**23, np.float32), "s"))),
    ],
)
def test_a_message_longer_than_any_honest_one_is_not_looked_at(kind, message):
    with pytest.raises(BadMessage, match="holds at most"):
        kind.from_bytes(message.to_bytes())


def test_a_checkpoint_that_the_server_did_not_sign_is_refused():
    plain = codec.decode(INVITATION.to_bytes())
    for changed in ({**plain["witness"], "index": 2}, {"index": 3}):
        with pytest.raises(BadMessage, match="checkpoint"):
            Invitation.from_bytes(codec.encode({**plain, "witness": changed}))
