"""`chorister ui` as a process: this machine alone, one link at a time, and a clean end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chorister.client.ui_cli import main
from chorister.shared.errors import UsageError


class Server:
    """A page in a process of its own."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        code: str = "import sys; from chorister.shared.cli import main; sys.exit(main())",
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "ui", "--vault", str(folder / "vault"), "--no-browser",
             "--json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.link = self.next_link()
        self.port = int(urlsplit(self.link).port or 0)

    def next_link(self) -> str:
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            text += line
        return str(json.loads(text)["link"])

    def ask(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers=headers)
        found = connection.getresponse()
        found.read()
        return found

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("ui"))
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.communicate()


def test_it_is_served_to_this_machine_alone(server: Server) -> None:
    assert urlsplit(server.link).hostname == "127.0.0.1"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", server.port), timeout=5)
    with pytest.raises(OSError):
        socket.create_connection(("::1", server.port), timeout=5)


def test_what_is_not_its_own_is_refused_on_the_wire(server: Server) -> None:
    assert server.ask("/", Host="evil.example").status == 421
    assert server.ask("/").status == 403
    assert server.ask("/open?token=" + "0" * 64).status == 403
    upgraded = server.ask(
        "/", Upgrade="websocket", Connection="Upgrade",
        **{"Sec-WebSocket-Key": "x" * 24, "Sec-WebSocket-Version": "13"},
    )  # fmt: skip
    assert upgraded.status == 403
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
        assert raw.recv(100).split(b" ")[1] in (b"400", b"421")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(b"\x16\x03\x01 no http at all\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


def test_a_link_is_used_once_and_the_next_is_shown(server: Server) -> None:
    first = urlsplit(server.link)
    entered = server.ask(f"{first.path}?{first.query}")
    assert (entered.status, entered.headers["location"]) == (303, "/")
    cookie = str(entered.headers["set-cookie"]).partition(";")[0]
    assert server.ask("/state", Cookie=cookie).status == 200
    assert server.ask(f"{first.path}?{first.query}").status == 403
    second = urlsplit(server.next_link())
    assert second.query != first.query
    assert server.ask(f"{second.path}?{second.query}").status == 303
    server.next_link()


def test_ctrl_c_ends_it_cleanly_and_nothing_secret_was_said(server: Server) -> None:
    status, errors = server.end()
    assert status == 0
    assert errors == ""
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


# A page on which somebody has put a recording.
WITH_A_RECORDING = (
    "import sys, chorister.client.web.studio as s; from chorister.shared.cli import main\n"
    "init = s.Studio.__init__\n"
    "def begin(self, *a, **k):\n"
    "    init(self, *a, **k)\n"
    "    self.sounds.place('.audio')[1].write_bytes(b'speech')\n"
    "s.Studio.__init__ = begin\n"
    "sys.exit(main())"
)


def test_what_a_killed_page_left_is_removed_by_the_next_and_a_live_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    others = tmp_path / "chorister-ui-link"
    (tmp_path / "elsewhere").mkdir()
    others.symlink_to(tmp_path / "elsewhere")
    being_made = tmp_path / "chorister-ui-new"
    being_made.mkdir()
    killed, alive = (Server(tmp_path, code=WITH_A_RECORDING) for _ in range(2))
    left = set(tmp_path.glob("chorister-ui-*/*.audio"))
    assert len(left) == 2
    killed.process.kill()
    killed.process.communicate(timeout=60)
    assert set(tmp_path.glob("chorister-ui-*/*.audio")) == left, "SIGKILL leaves it"
    third = Server(tmp_path, code=WITH_A_RECORDING)
    here = set(tmp_path.glob("chorister-ui-*/*.audio"))
    assert len(here) == 2
    assert len(here & left) == 1, "that of the page that is still there"
    assert others.is_symlink()
    assert being_made.is_dir()
    for server in (alive, third):
        assert server.end() == (0, "")
    assert not list(tmp_path.glob("chorister-ui-*/*.audio"))


def test_a_terminal_that_is_closed_leaves_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = Server(tmp_path, code=WITH_A_RECORDING)
    assert list(tmp_path.glob("chorister-ui-*"))
    found.process.send_signal(signal.SIGHUP)
    _, errors = found.process.communicate(timeout=60)
    assert (found.process.returncode, errors) == (0, "")
    assert not list(tmp_path.glob("chorister-ui-*"))


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="served at a free port"):
            main(["--vault", str(tmp_path / "vault"), "--no-browser", "--port", str(port)])


@pytest.mark.parametrize(
    "options",
    [["--port", "99999"], ["--port", "x"], ["--idle-minutes", "0"], ["--idle-minutes", "nan"]],
)
def test_what_is_no_option_is_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--vault", str(tmp_path / "vault"), *options])
    assert caught.value.code == 2
