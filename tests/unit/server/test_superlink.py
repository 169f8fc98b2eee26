"""The door of a SuperLink: devices come in by it, and nothing else does."""

from __future__ import annotations

import asyncio

import pytest

from chorister.server.door import Crowd, Door
from chorister.server.fleet_gate import fleet_only
from chorister.server.superlink import (
    Addresses,
    NobodyControls,
    SuperLink,
    claimed_key,
    is_signed,
)
from chorister.shared.errors import UsageError
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.randomness import SystemRandomness


class Open(Door):
    """Everybody is a device: these tests are of paths."""

    def key_of(self, ends, headers):
        return b"a device's"


def _ask(path, kind="http", raw=None):
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope["path"])

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind, "path": path, "raw_path": (raw or path).encode("latin-1"),
        "headers": [(b"content-length", b"0")],
    }  # fmt: skip
    asyncio.run(fleet_only(app, Open(Crowd(), claimed_key, is_signed))(scope, receive, send))
    return passed, sent


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/v1/fleet/activate-node"])
def test_devices_come_in(path):
    assert _ask(path) == ([path], [])


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/health", "/v1/control/start-run", "/v1/runtime/acquire-task",
     "/v1/fleet", "/V1/fleet/pull-messages", "//v1/fleet/x", "/x/v1/fleet/y", ""],
)  # fmt: skip
def test_nothing_else_does(path):
    passed, sent = _ask(path)
    assert not passed
    assert sent[0]["status"] == 404


def test_no_escape_makes_another_path_of_it():
    passed, _ = _ask("/v1/fleet/../control/start-run", raw="/v1/fleet/%2e%2e/control/start-run")
    assert not passed


def test_no_websocket_is_opened():
    passed, sent = _ask("/v1/fleet/x", kind="websocket")
    assert not passed
    assert sent[0]["type"] == "websocket.close"


def test_the_control_api_knows_nobody():
    plugin = NobodyControls()
    assert plugin.validate_tokens_in_metadata([("authorization", "anything")]) == (False, None)
    assert plugin.refresh_tokens([]) == (None, None)
    assert plugin.get_login_details() is None


def test_plain_http_stays_on_this_machine(tmp_path):
    with pytest.raises(UsageError, match="stays on this machine"):
        SuperLink(
            tmp_path, tmp_path, Addresses("192.0.2.1", 1, 2), SystemRandomness(), encrypted=False
        )


@pytest.fixture
def link(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return SuperLink(
        tmp_path / "flower", tmp_path, Addresses("127.0.0.1", 1, 2), SystemRandomness(),
        encrypted=False,
    )  # fmt: skip


def test_a_key_is_registered_once_and_let_out_again(link, office):
    key = office.admission().pem()
    number = link.register(key, "a")
    assert link.register(key, "a") == number
    closed = []
    link._door.shut_out = closed.append
    link.unregister(key)
    link.unregister(key)
    assert link.state.get_node_id_by_public_key(key) is None
    assert closed == [key, key], "the door closes what is open"


def test_a_device_that_crashed_comes_back_at_once(link, office):
    number = link.register(office.admission().pem(), "a")
    assert link.state.activate_node(number, 30)
    assert link.online() == 1
    assert link.state.activate_node(number, 30)
    assert link.online() == 1
    assert not link.state.activate_node(number + 1, 30)


def test_after_a_start_nobody_counts_as_connected(link, office):
    link.state.activate_node(link.register(office.admission().pem(), "a"), 30)
    link.forget_connections()
    assert link.online() == 0


def test_a_run_is_of_the_code_free_bundle_and_can_be_dropped(link):
    from chorister.shared.bundle import BUNDLE_SHA256

    run_id = link.start_run()
    (run,) = link.state.get_run_info(run_ids=[run_id])
    assert run.fab_hash == BUNDLE_SHA256
    assert link.unfinished_runs() == [run_id]
    link.end_run(run_id)
    assert link.unfinished_runs() == []
    assert link.how_ended(run_id)


def test_the_serverapps_secret_is_for_its_owner_only(link, tmp_path):
    assert (tmp_path / "flower" / "superexec.secret").stat().st_mode & 0o077 == 0


def test_a_device_that_was_shut_out_is_let_in_again_by_a_new_admission(tmp_path):
    where = Addresses("127.0.0.1", 19192, 19193)
    link = SuperLink(tmp_path / "f", tmp_path, where, SystemRandomness(), encrypted=False)
    key = NodeAdmission("choir", "a" * 16, NodeKey.generate(SystemRandomness()).public_bytes(), 0,
                        1, b"").pem()  # fmt: skip
    node = link.register(key, "a" * 16)
    assert link.registered() == [key]
    link.unregister(key)
    assert link.registered() == []
    assert not link.state.activate_node(node, 30)
    assert link.register(key, "a" * 16) == node
    assert link.registered() == [key]
    assert link.state.activate_node(node, 30)
