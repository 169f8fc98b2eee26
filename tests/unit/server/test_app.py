"""The server's side of Flower: who is who, which answers count, and where a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from chorister.server import app
from chorister.server.app import FlowerNetwork
from chorister.server.rounds import ROUNDS_FILE, read_rounds
from chorister.shared.enrolment import Withdrawal, WithdrawalNotice
from chorister.shared.exchanges import Introduction
from chorister.shared.records import HELLO, SHARE, pack, unpack
from chorister.shared.signing import Certificate, SigningKey


class Grid:
    """Nodes as functions from a message to replies."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.sent = []
        TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        assert messages, "a SuperLink takes no empty list"
        for message in messages:
            self.sent.append(message)
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            yield message.metadata.message_id

    def pull_messages(self, ids):
        for message in self.sent:
            if message.metadata.message_id in ids:
                for content in self.nodes[message.metadata.dst_node_id](message):
                    yield Message(content, reply_to=message)


class Clock:
    """Time that passes when somebody sleeps, and at no other time."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        assert 0 < seconds <= app.MOST_POLL_S
        self.now_s += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(app, "time", clock)
    return clock


def says(*contents):
    return lambda message: contents


def hello(key, certificate, message):
    """What the holder of a key answers to a hello."""
    return (pack(Introduction.make(key, certificate, unpack(message.content)).to_bytes()),)


def introduces(singers, name):
    device = singers.devices[name]
    return lambda message: hello(device.signing_key, device.certificate, message)


def answering(singers, name, *contents):
    """A node that says hello as a device, and then what it is told to."""
    own = introduces(singers, name)
    return lambda message: (
        own(message)
        if message.metadata.message_type == HELLO
        else contents or (pack(name.encode()),)
    )


@pytest.fixture
def singers(choir):
    return choir(singers=3)


def network(singers, nodes):
    return FlowerNetwork(Grid(nodes), singers.operator)


def test_nodes_are_known_by_their_certificates(singers):
    a, b, c = singers.names
    found = network(
        singers, {1: answering(singers, c), 2: answering(singers, a), 3: answering(singers, b)}
    )
    assert list(found.discover()) == [a, b, c]
    answers, reasons = found.exchange(SHARE, "run/1", {a: b"x", c: b"y"})
    assert (answers, reasons) == ({a: a.encode(), c: c.encode()}, {})
    exchange = [m for m in found._grid.sent if m.metadata.message_type == SHARE]
    assert [(m.metadata.dst_node_id, unpack(m.content)) for m in exchange] == [(2, b"x"), (1, b"y")]
    assert {m.metadata.group_id for m in exchange} == {"run/1"}


def stranger(singers, **changes):
    key = SigningKey(bytes(range(32)))
    signer = changes.pop("signer", singers.authority)
    made = Certificate.issue(
        signer, key.verify_key(), changes.pop("federation", "choir"), changes.pop("until", 2**40)
    )
    certificate = replace(made, **changes)
    return lambda message: hello(key, certificate, message)


def test_a_node_without_a_valid_certificate_takes_part_in_nothing(singers):
    strangers = [
        stranger(singers, signer=SigningKey(bytes(32))), stranger(singers, federation="band"),
        stranger(singers, until=5), stranger(singers, signature=bytes(64)),
        says(pack(b"")), says(pack(b"\x81" * 400 + b"\x00")), says(pack(bytes(5000))),
        says(RecordDict()), says(RecordDict({"chorister": ConfigRecord({"message": "x"})})),
    ]  # fmt: skip
    nodes = dict(enumerate(strangers, 1))
    nodes[50] = lambda message: ()  # never answers
    nodes[51] = answering(singers, singers.names[0])
    assert list(network(singers, nodes).discover()) == [singers.names[0]]


def test_nobody_takes_another_devices_place(singers):
    """A certificate is public: only the holder of its key may speak for it."""
    a, b, _ = singers.names
    victim, thief = singers.devices[a], singers.devices[b]
    heard = []

    def listens(message):
        if message.metadata.message_type == HELLO:
            heard.append(hello(victim.signing_key, victim.certificate, message))
            return heard[0]
        return (pack(b""),)

    nodes = {
        1: lambda m: hello(thief.signing_key, victim.certificate, m),
        2: answering(singers, b),
    }
    found = network(singers, nodes)
    assert list(found.discover()) == [b]
    nodes[3] = listens
    assert list(found.discover()) == sorted([a, b])
    nodes[4] = lambda m: heard[0]  # an answer to another challenge, replayed
    del nodes[3]
    assert list(found.discover()) == [b]


def test_a_node_that_leaves_and_one_that_comes_are_noticed(singers):
    a, b, _ = singers.names
    nodes = {1: answering(singers, a)}
    found = network(singers, nodes)
    assert list(found.discover()) == [a]
    nodes[2] = answering(singers, b)
    assert list(found.discover()) == [a, b]
    del nodes[1]
    assert list(found.discover()) == [b]
    hellos = [m for m in found._grid.sent if m.metadata.message_type == HELLO]
    assert len(hellos) == 2  # nobody is asked twice


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (lambda m: Error(0, "consent"), "consent"), (lambda m: Error(0, "budget"), "budget"),
        (lambda m: Error(0, "x" * 10**6), "failed"), (lambda m: Error(0, None), "failed"),
        (lambda m: Error(0, ""), "failed"), (lambda m: RecordDict(), "a malformed answer"),
    ],
)  # fmt: skip
def test_an_error_is_told_in_known_words_only(singers, said, reason):
    name = singers.names[0]
    own = introduces(singers, name)

    def node(message):
        return own(message) if message.metadata.message_type == HELLO else (said(message),)

    found = network(singers, {1: node})
    found.discover()
    assert found.exchange(SHARE, "run/1", {name: b""}) == ({}, {name: reason})


def test_silence_is_no_answer_and_a_second_answer_is_not_heard(singers):
    a, b, _ = singers.names
    own = introduces(singers, a)
    found = network(
        singers,
        {
            1: lambda m: own(m) if m.metadata.message_type == HELLO else (),
            2: answering(singers, b, pack(b"one"), pack(b"two")),
        },
    )
    found.discover()
    answers, reasons = found.exchange(SHARE, "run/1", {a: b"", b: b""})
    assert answers == {b: b"one"}
    assert reasons == {a: "no answer"}


def test_a_stopped_server_goes_on_after_the_last_round(singers, monkeypatch):
    operator = singers.operator
    run, seen = [], []

    def a_round(net, of, number):
        run.append(number)
        if len(run) == 2:
            raise KeyboardInterrupt
        return true(singers, of, number)

    true = app.run_round
    settings = operator.settings.model_copy(update={"rounds": 3})
    operator = replace(operator, settings=settings, on_round=lambda r: seen.append(r.round))
    monkeypatch.setattr(app, "open_operator", lambda: operator)
    monkeypatch.setattr(app, "run_round", a_round)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(KeyboardInterrupt):
        app.main(Grid({}), context)
    assert [r.round for r in read_rounds(operator.folder / ROUNDS_FILE)] == [1]
    app.main(Grid({}), context)
    assert run == [1, 2, 2, 3]
    assert seen == [1, 2, 3]
    assert [r.status for r in read_rounds(operator.folder / ROUNDS_FILE)] == ["finished"] * 3


def test_a_node_whose_speaker_withdrew_is_heard_and_left_out(choir):
    singers = choir(singers=2)
    gone, here = singers.names
    device = singers.devices[gone]
    withdrawal = Withdrawal.sign(device.signing_key, device.consent.sha256, 5)
    said = pack(WithdrawalNotice(device.certificate, withdrawal).to_bytes())
    grid = Grid({1: says(said), 2: introduces(singers, here)})
    assert list(FlowerNetwork(grid, singers.operator).discover()) == [here]
    assert singers.operator.withdrawals.devices() == {gone}


def test_nobody_is_waited_for_beyond_the_deadline(singers, clock):
    silent = dict.fromkeys(range(1, 4), lambda message: ())
    assert network(singers, silent).discover() == {}
    assert clock.now_s == singers.operator.settings.aggregation.stage_deadline_s


def test_an_answer_that_comes_late_but_in_time_counts(singers, clock):
    here = singers.names[0]
    slow = introduces(singers, here)
    nodes = {1: lambda message: slow(message) if clock.now_s > 20 else ()}
    assert list(network(singers, nodes).discover()) == [here]
    assert 20 < clock.now_s < 30


def test_where_no_node_is_there_nothing_is_sent(singers):
    assert network(singers, {}).discover() == {}
