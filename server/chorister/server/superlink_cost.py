"""What Flower's SuperLink does in every request and this server has no use for, left out.

A round makes some fifty requests for each device, and the SuperLink's processor time is what a
server runs out of first (docs/scale.md). Two things cost a part of it for nothing: a look for
ServerApps that have gone silent, which writes to the database, and layers around each request that
do nothing in this server's configuration.

Source: flwr 1.41, superlink/main.py, supercore/corestate/sql_corestate.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LOOK_EVERY_S = 1.0
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


def drop_idle_layers(app: Any) -> None:
    """Take layers that do nothing out of an ASGI app that has not served yet.

    Args:
        app: FastAPI's, as Flower makes it.
    """
    app.user_middleware = [
        layer for layer in app.user_middleware if _name(layer.cls) not in IDLE_LAYERS
    ]


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


def _name(layer: object) -> str:
    return getattr(layer, "__name__", "")
