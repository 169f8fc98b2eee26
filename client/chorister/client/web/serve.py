"""The server itself: one port of this machine, for this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from chorister.client.web.guard import HOST, LINK, Guard, Sessions
from chorister.client.web.routes import build
from chorister.client.web.studio import Studio
from chorister.shared.errors import UsageError

_LOOK_S = 5.0
_GRACE_S = 3
_MOST_REQUESTS = 64


def bind(port: int) -> socket.socket:
    """Return a socket that listens at a port of 127.0.0.1; 0 lets the system choose.

    Raises:
        UsageError: the port is taken, or may not be used.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UsageError(
            "The page is served at a free port.", f"{port}: {error.strerror}",
            "Leave --port out, or choose another.",
        ) from None  # fmt: skip
    return listening


def serve(
    studio: Studio,
    sessions: Sessions,
    listening: socket.socket,
    on_link: Callable[[str], None],
) -> None:
    """Serve the page until the process is told to end.

    Args:
        studio: what the page works on; it is closed afterwards.
        sessions: who is let in.
        listening: as `bind` gives it.
        on_link: told each new link, the first one as soon as the server answers.
    """
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        Guard(build(studio), sessions, port),
        # Nothing that is asked for is logged: links and names stand in addresses. The guard shows
        # what fails.
        access_log=False,
        log_level="critical",
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    try:
        asyncio.run(_run(server, studio, sessions, listening, on_link, port))
    finally:
        studio.stop()
        listening.close()


class _Server(uvicorn.Server):
    """Leaves the signals to us: its own way raises them again at the end, as a traceback."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


async def _run(
    server: uvicorn.Server,
    studio: Studio,
    sessions: Sessions,
    listening: socket.socket,
    on_link: Callable[[str], None],
    port: int,
) -> None:
    loop = asyncio.get_running_loop()
    # A terminal's window that is closed sends SIGHUP: what was recorded must not outlive it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Where it runs in a thread of a test there are no signals to hear.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, _end, server, studio)
    watch = asyncio.create_task(_watch(server, studio, sessions, on_link, port))
    try:
        await server.serve([listening])
    finally:
        watch.cancel()


def _end(server: uvicorn.Server, studio: Studio) -> None:
    server.should_exit = True
    studio.worker.cancel_all()


async def _watch(
    server: uvicorn.Server,
    studio: Studio,
    sessions: Sessions,
    on_link: Callable[[str], None],
    port: int,
) -> None:
    """Show every new link, and lock the vault when nobody has used it for long."""
    shown = ""
    passed_s = 0.0
    while True:
        if server.started and sessions.link != shown:
            shown = sessions.link
            on_link(f"http://{HOST}:{port}{LINK}?token={shown}")
        await asyncio.sleep(0.2)
        passed_s += 0.2
        if passed_s >= _LOOK_S:
            passed_s = 0.0
            with studio.lock:
                studio.lock_if_idle()
