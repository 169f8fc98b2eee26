"""A device's end of the Fleet API, against servers that say and do other things."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.proto.fab_pb2 import Fab, GetFabResponse
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectResponse,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunResponse, Run
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from chorister.client import supernode
from chorister.client.bundle_guard import BadBundle, BundleGuard
from chorister.client.supernode import Letter, NotAdmitted, SuperNode, Unreachable, connected
from chorister.shared.bundle import BUNDLE_SHA256, make_bundle
from chorister.shared.errors import BadMessage
from chorister.shared.node_key import NodeKey
from chorister.shared.randomness import SystemRandomness


@pytest.fixture(autouse=True)
def on_a_server(monkeypatch):
    """Messages are made here as a server makes them: it has a task of a run."""
    for name, value in (("_run_id", 5), ("_node_id", 1), ("_task_id", 2)):
        monkeypatch.setattr(TaskIdentity, name, value)


KEY = NodeKey.generate(SystemRandomness())
GUARD = BundleGuard((BUNDLE_SHA256,))


@contextmanager
def server(answer):
    """A server on loopback: path to (status, headers, body)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append((self.path, dict(self.headers)))
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *rest):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def enter(address):
    with connected(address, "", KEY, GUARD):
        pass


def test_it_says_who_it_is_and_leaves_when_it_is_done():
    known = ActivateNodeResponse(node_id=7).SerializeToString()

    def answer(path):
        return 200, {}, known if path.endswith("activate-node") else b""

    with server(answer) as (address, asked), connected(address, "", KEY, GUARD) as node:
        assert node._node.node_id == 7
    paths = [path for path, _ in asked]
    assert paths == ["/v1/fleet/activate-node", "/v1/fleet/deactivate-node"]
    headers = json.dumps(asked[0][1]).lower()
    assert "signature" in headers
    assert "flwr" in headers or "version" in headers


@pytest.mark.parametrize(
    ("reply", "error", "what"),
    [
        ((401, {}, b""), NotAdmitted, "register the file"),
        ((403, {}, b""), NotAdmitted, "HTTP 403"),
        ((500, {}, b"boom"), Unreachable, "HTTP 500"),
        ((307, {"location": "http://127.0.0.1:1/elsewhere"}, b""), Unreachable, "HTTP 307"),
        ((200, {}, b"\xff<html>"), Unreachable, "Fleet API"),
        ((426, {}, b'{"code": 1, "message": "incompatible version"}'), Unreachable, "HTTP 426"),
    ],
)  # fmt: skip
def test_whatever_a_server_says_is_an_error_with_advice(reply, error, what):
    with server(lambda path: reply) as (address, asked), pytest.raises(error, match=what):
        enter(address)
    assert len(asked) == 1, "nothing was followed, nothing was tried again by itself"


def test_nobody_there_and_a_certificate_that_is_none():
    with server(lambda path: (200, {}, b"")) as (address, _):
        pass
    with pytest.raises(Unreachable, match="ConnectError"):
        enter(address)
    with pytest.raises(Unreachable), connected("127.0.0.1:1", "no certificate", KEY, GUARD):
        pass


class Fleet:
    """Flower's client without a network: one message of one run."""

    def __init__(self, bundle=None, named=BUNDLE_SHA256, content=None, extra=0):
        record = RecordDict({"chorister": ConfigRecord({"message": content or b"x" * 32})})
        for i in range(extra):
            record[f"more-{i}"] = ConfigRecord({"message": bytes([i])})
        self.message = Message(record, dst_node_id=1, message_type="query.hello", ttl=60.0)
        self.message.metadata.__dict__["_run_id"] = 5
        self.message.metadata.__dict__["_src_node_id"] = 1
        self.message.metadata.__dict__["_message_id"] = self.message.object_id
        self.tree: ObjectTree = get_object_tree(self.message)
        self.objects = {k: v.deflate() for k, v in get_all_nested_objects(self.message).items()}
        self.bundle, self.named = bundle if bundle is not None else make_bundle(), named
        self.fetched, self.pushed, self.sent, self.fail = 0, {}, [], 0

    def letter(self):
        return Letter(self.message, self.tree)

    def PullMessages(self, request):
        return PullMessagesResponse()

    def GetRun(self, request):
        return GetRunResponse(run=Run(run_id=5, fab_hash=self.named))

    def GetFab(self, request):
        self.fetched += 1
        return GetFabResponse(fab=Fab(hash_str=self.named, content=self.bundle))

    def PullObject(self, request):
        data = self.objects.get(request.object_id, b"")
        return PullObjectResponse(
            object_found=bool(data), object_available=bool(data), object_content=data
        )

    def ConfirmMessageReceived(self, request):
        return ConfirmMessageReceivedResponse()

    def PushMessages(self, request):
        if self.fail:
            self.fail -= 1
            raise Unreachable("It holds.", "no network", "Wait.")
        self.sent.append(request)
        ids = [n for tree in request.message_object_trees for n in _ids(tree)]
        return PushMessagesResponse(objects_to_push=ids, session_id="s")

    def PushObject(self, request):
        self.pushed[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)

    def SendNodeHeartbeat(self, request):
        return SendNodeHeartbeatResponse(success=False)


