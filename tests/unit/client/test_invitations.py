"""An invitation from a file or an address, whatever answers there."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from chorister.client.invitations import fetch, read_invite
from chorister.shared.errors import BadMessage, UsageError
from chorister.shared.invite import MAX_INVITE_BYTES

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@contextmanager
def server(answer):
    """A server on loopback that answers every connection as it is told, for a while."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    over = threading.Event()

    def serve():
        until = time.monotonic() + 30
        while not over.is_set() and time.monotonic() < until:
            try:
                peer, _ = listening.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(5)
                try:
                    peer.recv(65536)
                    answer(peer, over)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/invitation"
    finally:
        over.set()
        thread.join()
        listening.close()


def body(data, head=HEAD):
    return lambda peer, over: peer.sendall(head + b"\r\n" + data)


def test_it_comes_from_a_file_or_an_address(member, tmp_path):
    invite = member.an_invite()
    path = tmp_path / "invitation"
    path.write_bytes(invite.to_bytes())
    assert read_invite(str(path)) == invite
    with server(body(invite.to_bytes())) as address:
        assert read_invite(address) == invite


def test_a_file_that_is_missing_or_something_else(tmp_path):
    with pytest.raises(UsageError, match="can be read"):
        read_invite(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="can be read"):
        read_invite(str(tmp_path))
    (tmp_path / "other").write_bytes(b"hello")
    with pytest.raises(BadMessage):
        read_invite(str(tmp_path / "other"))
    (tmp_path / "large").write_bytes(bytes(MAX_INVITE_BYTES + 1))
    with pytest.raises(BadMessage, match="at most"):
        read_invite(str(tmp_path / "large"))


def test_plain_http_is_for_this_machine_alone():
    for address in ("http://example.org/x", "http://192.0.2.1/x"):
        with pytest.raises(UsageError, match="https"):
            fetch(address)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (body(b"", b"HTTP/1.1 404 Not Found\r\n"), "status 404"),
        (body(b"", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"), "status 302"),
        (body(b"", b"HTTP/1.1 307 Away\r\nLocation: https://example.org/\r\n"), "status 307"),
        (body(bytes(MAX_INVITE_BYTES + 1)), "more than"),
        (lambda peer, over: peer.sendall(b"\x00\xff garbage\r\n\r\n"), "RemoteProtocolError"),
        (lambda peer, over: None, "RemoteProtocolError"),
    ],
)
def test_whatever_an_address_answers_is_an_error_that_says_what(answer, what):
    with server(answer) as address, pytest.raises(UsageError, match=what):
        fetch(address)


def test_a_body_without_an_end_is_left():
    def drip(peer, over):
        peer.sendall(HEAD + b"\r\n")
        for _ in range(200):
            if over.wait(0.02):
                return
            peer.sendall(b"x")

    with server(drip) as address, pytest.raises(UsageError, match="no end after"):
        fetch(address, whole_s=0.3)


def test_garbage_with_the_right_status_is_no_invitation():
    with server(body(b"<html>")) as address, pytest.raises(BadMessage):
        read_invite(address)


def test_nobody_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    with pytest.raises(UsageError, match="ConnectError"):
        fetch(f"http://127.0.0.1:{port}/x")
