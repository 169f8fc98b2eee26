"""A device's connection to Flower's Fleet API: a SuperNode that runs installed code and no other.

It takes the place of `flower-supernode`, which unpacks what a server ships and runs it. The wire is
Flower's own; what is left out is the bundle: it is never unpacked, imported or configured from. No
port is opened on this machine, and no key is written to a file.

Source: flwr 1.41, supernode/start_client_internal.py, fleet_http_connection.py and
runtime/run_clientapp.py, whose steps this follows.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from chorister.client.app import app
from chorister.client.bounded_answers import bound_answers
from chorister.client.bundle_guard import BadBundle, BundleGuard
from chorister.client.installed import ENDS_S, FEDERATION
from chorister.shared.errors import BadMessage, ChoristerError
from chorister.shared.node_key import NodeKey
from chorister.shared.records import HELLO, ROUND

# Message, RecordDict and ConfigRecord: what `chorister.shared.records` packs, and nothing else.
_OBJECTS = 3
_MOST_PAUSE_S = 15.0
_BEAT_S = HEARTBEAT_DEFAULT_INTERVAL / 3


class Unreachable(ChoristerError):
    """The server does not answer, or not in a way that this device understands; try again later."""


class NotAdmitted(ChoristerError):
    """The server does not know this device's connection."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that waits on the server, without its content.

    Attributes:
        envelope: who asks what; Flower's.
        tree: names of its parts.
    """

    envelope: Message
    tree: ObjectTree

    @property
    def exchange(self) -> str:
        """The message type."""
        return str(self.envelope.metadata.message_type)

    @property
    def round_id(self) -> str:
        """The round, '' outside of one."""
        return str(self.envelope.metadata.group_id)

    @property
    def ends_s(self) -> float:
        """Unix time at which nobody waits for an answer any more, by the server's clock."""
        return float(self.envelope.metadata.created_at + self.envelope.metadata.ttl)


class _Client(FleetHttpClient):
    """Flower's client follows redirects and reads without end; ours does neither."""

    def stay(self) -> None:
        self._client.follow_redirects = False
        bound_answers(self._client)


class _Version:
    """Says which Flower this is; Flower's own class ends the process where a server objects."""

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        add_headers(context.request, self._headers)
        return call_next(context)


class SuperNode:
    """One connection, as long as it holds; `connected` makes it.

    Args:
        client: of the Fleet API.
        node: what the server calls this connection.
        guard: which bundles may be named.
    """

    def __init__(self, client: _Client, node: Node, guard: BundleGuard) -> None:
        self._client = client
        self._node = node
        self._guard = guard
        self._known: dict[int, str] = {}  # run to the bundle that was found in order

    def pull(self) -> Letter | None:
        """Return a message that waits, None if none does.

        Raises:
            Unreachable, NotAdmitted: the connection is lost.
        """
        with _told():
            found = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not found.messages_list or not found.message_object_trees:
            return None
        with _told():
            envelope = message_from_proto(found.messages_list[0])
        return Letter(envelope, found.message_object_trees[0])

    def answer(self, letter: Letter, federation: str, clock: Callable[[], float]) -> str:
        """Check the run's bundle, run the installed app on a message, send its answer.

        Args:
            letter: what was pulled.
            federation: that this device opens itself for.
            clock: monotonic, in seconds.

        Returns:
            what the server was told: 'answered', or the word of the refusal.

        Raises:
            BadBundle: of the run; the server was told that the app cannot be used, and nothing of
                the bundle was unpacked or run.
            Unreachable, NotAdmitted, BadMessage: nothing was answered.
        """
        run_id = letter.envelope.metadata.run_id
        try:
            self._check_run(run_id)
        except BadBundle:
            error = Error(ErrorCode.INVALID_FAB, "bundle")
            self._send(Message(error, reply_to=letter.envelope), run_id, 0.0)
            raise
        if letter.exchange not in (HELLO, *ROUND):
            raise _no_message(f"one of type {letter.exchange[:64]!r}")
        message = self._receive(letter, run_id)
        context = Context(
            run_id=run_id, node_id=self._node.node_id,
            node_config={FEDERATION: federation, ENDS_S: letter.ends_s},
            state=RecordDict(), run_config={},
        )  # fmt: skip
        began = clock()
        reply = app(message, context)
        self._send_in_time(reply, run_id, clock() - began, letter.ends_s)
        return "answered" if not reply.has_error() else str(reply.error.reason)

    def beat(self) -> None:
        """Say that this device is still there.

        Raises:
            Unreachable, NotAdmitted: the connection is lost.
        """
        request = SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        with _told():
            known = self._client.SendNodeHeartbeat(request).success
        if not known:
            raise Unreachable(
                "The server knows this connection.", "it has forgotten it", "It is made anew."
            )

    def _check_run(self, run_id: int) -> None:
        if run_id in self._known:
            return
        with _told():
            run = run_from_proto(
                self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id)).run
            )
        self._guard.check_name(run.fab_hash)
        with _told():
            request = GetFabRequest(node=self._node, hash_str=run.fab_hash, run_id=run_id)
            content = self._client.GetFab(request).fab.content
        self._guard.check(run.fab_hash, content)
        self._known = {run_id: run.fab_hash}  # the newest is enough: runs follow each other

    def _receive(self, letter: Letter, run_id: int) -> Message:
        for number, _ in enumerate(iterate_object_tree(letter.tree), start=1):
            if number > _OBJECTS:
                raise _no_message("more parts")
        fetch = make_pull_object_fn_protobuf(self._client.PullObject, self._node, run_id)
        thank = make_confirm_message_received_fn_protobuf(
            self._client.ConfirmMessageReceived, self._node, run_id
        )

        def pull(name: str) -> bytes:
            with _told():
                return fetch(name)

        def confirm(name: str) -> None:
            with _told():
                thank(name)

        try:
            message = pull_and_inflate_object_from_tree(
                letter.tree, pull, confirm, return_type=Message
            )
        except ChoristerError:
            raise
        except ObjectPullError:
            raise _no_message("a part that the server does not have") from None
        except Exception as error:  # whatever bytes do to Flower's decoders
            raise _no_message(f"bytes that do not decode ({type(error).__name__})") from None
        message.metadata.__dict__["_message_id"] = letter.tree.object_id
        if message.metadata.run_id != run_id:
            raise _no_message("one of another run")
        return message

    def _send_in_time(self, reply: Message, run_id: int, seconds: float, ends_s: float) -> None:
        """Send an answer, again where the network changed meanwhile: it may have cost budget."""
        pause_s = 1.0
        while True:
            try:
                return self._send(reply, run_id, seconds)
            except Unreachable:
                if time.time() + pause_s > ends_s:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    def _send(self, reply: Message, run_id: int, seconds: float) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute(), _told():
            tree = get_object_tree(reply)
            taken = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[tree],
                    clientapp_runtime_list=[seconds],
                )
            )
            push_objects(
                get_all_nested_objects(reply),
                make_push_object_fn_protobuf(
                    self._client.PushObject, self._node, run_id, taken.session_id
                ),
                object_ids_to_push=set(taken.objects_to_push),
            )


