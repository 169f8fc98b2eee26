"""The door of a server: requests of devices pass, of bounded size, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chorister.server.door import MAX_REQUEST_BYTES, Door, Ends

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
RETRY_AFTER_S = 5
# How long a request may take to come: so long in any case, and longer the larger it is. Without an
# end, one that is announced and never sent would hold its bytes for good.
BODY_S = 30.0
LEAST_RATE = 64 * 2**10  # bytes a second
_WHY = {
    401: "No key that was let in signed this request.",
    404: "Nothing is here.",
    408: f"A request comes within {BODY_S:.0f} s and a second for {LEAST_RATE} of its bytes.",
    411: "A request says in Content-Length how large it is.",
    413: f"A request has at most {MAX_REQUEST_BYTES} bytes.",
    503: f"The server reads as many requests as it may. Try again in {RETRY_AFTER_S} s.",
}


def fleet_only(app: App, door: Door) -> App:
    """Return an ASGI app that passes requests of devices on, and refuses all others unread.

    404 for what is no device's, 401 for a key that was not let in, 411 and 413 for sizes, 503 with
    Retry-After where the server holds as much as it may, 408 where a body does not come in time.
    Flower gets requests that have come whole.

    Args:
        app: Flower's.
        door: who is let in, and what they hold.
    """

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        if not _is_fleets(scope):
            await _refuse(send, 404)
            return
        headers = dict(scope.get("headers", ()))
        key = door.key_of(_ends(scope), headers)
        if key is None:
            await _refuse(send, 401)
            return
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not length:
            await _refuse(send, 411)
        elif not length.isdigit() or int(length) > MAX_REQUEST_BYTES:
            await _refuse(send, 413)
        elif not door.has_room(key, int(length)):
            await _refuse(send, 503)
        else:
            with door.holding(key, int(length)):
                await _pass_on(app, scope, receive, send, int(length))

    return gate


async def _pass_on(app: App, scope: Scope, receive: Receive, send: Send, length: int) -> None:
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_S + length / LEAST_RATE):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return  # it went away
                body += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError:
        await _refuse(send, 408)
        return
    whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]
    del body, message  # it is held once, as it was announced

    async def first_whole() -> MutableMapping[str, Any]:
        return whole.pop() if whole else await receive()

    await app(scope, first_whole, send)


def _ends(scope: Scope) -> Ends | None:
    peer, ours = scope.get("client"), scope.get("server")
    return (tuple(peer), tuple(ours)) if peer and ours else None


def _is_fleets(scope: Scope) -> bool:
    path: str = scope.get("path", "")
    # The path as it came must be the path as it is routed: no escapes, no '..' on the way.
    raw: bytes = scope.get("raw_path", path.encode())
    return path.startswith(FLEET) and raw == path.encode("latin-1", errors="replace")


async def _refuse(send: Send, status: int) -> None:
    # The rest of the request is not waited for.
    headers = [(b"connection", b"close"), (b"content-type", b"text/plain")]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{_WHY[status]}\n".encode()})
