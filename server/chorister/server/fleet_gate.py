"""The door of a server: requests of devices pass, of bounded size, and nothing else does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
# Flower reads a request before it knows who sends it; no message of ours comes near this.
MAX_REQUEST_BYTES = 32 * 2**20


def fleet_only(app: App) -> App:
    """Return an ASGI app that passes requests of devices on, and answers 404 to all others.

    A request that is larger than any of a device is refused, or cut off where it does not say how
    large it is.
    """

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        status = _refusal(scope)
        if status is None:
            await app(scope, _at_most(receive), send)
            return
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return gate


def _refusal(scope: Scope) -> int | None:
    """Return the status that a request from outside is refused with, None if it may pass."""
    path = scope.get("path", "")
    # The path as it came must be the path as it is routed: no escapes, no '..' on the way.
    raw = scope.get("raw_path", path.encode())
    if not path.startswith(FLEET) or raw != path.encode("latin-1", errors="replace"):
        return 404
    sizes = [value for name, value in scope.get("headers", ()) if name == b"content-length"]
    if any(not size.isdigit() or int(size) > MAX_REQUEST_BYTES for size in sizes):
        return 413
    return None


def _at_most(receive: Receive) -> Receive:
    """Return a source of a request's parts that ends the connection when they are too many."""
    taken = 0

    async def part() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MAX_REQUEST_BYTES else {"type": "http.disconnect"}

    return part
