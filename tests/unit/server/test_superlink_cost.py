"""What is left out of every request, and above all what is not."""

from __future__ import annotations

import sqlite3
import threading
from types import SimpleNamespace

import pytest

from chorister.server.door import Crowd, Door
from chorister.server.fleet_gate import fleet_only
from chorister.server.superlink import Addresses, SuperLink, claimed_key, is_signed
from chorister.server.superlink_cost import (
    CONTROL_LAYERS,
    IDLE_LAYERS,
    LOCK_WAIT_S,
    LOOK_EVERY_S,
    drop_idle_layers,
    look_for_lost_tasks_seldom,
    without_control,
)
from chorister.shared.randomness import SystemRandomness


@pytest.fixture
def link(tmp_path):
    where = Addresses("127.0.0.1", 9, 10)
    return SuperLink(tmp_path / "flower", tmp_path, where, SystemRandomness(), encrypted=False)


def _layers(app):
    return [getattr(layer.cls, "__name__", "") for layer in app.user_middleware]


def test_a_superlink_keeps_every_layer_that_authenticates_or_refuses(link):
    kept = _layers(link._app)
    assert "NodeAuthMiddleware" in kept
    assert "ControlAuthenticationMiddleware" in kept
    assert "ProtobufTranslationMiddleware" in kept
    assert not IDLE_LAYERS & set(kept)


def test_the_layers_that_are_dropped_are_those_that_flower_has():
    """A name that Flower changed would be dropped no more, and nobody would notice."""
    from flwr.superlink.main import _get_middleware

    there = SimpleNamespace(user_middleware=_get_middleware())
    before = _layers(there)
    assert set(before) > IDLE_LAYERS | CONTROL_LAYERS
    drop_idle_layers(there)
    assert _layers(there) == [name for name in before if name not in IDLE_LAYERS]


def test_event_logs_are_off_or_their_layers_would_be_missed(link):
    config = link._config(b"secret")
    assert not config.enable_event_log
    assert config.fleet_event_log_plugin is None


def test_lost_tasks_are_looked_for_once_a_second_however_many_requests_come(link):
    looks, now = [], [100.0]
    books = SimpleNamespace(_cleanup_expired_task_tokens=lambda: looks.append(now[0]))
    look_for_lost_tasks_seldom(books, lambda: now[0])
    for _ in range(50):
        books._cleanup_expired_task_tokens()
    assert looks == [100.0]
    now[0] += LOOK_EVERY_S
    books._cleanup_expired_task_tokens()
    assert looks == [100.0, 101.0]


def test_flowers_own_books_go_through_it(link):
    assert link.state._cleanup_expired_task_tokens.__name__ == "look_if_due"
    assert link.unfinished_runs() == []


def _ask(app, path):
    """Send one request without any papers, and return the status."""
    import asyncio

    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/protobuf")], "scheme": "http",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("call", ["pull-messages", "push-object", "activate-node", "get-fab"])
def test_without_the_control_layers_a_stranger_is_still_refused(link, call):
    path = f"/v1/fleet/{call}"
    assert _ask(link._app, path) == _ask(without_control(link._app), path) == 401


def test_the_control_api_is_not_behind_the_fleet_door_and_answers_nobody_elsewhere(link):
    door = fleet_only(without_control(link._app), Door(Crowd(), claimed_key, is_signed))
    before = _layers(link._app)
    for call in ("start-run", "list-runs"):
        assert _ask(door, f"/v1/control/{call}") == 404
        assert _ask(link._app, f"/v1/control/{call}") >= 400
    assert _layers(link._app) == before, "the local port keeps them"
    assert set(before) > CONTROL_LAYERS


def test_flowers_books_wait_for_the_lock_longer_than_a_request_takes(link):
    for books in (link.state, link.state.object_store):
        with books.session() as session:
            (waits_ms,) = session.connection().exec_driver_sql("PRAGMA busy_timeout").one()
        assert waits_ms == LOCK_WAIT_S * 1000 > 30_000


def test_a_locked_database_is_waited_for(link, tmp_path):
    """Flower's own five seconds would end it."""
    other = sqlite3.connect(tmp_path / "flower" / "superlink.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    done = []
    asker = threading.Thread(target=lambda: done.append(link.unfinished_runs()))
    asker.start()
    asker.join(timeout=6.0)
    assert not done, "it waits"
    other.execute("COMMIT")
    asker.join(timeout=60.0)
    assert done == [[]]
