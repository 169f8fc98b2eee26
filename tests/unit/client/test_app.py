"""What reaches a server when a device refuses or fails: one word, whatever the reason."""

from __future__ import annotations

import json

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from chorister.client import app, contribute
from chorister.client.outbox import Withdrawn
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.errors import (
    BadMessage,
    BadSignature,
    BudgetExhausted,
    ConsentRefused,
    ProtocolViolation,
    UsageError,
)
from chorister.shared.exchanges import Introduction
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.records import HELLO, ROUND, pack, unpack

SECRET = "the password is tuba"
STEPS = {
    "query.advertise": "apply", "query.share": "share", "train.contribute": "contribute",
    "query.confirm": "confirm", "query.reveal": "reveal",
}  # fmt: skip


@pytest.fixture
def device(choir, monkeypatch):
    singers = choir(singers=1)
    (one,) = singers.devices.values()
    monkeypatch.setattr(app, "find_opener", lambda: lambda config, exchange, round_id: one)
    return one


def ask(exchange, content=None):
    TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    message = Message(content or pack(b"request"), 7, exchange, group_id="run/1")
    context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
    reply = app.app(message, context)
    assert not context.state  # nothing is kept in Flower's memory
    return reply


def replace_steps(monkeypatch, step):
    """The registered handlers look the steps up in `contribute` when they are called."""
    for name in STEPS.values():
        monkeypatch.setattr(contribute, name, step)


@pytest.mark.parametrize("exchange", ROUND)
@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ConsentRefused(SECRET, SECRET, SECRET), "consent"),
        (BudgetExhausted(SECRET, SECRET, SECRET), "budget"),
        (ProtocolViolation(SECRET, SECRET, SECRET), "protocol"),
        (BadMessage(SECRET, SECRET, SECRET), "protocol"),
        (RuntimeError(SECRET), "failed"),
        (OSError(28, SECRET), "failed"),
        (KeyError(SECRET), "failed"),
    ],
)
def test_a_refusal_is_one_word(device, monkeypatch, exchange, error, word):
    def step(*_):
        raise error

    replace_steps(monkeypatch, step)
    reply = ask(exchange)
    assert reply.error.reason == word
    assert not reply.has_content()
    last = json.loads(list(read_lines(device.ledger.path))[-1])
    assert last["kind"] == "refusal"
    assert last["fields"]["exchange"] == exchange


def test_a_ledger_that_cannot_be_written_is_not_told_either(device, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, SECRET)

    replace_steps(monkeypatch, fail)
    monkeypatch.setattr(type(device.ledger), "append", fail)
    assert ask("train.contribute").error.reason == "failed"

    def refuse(*_):
        raise ConsentRefused(SECRET, SECRET, SECRET)

    replace_steps(monkeypatch, refuse)
    assert ask("train.contribute").error.reason == "consent"


def test_a_servers_long_text_is_cut_in_the_ledger(device, monkeypatch):
    def step(*_):
        raise ProtocolViolation("x" * 10**6, "y" * 10**6, "z")

    replace_steps(monkeypatch, step)
    ask("query.share")
    assert max(map(len, read_lines(device.ledger.path))) < 2000


@pytest.mark.parametrize("error", [UsageError(SECRET, SECRET, SECRET), RuntimeError(SECRET)])
def test_a_device_that_cannot_be_opened_is_unavailable(monkeypatch, error):
    def find():
        raise error

    monkeypatch.setattr(app, "find_opener", find)
    assert ask(HELLO).error.reason == "unavailable"


@pytest.mark.parametrize("exchange", ROUND)
def test_another_record_is_refused(device, exchange):
    assert ask(exchange, RecordDict({"weights": ConfigRecord({"x": 1})})).error.reason == "protocol"


@pytest.mark.parametrize("exchange", ROUND)
def test_an_exchange_goes_to_its_step_and_back(device, monkeypatch, exchange):
    def step(name):
        return lambda one, round_id, request: b"|".join(
            [name.encode(), one.device_id.encode(), round_id.encode(), request]
        )

    for name in STEPS.values():
        monkeypatch.setattr(contribute, name, step(name))
    answer = unpack(ask(exchange).content)
    expected = [STEPS[exchange], device.device_id, "run/1", "request"]
    assert answer.decode().split("|") == expected


def test_hello_shows_the_certificate_and_the_key(device):
    challenge = bytes(range(32))
    found = Introduction.from_bytes(unpack(ask(HELLO, pack(challenge)).content))
    assert found.certificate == device.certificate
    found.check(challenge)
    with pytest.raises(BadSignature):
        found.check(bytes(32))


@pytest.mark.parametrize("challenge", [b"", bytes(31), bytes(33), b"chorister/1 reveal"])
def test_hello_signs_challenges_of_one_length_only(device, challenge):
    assert ask(HELLO, pack(challenge)).error.reason == "protocol"


def test_a_violation_ends_the_round_on_the_device_and_another_error_does_not(device, monkeypatch):
    device.rounds.begin("run/1", b"state", device.randomness)

    def step(error):
        def failing(*_):
            raise error

        return failing

    for error in (BadMessage("a", "b", "c"), BudgetExhausted("a", "b", "c"), RuntimeError()):
        replace_steps(monkeypatch, step(error))
        ask("query.share")
        assert device.rounds.take("run/1", "advertise") == b"state"
    replace_steps(monkeypatch, step(ProtocolViolation("a", "b", "c")))
    ask("query.share")
    with pytest.raises(ProtocolViolation, match="none for this round"):
        device.rounds.take("run/1", "advertise")


def test_secrets_that_cannot_be_deleted_are_not_told_either(device, monkeypatch):
    def violate(*_):
        raise ProtocolViolation("a", "b", "c")

    def fail(*_):
        raise PermissionError(13, SECRET)

    replace_steps(monkeypatch, violate)
    monkeypatch.setattr(type(device.rounds), "forget", fail)
    assert ask("query.share").error.reason == "protocol"


def test_a_withdrawn_device_says_so_while_it_may_and_one_word_afterwards(device, monkeypatch):
    notice = WithdrawalNotice(device.certificate, Withdrawal.sign(device.signing_key, "c" * 64, 5))

    def withdrawn(config, exchange, round_id):
        raise Withdrawn(notice)

    monkeypatch.setattr(app, "find_opener", lambda: withdrawn)
    for exchange in ("query.hello", "query.advertise"):
        assert unpack(ask(exchange).content) == notice.to_bytes()
    assert ask("train.contribute").error.reason == "consent"
