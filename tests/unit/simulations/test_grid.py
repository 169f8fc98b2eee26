"""The grid in one process carries bytes and nothing else, and keeps clients apart."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from chorister.shared.records import pack, unpack
from chorister.simulations.grid import InProcessGrid


@pytest.fixture
def calls():
    return []


@pytest.fixture
def grid(calls):
    client = ClientApp()

    @client.query("note")
    def note(message, context):
        calls.append((context.node_id, context.node_config["partition-id"]))
        kept = context.state.setdefault("seen", ConfigRecord({"n": 0}))
        kept["n"] = int(kept["n"]) + 1
        said = unpack(message.content) + b" seen " + str(kept["n"]).encode()
        return Message(pack(said), reply_to=message)

    @client.query("break")
    def break_(message, context):
        raise ValueError("a secret in an error")

    @client.query("live")
    def live(message, context):
        context.state["object"] = ConfigRecord({"n": 1})
        message.content["chorister"]["message"] = b"changed by the client"
        return Message(pack(b"ok"), reply_to=message)

    delivered = []
    made = InProcessGrid(client, 3, lambda: delivered.append(1))
    made.delivered = delivered
    return made


def send(grid, kind, node, body=b"x", group="run/1"):
    (reply,) = grid.send_and_receive(
        [Message(pack(body), node, f"query.{kind}", group_id=group)], timeout=1
    )
    return reply


def test_nodes_are_partitions_in_order(grid, calls):
    assert list(grid.get_node_ids()) == [1, 2, 3]
    for node in (3, 1):
        assert send(grid, "note", node).metadata.src_node_id == node
    assert calls == [(3, 2), (1, 0)]


def test_state_is_each_nodes_own_and_stays(grid):
    replies = [unpack(send(grid, "note", n).content) for n in (1, 2, 1, 1)]
    assert replies == [b"x seen 1", b"x seen 1", b"x seen 2", b"x seen 3"]


def test_an_exception_is_an_error_and_tells_no_text(grid):
    reply = send(grid, "break", 1)
    assert reply.has_error()
    assert "secret" not in (reply.error.reason or "")
    assert unpack(send(grid, "note", 1).content) == b"x seen 1"  # and the node lives


def test_no_object_is_shared_with_a_client(grid):
    content = pack(b"mine")
    (reply,) = grid.send_and_receive([Message(content, 1, "query.live", group_id="r")])
    assert unpack(content) == b"mine"
    assert unpack(reply.content) == b"ok"


def test_replies_wait_until_they_are_pulled_and_come_once(grid):
    ids = list(
        grid.push_messages([Message(pack(b"a"), n, "query.note", group_id="r") for n in (1, 2)])
    )
    assert len(set(ids)) == 2
    found = list(grid.pull_messages(ids[1:]))
    assert [r.metadata.src_node_id for r in found] == [2]
    assert found[0].metadata.reply_to_message_id == ids[1]
    assert [r.metadata.src_node_id for r in grid.pull_messages([*ids, "unknown"])] == [1]
    assert list(grid.pull_messages(ids)) == []


def test_deliveries_of_a_round_are_counted_and_hellos_are_not(grid):
    send(grid, "note", 1, group="run/1")
    send(grid, "note", 1, group="")
    assert len(grid.delivered) == 1


def test_only_what_flower_carries_arrives(grid):
    with pytest.raises((TypeError, AttributeError, ValueError)):
        grid.push_messages([Message(RecordDict({"x": object()}), 1, "query.note")])  # type: ignore[dict-item]
