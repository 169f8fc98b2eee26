"""A server's door with real sockets: strangers and greedy devices find an end, others get in."""

from __future__ import annotations

import asyncio
import http.client
import os
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from chorister.server import fleet_gate, tls
from chorister.server.door import (
    MAX_HEADER_BYTES,
    SMALL_REQUEST_BYTES,
    BoundedHeaders,
    Crowd,
    Door,
)
from chorister.server.fleet_gate import RETRY_AFTER_S, fleet_only
from chorister.server.superlink import claimed_key, is_signed
from chorister.shared.node_key import NodeKey
from chorister.shared.randomness import SystemRandomness

PATH = "/v1/fleet/push-object"
MIB = 2**20
WAIT_S = 20.0
READ_BYTES = 2**18  # that asyncio gives to a protocol at a time, at most


class Server:
    """A port behind a door, with an app that reads requests whole and waits to be let go on."""

    def __init__(self, crowd, tls_folder=None, host="127.0.0.1"):
        self.door, self.go_on, self.reading = (
            Door(crowd, claimed_key, is_signed),
            threading.Event(),
            0,
        )
        self.go_on.set()
        self.read = []
        ours = None if tls_folder is None else str(tls_folder / tls.KEY_FILE)
        certificate = None if tls_folder is None else str(tls_folder / tls.CERTIFICATE_FILE)
        (listener,) = self.door.listen(host, 0)
        self.address = listener.getsockname()
        self.context = None
        if tls_folder is not None:
            self.context = ssl.create_default_context(cafile=str(tls_folder / tls.CA_FILE))
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._noted(fleet_only(self._app, self.door)), lifespan="off", interface="asgi3",
                http=BoundedHeaders, ws="none", log_config=None, access_log=False,
                ssl_keyfile=ours, ssl_certfile=certificate, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._uvicorn.serve(sockets=[listener])), daemon=True
        )
        self._thread.start()
        until(lambda: self._uvicorn.started)

    def _noted(self, app):
        async def noted(scope, receive, send):
            reading = []

            async def read():
                if not reading:
                    reading.append(True)
                    self.reading += 1
                return await receive()

            await app(scope, read, send)

        return noted

    async def _app(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        self.read.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def connect(self):
        plain = socket.create_connection(self.address, timeout=WAIT_S)
        return plain if self.context is None else self.context.wrap_socket(
            plain, server_hostname="127.0.0.1"
        )  # fmt: skip

    def ask(self, key, body=b"", connection=None, **changed):
        """Send one request and return (status, headers)."""
        with ExitStack() as stack:
            if connection is None:
                connection = stack.enter_context(self.connect())
            connection.sendall(head(key, len(body), **changed) + body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            return answer.status, dict(answer.getheaders())

    def stop(self):
        self.go_on.set()
        self._uvicorn.should_exit = True
        self._thread.join(timeout=WAIT_S)


def until(what):
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def a_key():
    return NodeKey.generate(SystemRandomness()).private_key()


def pem(key):
    return public_key_to_bytes(key.public_key())


def signed(key, stamp=None, signer=None):
    stamp = stamp or now().isoformat()
    return {
        "flwr-public-key": b64encode(pem(key)).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": b64encode(sign_message(signer or key, stamp.encode())).decode(),
    }


def head(key, length, **changed):
    lines = {"host": "x", "content-length": str(length), **(signed(key) if key else {}), **changed}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"POST {PATH} HTTP/1.1\r\n{text}\r\n".encode()


@pytest.fixture
def serve(tmp_path):
    with ExitStack() as stack:

        def start(crowd=Crowd(), *, encrypted=False, **more):  # noqa: B008 (it cannot be changed)
            folder = None
            if encrypted:
                folder = tmp_path / "tls"
                tls.make_certificate_authority(folder, "choir", int(time.time()))
                tls.make_server_certificate(folder, ["127.0.0.1"], int(time.time()))
            server = Server(crowd, folder, **more)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def device():
    return a_key()


def test_a_device_is_served_and_a_stranger_is_refused_unread(serve, device):
    server = serve()
    server.door.members.add(pem(device))
    assert server.ask(device, b"x" * 1000)[0] == 200
    stranger = a_key()
    for headers in (
        {}, {"flwr-public-key": "?"}, signed(stranger), signed(device, signer=stranger),
        signed(device, "2020-01-01T00:00:00+00:00"), signed(device, "soon"),
        signed(device) | {"flwr-signature": "?"},
    ):  # fmt: skip
        with server.connect() as connection:
            # It announces a body, and sends none: the answer does not wait for it.
            connection.sendall(head(None, 32 * MIB, **headers))
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 401
            assert answer.getheader("connection") == "close"
    assert server.read == [1000]


def test_who_is_let_out_is_refused_on_an_open_connection_too(serve, device):
    server = serve()
    server.door.members.add(pem(device))
    with server.connect() as connection:
        assert server.ask(device, connection=connection)[0] == 200
        server.door.members.discard(pem(device))
        assert server.ask(device, connection=connection)[0] == 401


def test_another_key_on_a_devices_connection_has_to_sign_itself(serve, device):
    server, other = serve(), a_key()
    server.door.members.update({pem(device), pem(other)})
    with server.connect() as connection:
        assert server.ask(device, connection=connection)[0] == 200
        assert server.ask(other, connection=connection)[0] == 200
        forged = signed(other, signer=device)
        assert server.ask(None, connection=connection, **forged)[0] == 401


def test_one_source_port_towards_two_addresses_is_two_connections(serve, device):
    server = serve(Crowd(strangers=2), host="0.0.0.0")  # noqa: S104 (a test)
    server.door.members.add(pem(device))
    with ExitStack() as stack:
        own, other = (stack.enter_context(socket.socket()) for _ in range(2))
        for connection, host in ((own, "127.0.0.1"), (other, "127.0.0.2")):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.settimeout(WAIT_S)
            connection.bind(("127.0.0.1", own.getsockname()[1]))
            connection.connect((host, server.address[1]))
        assert server.ask(device, connection=own)[0] == 200
        unsigned = {"flwr-public-key": b64encode(pem(device)).decode()}
        assert server.ask(None, connection=other, **unsigned)[0] == 401
        assert server.ask(None, connection=own, **unsigned)[0] == 200, "Flower checks the rest"


def test_sizes_are_said_and_bounded(serve, device):
    server = serve()
    server.door.members.add(pem(device))
    for changed, status in (
        ({"content-length": None}, 411),
        ({"content-length": None, "transfer-encoding": "chunked"}, 411),
        ({"content-length": str(32 * MIB + 1)}, 413),
    ):
        assert server.ask(device, **changed)[0] == status
    assert not server.read


@contextmanager
def under_way(server, key, size):
    """A device's request that is read and not answered yet."""
    before = server.reading
    with server.connect() as connection:
        connection.sendall(head(key, size))
        until(lambda: server.reading == before + 1)
        yield connection


def test_all_devices_together_hold_so_much_and_small_requests_pass(serve):
    server = serve(Crowd(held_bytes=80 * MIB))
    devices = [a_key() for _ in range(4)]
    server.door.members.update(map(pem, devices))
    one, two, three, four = devices
    with under_way(server, one, 32 * MIB), under_way(server, two, 32 * MIB):
        status, headers = server.ask(three, **{"content-length": str(32 * MIB)})
        assert status == 503
        assert headers["retry-after"] == str(RETRY_AFTER_S)
        assert server.ask(three, b"x" * SMALL_REQUEST_BYTES)[0] == 200
        with under_way(server, four, 16 * MIB):
            assert server.ask(three, b"x" * (SMALL_REQUEST_BYTES + 1))[0] == 503
    # Whoever went away holds nothing any more.
    until(lambda: server.ask(three, b"x" * MIB)[0] == 200)


@pytest.mark.parametrize("trickles", [False, True], ids=["nothing", "a byte now and then"])
def test_what_is_announced_and_not_sent_is_given_up_and_holds_nothing(
    serve, device, monkeypatch, trickles
):
    monkeypatch.setattr(fleet_gate, "BODY_S", 0.5)
    monkeypatch.setattr(fleet_gate, "LEAST_RATE", 2**40)
    server, other = serve(Crowd(held_bytes=32 * MIB)), a_key()
    server.door.members.update({pem(device), pem(other)})
    with under_way(server, device, 32 * MIB) as connection:
        until(
            lambda: (
                select.select([connection], [], [], 0.05)[0]
                or (trickles and connection.sendall(b"x"))
            )
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.getheader("connection")) == (408, "close")
        until(lambda: server.ask(other, b"x" * MIB)[0] == 200)
    assert server.read == [MIB]


def test_a_device_that_is_shut_out_holds_nothing_and_its_connections_end(serve, device):
    server, other = serve(Crowd(held_bytes=32 * MIB)), a_key()
    server.door.members.update({pem(device), pem(other)})
    with under_way(server, device, 32 * MIB) as connection, server.connect() as theirs:
        assert server.ask(other, connection=theirs)[0] == 200
        assert server.ask(other, b"x" * MIB, connection=theirs)[0] == 503
        server.door.shut_out(pem(device))
        assert connection.recv(1) == b""
        until(lambda: server.ask(other, b"x" * MIB)[0] == 200)
        assert server.ask(device)[0] == 401


def test_the_system_asks_after_connections_that_are_silent():
    (listener,) = Door(Crowd(), claimed_key, is_signed).listen("127.0.0.1", 0)
    listener.listen()
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as one:
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_one_device_holds_its_part_and_no_more(serve, device):
    server, other = serve(Crowd(held_bytes=512 * MIB)), a_key()
    server.door.members.update({pem(device), pem(other)})
    with under_way(server, device, 32 * MIB), under_way(server, device, 32 * MIB):
        assert server.ask(device, **{"content-length": str(MIB)})[0] == 503
        assert server.ask(other, b"x" * MIB)[0] == 200


@pytest.mark.parametrize("sizes", [(0, 0), (0, MIB), (MIB, 0), (MIB, MIB)])
def test_requests_of_one_device_that_end_after_each_other_keep_their_connections(
    serve, device, sizes
):
    server = serve()
    server.door.members.add(pem(device))
    server.go_on.clear()
    with ExitStack() as stack:
        connections = []
        for at, size in enumerate(sizes):
            connections.append(stack.enter_context(server.connect()))
            connections[-1].sendall(head(device, size) + bytes(size))
            until(lambda at=at: server.reading == at + 1)
        server.go_on.set()
        for connection in connections:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            assert answer.status == 200
        until(lambda: len(server.read) == len(sizes))
        for connection in connections:
            assert server.ask(device, connection=connection)[0] == 200
    assert server.ask(device, **{"content-length": "0"})[0] == 200


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "before any handshake"])
def test_strangers_connections_are_bounded_and_a_device_gets_in(serve, device, encrypted):
    server = serve(Crowd(strangers=8), encrypted=encrypted)
    server.door.members.add(pem(device))
    with ExitStack() as stack:
        ours = stack.enter_context(server.connect())
        assert server.ask(device, connection=ours)[0] == 200
        crowd = [
            stack.enter_context(socket.create_connection(server.address, timeout=WAIT_S))
            for _ in range(40)
        ]
        # The oldest are closed, one for each that came: they read their end.
        for gone in crowd[:-8]:
            assert gone.recv(1) == b""
        # A device that comes now gets in, and one that had shown itself stays.
        assert server.ask(device, b"new")[0] == 200
        assert server.ask(device, b"old", connection=ours)[0] == 200
        # And not because all were closed: the last ones still stand there.
        crowd[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            crowd[-1].recv(1)


def test_a_devices_many_connections_are_not_all_kept_from_being_closed(serve, device):
    server = serve(Crowd(strangers=4))
    server.door.members.add(pem(device))
    with ExitStack() as stack:
        many = []
        for _ in range(40):
            many.append(stack.enter_context(server.connect()))
            assert server.ask(device, connection=many[-1])[0] == 200
        assert many[16].recv(1) == b"", "the first one beyond its sixteen is closed"
        for kept in (*many[:16], *many[-4:]):
            assert server.ask(device, connection=kept)[0] == 200


def test_headers_without_an_end_are_cut_off(serve, device, monkeypatch):
    came, take = [0], BoundedHeaders.data_received

    def counted(self, data):
        came[0] += len(data)
        take(self, data)

    monkeypatch.setattr(BoundedHeaders, "data_received", counted)
    server = serve()
    server.door.members.add(pem(device))
    for start in (b"GET / HTTP/1.1\r\nx: ", b"GET /", b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 10):
        with server.connect() as connection:
            came[0], sent, line = 0, len(start), b"y" * 4096
            connection.sendall(start)
            with pytest.raises(OSError):
                while sent < 2**26:
                    connection.sendall(line)
                    sent += len(line)
            assert came[0] <= MAX_HEADER_BYTES + READ_BYTES
    # A body is no header, in however many parts it comes, and after it another request may follow.
    with server.connect() as connection:
        for _ in range(2):
            body = os.urandom(5 * MAX_HEADER_BYTES)
            assert server.ask(device, body, connection=connection)[0] == 200