def _ids(tree):
    yield tree.object_id
    for child in tree.children:
        yield from _ids(child)


@pytest.fixture
def app(monkeypatch):
    """An app that says what it was given."""
    seen = []

    def answer(message, context):
        seen.append((message, context))
        return Message(RecordDict({"chorister": ConfigRecord({"message": b"yes"})}),
                       reply_to=message)  # fmt: skip

    monkeypatch.setattr(supernode, "app", answer)
    monkeypatch.setattr(supernode.time, "sleep", lambda seconds: None)
    return seen


def node_of(fleet):
    return SuperNode(fleet, Node(node_id=1), GUARD)


def test_a_message_of_a_known_bundle_reaches_the_installed_app_and_its_answer_the_server(app):
    fleet = Fleet()
    node = node_of(fleet)
    for _ in range(2):
        assert node.answer(fleet.letter(), "choir", lambda: 0.0) == "answered"
    (message, context), _ = app
    assert message.content["chorister"]["message"] == b"x" * 32
    assert context.node_config["federation"] == "choir"
    assert context.run_config == {}, "a server's configuration is not read"
    assert fleet.fetched == 1, "a run's bundle is looked at once"
    assert any(b"yes" in data for data in fleet.pushed.values())


@pytest.mark.parametrize("named", ["a" * 64, "", BUNDLE_SHA256[:-1] + "0"])
def test_an_unknown_bundle_is_not_fetched_and_nothing_of_the_message_is_read(app, named):
    fleet = Fleet(named=named)
    fleet.PullObject = None
    with pytest.raises(BadBundle):
        node_of(fleet).answer(fleet.letter(), "choir", lambda: 0.0)
    assert (fleet.fetched, app) == (0, [])
    assert fleet.sent[0].messages_list[0].error.reason == "bundle"


def test_other_bytes_under_a_known_name_are_refused(app):
    fleet = Fleet(bundle=b"PK something else")
    with pytest.raises(BadBundle, match="17 bytes"):
        node_of(fleet).answer(fleet.letter(), "choir", lambda: 0.0)
    assert app == []


def test_a_message_of_other_parts_or_bytes_is_refused(app):
    for spoil in ("extra", "lost", "garbage", "run"):
        fleet = Fleet(extra=1 if spoil == "extra" else 0)
        if spoil == "lost":
            fleet.objects.popitem()
        elif spoil == "garbage":
            name = next(iter(fleet.objects))
            fleet.objects[name] = b"\x00\xff garbage"
        letter = fleet.letter()
        if spoil == "run":
            letter.envelope.metadata.__dict__["_run_id"] = 6
        with pytest.raises(BadMessage):
            node_of(fleet).answer(letter, "choir", lambda: 0.0)
    assert app == []


def test_an_answer_is_sent_again_where_the_network_changed_while_it_was_made(app):
    fleet = Fleet()
    fleet.fail = 3
    assert node_of(fleet).answer(fleet.letter(), "choir", lambda: 0.0) == "answered"
    assert (len(app), len(fleet.sent)) == (1, 1), "the app ran once"


def test_it_is_not_sent_again_when_nobody_waits_any_more(app):
    fleet = Fleet()
    fleet.fail = 3
    letter = fleet.letter()
    letter.envelope.metadata.__dict__["_created_at"] = 0.0
    with pytest.raises(Unreachable):
        node_of(fleet).answer(letter, "choir", lambda: 0.0)
    assert fleet.sent == []


def test_the_word_of_a_refusal_is_returned(app, monkeypatch):
    fleet = Fleet()
    monkeypatch.setattr(
        supernode, "app", lambda message, context: Message(Error(1, "budget"), reply_to=message)
    )
    assert node_of(fleet).answer(fleet.letter(), "choir", lambda: 0.0) == "budget"


def test_a_server_that_forgot_the_connection_is_noticed():
    with pytest.raises(Unreachable, match="forgotten"):
        node_of(Fleet()).beat()
    assert node_of(Fleet()).pull() is None


@pytest.mark.parametrize("kind", ["query.unknown", "train", "evaluate.hello"])
def test_a_message_that_no_round_has_is_refused_and_ends_nothing(app, kind):
    fleet = Fleet()
    letter = fleet.letter()
    letter.envelope.metadata.__dict__["_message_type"] = kind
    with pytest.raises(BadMessage, match="of type"):
        node_of(fleet).answer(letter, "choir", lambda: 0.0)
    assert app == []


def test_an_envelope_that_is_none_is_an_error_with_advice():
    fleet = Fleet()
    fleet.PullMessages = lambda request: PullMessagesResponse(
        messages_list=[ProtoMessage()], message_object_trees=[ObjectTree()]
    )
    with pytest.raises(Unreachable):
        node_of(fleet).pull()
