"""Serves the operator's page and metrics on 127.0.0.1: it reads, and nothing can be asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from chorister.server.server_folder import ServerFolder
from chorister.server.server_page import render_metrics, render_page
from chorister.server.snapshot import take_snapshot
from chorister.shared.errors import ChoristerError

HOST = "127.0.0.1"
_HTML, _TEXT, _JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"),
]  # fmt: skip
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class PageServer:
    """The page of one server, in a thread of its own.

    Args:
        folder: of the server.
        port: on 127.0.0.1.
    """

    def __init__(self, folder: ServerFolder, port: int) -> None:
        self._folder = folder
        self._port = port
        config = uvicorn.Config(
            app=self._answer, host=HOST, port=port, lifespan="off", access_log=False,
            interface="asgi3", proxy_headers=False,
            log_config=None, server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)

    def start(self) -> None:
        """Serve until stopped. A port that is taken costs the page, not the federation."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def serve_here(self) -> None:
        """Serve in this thread until a signal ends it."""
        self._server.run()

    def _serve(self) -> None:
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that the port is taken
            asyncio.run(self._server.serve())

    async def _answer(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Send
    ) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = await asyncio.to_thread(self._page, scope)
        head = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": head + _HEADERS})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body})

    def _page(self, scope: MutableMapping[str, Any]) -> tuple[int, str, bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, _TEXT, b"This page reads only.\n"
        if not _is_local(scope):
            # A name that a web page of somebody else's resolves to this machine reads nothing.
            return 421, _TEXT, b"This page answers to 127.0.0.1 and localhost.\n"
        path = scope["path"]
        if path not in ("/", "/metrics", "/status.json"):
            return 404, _TEXT, b"There is /, /metrics and /status.json.\n"
        try:
            found = take_snapshot(self._folder)
        except ChoristerError as error:
            return 500, _TEXT, f"{error}\n".encode()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", render_metrics(found).encode()
        if path == "/status.json":
            return 200, _JSON, json.dumps(found.to_plain(), allow_nan=False).encode()
        return 200, _HTML, render_page(found).encode()


def _is_local(scope: MutableMapping[str, Any]) -> bool:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and hosts[0].rpartition(":")[0] in (HOST, "localhost")
