"""Who stands at a server's door, and how much of its memory and of its sockets they may hold.

A connection is a stranger's until a request on it was signed by a key that was let in; what signs
is in the headers, so nothing of a body is read before. Strangers get so many connections in all,
and one more closes the oldest: whoever is a device shows it within a round trip, and whoever only
stays makes room. Devices get so many bytes of requests at once, each a part of it; answers are not
counted.

The port's own limits are missing in uvicorn 0.49: `limit_concurrency` counts devices and strangers
alike, and headers have no end. asyncio calls `accept` of the socket that it is given.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Flower reads a request whole before it answers; no message of ours comes near this.
MAX_REQUEST_BYTES = 32 * 2**20
# Beats and questions are counted by nobody: they must pass where the memory is full.
SMALL_REQUEST_BYTES = 64 * 2**10
MAX_HEADER_BYTES = 64 * 2**10
_SHARE = 8  # of what all may hold, one device's part
_CONNECTIONS_A_KEY = 16
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # s, s, times

# Both ends, each by host and port: a peer may use one port towards several of our addresses.
Ends = tuple[tuple[str, int], tuple[str, int]]
Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many, and how much, one server puts up with.

    Attributes:
        strangers: connections that have not shown to be a device's.
        held_bytes: of requests that are being read or answered, in all; at least
            `MAX_REQUEST_BYTES`.
    """

    strangers: int = 512
    held_bytes: int = 256 * 2**20


class Door:
    """The connections and requests of one port; used by its event loop alone.

    Args:
        crowd: the limits.
        claimed_key: gives the key, in PEM, that a request says is its sender's; b'' for none.
        is_signed: whether that key signed the request.

    Attributes:
        members: keys, in PEM, that are let in; may be changed by other threads.
    """

    def __init__(
        self,
        crowd: Crowd,
        claimed_key: Callable[[Headers], bytes],
        is_signed: Callable[[bytes, Headers], bool],
    ) -> None:
        self.members: set[bytes] = set()
        self._crowd = crowd
        self._claimed_key = claimed_key
        self._is_signed = is_signed
        self._strangers: dict[Ends, socket.socket] = {}  # the oldest first
        self._devices: dict[Ends, tuple[socket.socket, bytes]] = {}
        self._held: dict[bytes, int] = {}

    def listen(self, host: str, port: int) -> list[socket.socket]:
        """Return sockets that are bound to an address, and tell this door whom they accept.

        Raises:
            OSError: the port is taken, or not allowed.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with contextlib.ExitStack() as opened:
            sockets: list[socket.socket] = []
            for family, kind, protocol, _, address in dict.fromkeys(found):
                one = opened.enter_context(_Listener(self, family, kind, protocol))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(address)
                sockets.append(one)
            opened.pop_all()
        return sockets

    def came(self, ends: Ends, connection: socket.socket) -> None:
        """Take note of a new connection; the oldest stranger's is closed where there are too many.

        Args:
            ends: the peer's, then this server's.
            connection: the socket, before any handshake.
        """
        self._devices.pop(ends, None)
        self._strangers.pop(ends, None)
        self._strangers[ends] = connection
        if len(self._strangers) <= self._crowd.strangers:
            return
        self._strangers = {e: one for e, one in self._strangers.items() if one.fileno() >= 0}
        while len(self._strangers) > self._crowd.strangers:
            _end(self._strangers.pop(next(iter(self._strangers))))

    def key_of(self, ends: Ends | None, headers: Headers) -> bytes | None:
        """Return the key of the device that sends a request, None for a stranger.

        The signature is checked once a connection; Flower checks that of every request.

        Args:
            ends: the peer's, then this server's; None where they are not known.
            headers: by their names in lower case.
        """
        key = self._claimed_key(headers)
        if key not in self.members:
            return None
        known = self._devices.get(ends) if ends is not None else None
        if known is not None and known[1] == key:
            return key
        if not self._is_signed(key, headers):
            return None
        if ends is not None:
            self._admit(ends, key)
        return key

    def shut_out(self, key: bytes) -> None:
        """Let a key in no more, and close the connections that showed to be its device's.

        May be called by other threads.
        """
        self.members.discard(key)
        for connection, owner in list(self._devices.values()):
            if owner == key:
                _end(connection)

    def has_room(self, key: bytes, size: int) -> bool:
        """Return whether a device may send a request of so many bytes now."""
        if size <= SMALL_REQUEST_BYTES:
            return True
        most, own = self._crowd.held_bytes, self._held.get(key, 0)
        share = max(MAX_REQUEST_BYTES, most // _SHARE)
        return own + size <= share and sum(self._held.values()) + size <= most

    @contextmanager
    def holding(self, key: bytes, size: int) -> Iterator[None]:
        """Count a request's bytes while the block runs."""
        counted = size if size > SMALL_REQUEST_BYTES else 0
        self._held[key] = self._held.get(key, 0) + counted
        try:
            yield
        finally:
            # Others of the same device may have ended meanwhile, and taken the entry with them.
            left = self._held.get(key, 0) - counted
            if left:
                self._held[key] = left
            else:
                self._held.pop(key, None)

    def _admit(self, ends: Ends, key: bytes) -> None:
        connection = self._strangers.get(ends)
        if connection is None:
            return
        self._devices = {e: one for e, one in self._devices.items() if one[0].fileno() >= 0}
        # A device that has many is served on more, which are not kept from being closed.
        if sum(one[1] == key for one in self._devices.values()) < _CONNECTIONS_A_KEY:
            self._devices[ends] = (self._strangers.pop(ends), key)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # asyncio finds it at its end, and closes it


class _Listener(socket.socket):
    """A socket that tells its door whom it accepts."""

    def __init__(self, door: Door, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._door = door

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        # Who vanished without a word is noticed by the system, and holds nothing any more.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._door.came((address[:2], connection.getsockname()[:2]), connection)
        return connection, address


class BoundedHeaders(HttpToolsProtocol):
    """uvicorn's HTTP, for requests whose headers have an end."""

    _in_headers = True
    _parts = 0  # headers and messages that ended
    _header_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, and end the connection where headers are too long."""
        parts = self._parts
        super().data_received(data)
        if not self._in_headers or parts != self._parts:
            self._header_bytes = 0
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """What follows is a body."""
        self._in_headers = False
        self._parts += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is another request."""
        self._in_headers = True
        self._parts += 1
        super().on_message_complete()
