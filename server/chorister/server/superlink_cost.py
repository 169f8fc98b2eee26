"""What Flower's SuperLink does in every request and this server has no use for, left out.

A round makes some eighty requests for each device, and the SuperLink's processor time is what a
server runs out of first (docs/scale.md). Two things cost a part of it for nothing: a look for
ServerApps that have gone silent, which writes to the database, and layers around each request that
do nothing in this server's configuration. And forty threads that all want the database's one write
lock, each for five seconds at most, end in 'database is locked': fewer threads wait longer.

Source: flwr 1.41, superlink/main.py, supercore/corestate/sql_corestate.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

LOOK_EVERY_S = 1.0
# One interpreter runs one of them at a time, and SQLAlchemy's pool has 15 connections.
REQUEST_THREADS = 8
LOCK_WAIT_S = 60.0
# Event logs are off (superlink.py), a licence plug-in and tracing belong to other products. What
# authenticates, translates or refuses is not here.
IDLE_LAYERS = frozenset(
    {
        "ControlEventLogMiddleware",
        "ControlLicenseMiddleware",
        "FleetEventLogMiddleware",
        "RuntimeTracingMiddleware",
    }
)
CONTROL_LAYERS = frozenset(
    {"ControlAuthenticationMiddleware", "ControlSensitiveResponseMiddleware"}
)


def drop_idle_layers(app: Any) -> None:
    """Take layers that do nothing out of an ASGI app that has not served yet.

    Args:
        app: FastAPI's, as Flower makes it.
    """
    app.user_middleware = [
        layer for layer in app.user_middleware if _name(layer.cls) not in IDLE_LAYERS
    ]


def without_control(app: Any) -> Any:
    """Return the same app without the layers of the Control API, for a port that has none of it.

    Those layers look at the path and pass on what does not begin with /v1/control/; to be given
    only requests that `chorister.server.fleet_gate.fleet_only` lets through.

    Args:
        app: FastAPI's, as Flower makes it; it stays as it is.
    """
    every = app.user_middleware
    app.user_middleware = [layer for layer in every if _name(layer.cls) not in CONTROL_LAYERS]
    try:
        stack = app.build_middleware_stack()
    finally:
        app.user_middleware = every

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = app
        await stack(scope, receive, send)

    return serve


def look_for_lost_tasks_seldom(state: Any, clock: Callable[[], float] = time.monotonic) -> None:
    """Let Flower look for ServerApps that stopped beating once a second, not in every request.

    A beat is good for many seconds, so none is missed.

    Args:
        state: Flower's books, in SQL.
        clock: monotonic, in seconds.
    """
    look: Callable[[], None] = state._cleanup_expired_task_tokens
    looked_s = float("-inf")

    def look_if_due() -> None:
        nonlocal looked_s
        now_s = clock()
        if now_s - looked_s >= LOOK_EVERY_S:
            looked_s = now_s
            look()

    state._cleanup_expired_task_tokens = look_if_due


def wait_for_the_lock(state: Any) -> None:
    """Have Flower's books wait for SQLite's write lock as long as a request may take, and more.

    Args:
        state: Flower's books, in SQL; connections that it has open are made anew.
    """
    for books in (state, state.object_store):
        sa.event.listen(books._engine, "connect", _set_lock_wait)
        books._engine.dispose()


def _set_lock_wait(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(LOCK_WAIT_S * 1000)}")
    cursor.close()


def _name(layer: object) -> str:
    return getattr(layer, "__name__", "")