@contextmanager
def connected(
    server: str, root_certificate: str, key: NodeKey, guard: BundleGuard
) -> Iterator[SuperNode]:
    """Give a connection to a server, which knows that the device is there while the block runs.

    Args:
        server: HOST:PORT.
        root_certificate: PEM; empty for none, on this machine alone.
        key: that the server was told to admit.
        guard: which bundles may be named.

    Raises:
        Unreachable: nobody answers there, or with another certificate.
        NotAdmitted: the server does not know the key.
    """
    private = key.private_key()
    with _told():
        client = _Client.from_server_address(
            server,
            not root_certificate,
            root_certificate.encode() if root_certificate else None,
            [_Version(), NodeAuthHttpInterceptor(private, private.public_key())],
        )
    client.stay()
    with client:
        # 412 is what Flower answers there for a key that was let out since our server's door let it
        # in; the door itself answers 401.
        with _told(httpx.codes.PRECONDITION_FAILED):
            node_id = client.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(private.public_key()),
                    heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
                )
            ).node_id
        node = SuperNode(client, Node(node_id=node_id), guard)
        over = threading.Event()
        heart = threading.Thread(target=_beat_until, args=(node, over), daemon=True)
        heart.start()
        try:
            yield node
        finally:
            over.set()
            try:
                with _told():
                    client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
            except ChoristerError:
                pass  # the server finds out by itself when no heartbeat comes


def _beat_until(node: SuperNode, over: threading.Event) -> None:
    while not over.wait(_BEAT_S):
        try:
            node.beat()
        except ChoristerError:
            continue  # whoever pulls finds it out as well, and says so


@contextmanager
def _told(*unknown: int) -> Iterator[None]:
    """Turn what goes wrong on the wire into errors that say what to do.

    Args:
        unknown: statuses that say, of this request, that the device is not admitted.
    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, *unknown):
            raise NotAdmitted(
                "The server admits this device's connection.", f"it does not (HTTP {status})",
                "Ask the operator to register the file that the authority's approval wrote, and "
                "set this machine's clock.",
            ) from None  # fmt: skip
        raise Unreachable(
            "The server answers.", f"HTTP {status}", "This device tries again by itself."
        ) from None
    except httpx.HTTPError as error:
        reason = str(error).replace("\n", " ")[:160]
        raise Unreachable(
            "The server can be reached, with the certificate that the invitation names.",
            f"{type(error).__name__}: {reason}", "This device tries again by itself.",
        ) from None  # fmt: skip
    except ValueError as error:
        raise Unreachable(
            "The server answers as Flower's Fleet API does.", f"{error}"[:160],
            "Check the address in the invitation with the operator.",
        ) from None  # fmt: skip
    except ssl.SSLError as error:
        raise Unreachable(
            "The invitation's root certificate can be used.", str(error)[:160],
            "Ask the authority for another invitation.",
        ) from None  # fmt: skip


def _no_message(found: str) -> BadMessage:
    return BadMessage(
        "A message is one record of bytes.", f"{found}", "Drop the message: nothing was answered."
    )
