"""An HTTP client that reads no more of an answer than a message of ours can have."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

# The server takes no larger request either; no message of ours comes near this.
MAX_ANSWER_BYTES = 32 * 2**20


class _Bounded(httpx.SyncByteStream):
    """A body that ends in an error where it is too long."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        taken = 0
        for part in self._body:
            taken += len(part)
            if taken > MAX_ANSWER_BYTES:
                raise httpx.RemoteProtocolError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            yield part

    def close(self) -> None:
        self._body.close()


def bound_answers(client: httpx.Client) -> None:
    """Have a client refuse answers that are too long, or compressed, whatever they say they are.

    Args:
        client: a refusal is an `httpx.RemoteProtocolError` of its requests.
    """
    client.headers["accept-encoding"] = "identity"
    client.event_hooks = {"response": [_bound]}


def _bound(response: httpx.Response) -> None:
    # A few bytes may unfold to gigabytes.
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.RemoteProtocolError("a compressed answer, which nobody asked for")
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream)
