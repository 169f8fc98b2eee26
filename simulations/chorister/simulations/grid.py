"""A Flower Grid for one machine: it calls the ClientApp in this process, one message at a time.

Every message and reply, and every client's context, goes through Flower's own protobuf form, so
nothing passes that a network would not carry, and no object is shared between clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1


class InProcessGrid(Grid):
    """Delivers each message at once to a ClientApp in this process.

    Args:
        client_app: the app that all nodes run.
        nodes: how many there are; node i has id i + 1 and partition i.
        on_delivery: called after each message of a round.
    """

    def __init__(
        self, client_app: ClientApp, nodes: int, on_delivery: Callable[[], None] | None = None
    ) -> None:
        self._client_app = client_app
        self._on_delivery = on_delivery
        self._run = Run.create_empty(run_id=RUN_ID)
        # Flower's Message asks a process-wide identity who is sending.
        TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._contexts: Mapping[int, bytearray] = {
            i + 1: bytearray(_context(i, nodes)) for i in range(nodes)
        }
        self._replies: dict[str, bytes] = {}

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as Flower's interface wants it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver the messages in order and return their ids."""
        ids = []
        for message in messages:
            message_id = str(uuid4())
            metadata = message.metadata.__dict__
            metadata["_message_id"] = message_id
            metadata["_run_id"] = self._run.run_id
            metadata["_src_node_id"] = SUPERLINK_NODE_ID
            self._replies[message_id] = self._deliver(message_to_proto(message).SerializeToString())
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return and forget the replies to these messages."""
        kept = [i for i in message_ids if i in self._replies]
        return [_message(self._replies.pop(i)) for i in kept]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver the messages and return the replies; nothing here takes time to arrive."""
        replies: list[Message] = []
        for message in messages:
            replies.extend(self.pull_messages(self.push_messages([message])))
        return replies

    def _deliver(self, wire: bytes) -> bytes:
        message = _message(wire)
        stored = self._contexts[message.metadata.dst_node_id]
        context = _read_context(bytes(stored))
        try:
            reply = self._client_app(message, context)
        except Exception as error:  # as Flower's own runtimes do
            reply = Message(
                Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message
            )
        stored[:] = context_to_proto(context).SerializeToString()
        if self._on_delivery is not None and message.metadata.group_id:
            self._on_delivery()
        return bytes(message_to_proto(reply).SerializeToString())


def _message(wire: bytes) -> Message:
    from flwr.proto.message_pb2 import Message as ProtoMessage

    return message_from_proto(ProtoMessage.FromString(wire))


def _context(partition: int, nodes: int) -> bytes:
    context = Context(
        run_id=RUN_ID,
        node_id=partition + 1,
        node_config={PARTITION_ID_KEY: partition, NUM_PARTITIONS_KEY: nodes},
        state=RecordDict(),
        run_config={},
    )
    return bytes(context_to_proto(context).SerializeToString())


def _read_context(wire: bytes) -> Context:
    from flwr.proto.message_pb2 import Context as ProtoContext

    return context_from_proto(ProtoContext.FromString(wire))
