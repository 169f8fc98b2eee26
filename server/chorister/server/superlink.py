"""Flower's SuperLink, held to what a federation needs: members only, and one door to the outside.

Flower 1.41 serves its Fleet, Control and Runtime APIs at one port. Here that port is bound to
127.0.0.1; devices see a second one, where nothing but the Fleet API answers. Connections of
devices are known by keys that were registered before (no device registers itself), the Control
API answers nobody, since the server's own process starts the runs, and a ServerApp is started only
by the process that knows this server's secret.

Source: flwr 1.41, superlink/cli/flower_superlink.py, superlink/main.py and, for what a device
signs, superlink/routers/fleet/node_auth.py.
"""

from __future__ import annotations

import asyncio
import binascii
import datetime
import os
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from flwr.common.constant import (
    ISOLATION_MODE_PROCESS,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
    TRANSPORT_TYPE_GRPC_RERE,
    Status,
    SubStatus,
)
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    NodeStatus,
)
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.state.schema.linkstate_models import Node as NodeModel
from flwr.superlink.auth_plugin import ControlAuthnPlugin, NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.servicer.control import control_handlers

from chorister.server import tls
from chorister.server.door import BoundedHeaders, Crowd, Door, Headers
from chorister.server.fleet_gate import fleet_only
from chorister.server.superlink_cost import (
    REQUEST_THREADS,
    drop_idle_layers,
    look_for_lost_tasks_seldom,
    wait_for_the_lock,
    without_control,
)
from chorister.shared.bundle import make_bundle
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.randomness import Randomness

DATABASE_FILE = "superlink.db"
SECRET_FILE = "superexec.secret"  # noqa: S105 (the name of a file)
LOCAL_HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
_ACCOUNT = NoOpControlAuthnPlugin().validate_tokens_in_metadata([])[1]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a SuperLink listens.

    Attributes:
        host: for devices.
        port: for devices.
        local_port: on 127.0.0.1, for the ServerApp.
    """

    host: str
    port: int
    local_port: int


class NobodyControls(ControlAuthnPlugin):
    """Refuses every request to the Control API: runs are started by the server's own process."""

    def __init__(self) -> None:
        pass

    def get_login_details(self) -> None:
        """Return None: nobody logs in."""

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Return that the request is refused."""
        return False, None

    def get_auth_tokens(self, device_code: str) -> None:
        """Return None: nobody logs in."""

    def refresh_tokens(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """Return that there is nothing to refresh."""
        return None, None


class SuperLink:
    """One SuperLink, in threads of this process, and the process that starts its ServerApps.

    Args:
        flower: folder of its database and secret; made if absent.
        certificates: folder with the files of `chorister.server.tls`.
        addresses: where it listens.
        randomness: of the secret.
        encrypted: False speaks plain HTTP, to registered devices still; for tests on 127.0.0.1.
        crowd: how many strangers, and how many bytes of requests, it puts up with.

    Raises:
        UsageError: plain HTTP is asked for elsewhere than on 127.0.0.1.
    """

    def __init__(
        self,
        flower: Path,
        certificates: Path,
        addresses: Addresses,
        randomness: Randomness,
        *,
        encrypted: bool = True,
        crowd: Crowd = Crowd(),  # noqa: B008 (it cannot be changed)
    ) -> None:
        if not encrypted and addresses.host != LOCAL_HOST:
            raise UsageError(
                "A connection without TLS stays on this machine.", addresses.host,
                f"Listen on {LOCAL_HOST}, or use TLS.",
            )  # fmt: skip
        flower.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._flower = flower
        self._addresses = addresses
        self._encrypted = encrypted
        self._ca_file = certificates / tls.CA_FILE
        self._key_file = certificates / tls.KEY_FILE
        self._certificate_file = certificates / tls.CERTIFICATE_FILE
        secret = randomness.bytes(32)
        write_atomically(flower / SECRET_FILE, secret)
        self._app = create_app(self._config(secret), SuperLinkLifespan)
        drop_idle_layers(self._app)
        _let_devices_return(self.state)
        look_for_lost_tasks_seldom(self.state)
        wait_for_the_lock(self.state)
        self._door = Door(crowd, claimed_key, is_signed)
        self._door.members.update(self.registered())
        self._servers: list[uvicorn.Server] = []
        self._listeners: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._starter: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> LinkState:
        """Flower's own books of nodes, runs and messages."""
        state: LinkState = self._app.state.linkstate_factory.state()
        return state

    def start(self, environment: dict[str, str], output: int | None = None) -> None:
        """Listen, and start the process that starts ServerApps.

        Args:
            environment: of the ServerApps, beside this process's.
            output: file descriptor for what they print; None for this process's.

        Raises:
            UsageError: a port is taken.
        """
        try:
            self._listeners = self._door.listen(self._addresses.host, self._addresses.port)
        except OSError:
            raise self._not_listening() from None
        self._servers = [self._server(local=True), self._server(local=False)]
        self._thread = threading.Thread(target=self._serve, name="superlink", daemon=True)
        self._thread.start()
        self._wait_until_up()
        self._starter = self._start_starter(environment, output)

    def stop(self) -> None:
        """End the ServerApps and stop listening."""
        if self._starter is not None:
            self._starter.terminate()
            try:
                self._starter.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._starter.kill()
                self._starter.wait(timeout=5)
        for server in self._servers:
            server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=10)

    def alive(self) -> bool:
        """Return whether it listens and can start ServerApps."""
        threads = self._thread is not None and self._thread.is_alive()
        return threads and self._starter is not None and self._starter.poll() is None

    def register(self, public_key_pem: bytes, name: str) -> int:
        """Let a device's connection in, and return its node's number; twice is the same as once."""
        self._door.members.add(public_key_pem)
        known = self.state.get_node_id_by_public_key(public_key_pem)
        if known is not None:
            return int(known)
        account = _account()
        try:
            made = self.state.create_node(
                account.flwr_aid, account.account_name, public_key_pem, 30, name=name
            )
        except ValueError:  # a key that was let in before: Flower takes none twice
            return _take_back(self.state, public_key_pem)
        return int(made)

    def unregister(self, public_key_pem: bytes) -> None:
        """Let a device's connection in no more, and close those that are open."""
        self._door.shut_out(public_key_pem)
        known = self.state.get_node_id_by_public_key(public_key_pem)
        if known is not None:
            self.state.delete_node(_account().flwr_aid, known)

    def registered(self) -> list[bytes]:
        """Return the keys, in PEM, that are let in; they outlive a server in Flower's database."""
        statuses = [NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE]
        return [node.public_key for node in self.state.get_node_info(statuses=statuses)]

    def forget_connections(self) -> None:
        """Count nobody as connected until it is heard of: for a server that has just started."""
        for node in self.state.get_node_info(statuses=[NodeStatus.ONLINE]):
            self.state.deactivate_node(node.node_id)

    def online(self) -> int:
        """Return how many devices are connected."""
        return len(self.state.get_node_info(statuses=[NodeStatus.ONLINE]))

    def start_run(self) -> int:
        """Start the ServerApp with the code-free bundle and return the run's number."""
        request = StartRunRequest(fab=Fab(content=make_bundle()))
        response = control_handlers.start_run(
            request, _account(), self.state, TRANSPORT_TYPE_GRPC_RERE
        )
        return int(response.run_id)

    def end_run(self, run_id: int) -> None:
        """Take a run out of Flower's books: its ServerApp is stopped, its messages are dropped."""
        self.state.stop_run(run_id)

    def unfinished_runs(self) -> list[int]:
        """Return the runs that are waiting or going on."""
        statuses = [Status.PENDING, Status.STARTING, Status.RUNNING]
        return [int(run.run_id) for run in self.state.get_run_info(statuses=statuses)]

    def how_ended(self, run_id: int) -> str:
        """Return why a run ended, in Flower's words; '' where it was completed."""
        found = self.state.get_run_status({run_id}).get(run_id)
        if found is None or found.sub_status == SubStatus.COMPLETED:
            return ""
        return f"{found.sub_status}: {found.details}"

    def _config(self, secret: bytes) -> SuperLinkLifespanConfig:
        pem: tuple[bytes, bytes, bytes] | None = None
        if self._encrypted:
            pem = (
                self._ca_file.read_bytes(),
                self._certificate_file.read_bytes(),
                self._key_file.read_bytes(),
            )
        return SuperLinkLifespanConfig(
            control_address="",
            health_server_address=None,
            host=LOCAL_HOST,
            port=self._addresses.local_port,
            insecure=not self._encrypted,
            certificates=pem,
            superexec_auth_secret=secret,
            authn_plugin=NobodyControls(),
            event_log_plugin=None,
            fleet_event_log_plugin=None,
            enable_event_log=False,
            artifact_provider=None,
            enable_supernode_auth=True,
            fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
            fleet_api_address=None,
            simulation=False,
            ssl_ca_certfile=str(self._ca_file) if self._encrypted else None,
            ssl_certfile=str(self._certificate_file) if self._encrypted else None,
            ssl_keyfile=str(self._key_file) if self._encrypted else None,
            database=str(self._flower / DATABASE_FILE),
            isolation=ISOLATION_MODE_PROCESS,
            runtime_dependency_install=False,
        )

    def _server(self, *, local: bool) -> uvicorn.Server:
        app: Any = self._app if local else fleet_only(without_control(self._app), self._door)
        return uvicorn.Server(
            uvicorn.Config(
                app=app,
                host=LOCAL_HOST if local else self._addresses.host,
                port=self._addresses.local_port if local else self._addresses.port,
                # The app's resources are opened once, by the first of the two.
                lifespan="on" if local else "off",
                interface="asgi3",
                http="auto" if local else BoundedHeaders,
                ws="none",
                proxy_headers=False,
                access_log=False,
                log_config=None,
                server_header=False,
                ssl_certfile=str(self._certificate_file) if self._encrypted else None,
                ssl_keyfile=str(self._key_file) if self._encrypted else None,
                timeout_graceful_shutdown=3,
            )
        )

    def _serve(self) -> None:
        async def both() -> None:
            current_default_thread_limiter().total_tokens = REQUEST_THREADS
            local, fleet = self._servers
            await asyncio.gather(_serve_quietly(local), _serve_quietly(fleet, self._listeners))

        asyncio.run(both())

    def _wait_until_up(self) -> None:
        waited = threading.Event()
        for _ in range(int(START_TIMEOUT_S / 0.1)):
            if all(server.started for server in self._servers):
                return
            if self._thread is None or not self._thread.is_alive():
                break
            waited.wait(0.1)
        self.stop()
        raise self._not_listening()

    def _not_listening(self) -> UsageError:
        ports = f"{self._addresses.local_port} and {self._addresses.port}"
        return UsageError(
            f"A server listens on ports {ports}.", "one that is taken, or not allowed",
            "Stop what uses it (ss -ltnp), or choose others in server.toml.",
        )  # fmt: skip

    def _start_starter(
        self, environment: dict[str, str], output: int | None
    ) -> subprocess.Popen[bytes]:
        binaries = Path(sys.executable).parent
        command = [
            str(binaries / "flower-superexec"), "--runtime-api-address",
            f"{LOCAL_HOST}:{self._addresses.local_port}", "--parent-pid", str(os.getpid()),
            "--superexec-auth-secret-file", str(self._flower / SECRET_FILE),
        ]  # fmt: skip
        if self._encrypted:
            command += ["--root-certificates", str(self._ca_file)]
        else:
            command.append("--insecure")
        path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
        return subprocess.Popen(  # noqa: S603 (our own command line)
            command,
            env={**os.environ, **environment, "PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            stdin=subprocess.DEVNULL,
        )


def claimed_key(headers: Headers) -> bytes:
    """Return the key, in PEM, that a request's headers name; b'' where they name none."""
    try:
        return b64decode(headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), b""), validate=True)
    except binascii.Error:
        return b""


def is_signed(key: bytes, headers: Headers) -> bool:
    """Return whether a key signed a request, as Flower's SuperNodes do, and lately."""
    try:
        signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER.encode()], validate=True)
        stamp = headers[TIMESTAMP_HEADER.encode()]
        age_s = (now() - datetime.datetime.fromisoformat(stamp.decode("ascii"))).total_seconds()
        in_time = -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        return in_time and verify_signature(bytes_to_public_key(key), stamp, signature)
    except (KeyError, ValueError, TypeError):
        return False


def _let_devices_return(state: LinkState) -> None:
    """Let a device that holds a node's key connect anew, although it counts as connected.

    Flower refuses it until the missing heartbeats are noticed, up to a minute: so long a device
    that crashed, or that a server's crash cut off, would be away.
    """
    activate = state.activate_node

    def activate_anew(node_id: int, heartbeat_interval: float) -> bool:
        if activate(node_id, heartbeat_interval):
            return True
        return state.deactivate_node(node_id) and activate(node_id, heartbeat_interval)

    state.activate_node = activate_anew  # type: ignore[method-assign]


def _take_back(state: Any, public_key_pem: bytes) -> int:
    """Let a key in again that was shut out: its device's admission ended, and there is a new one.

    Flower keeps the row of a deleted node, and its key with it.
    """
    with state.session() as session:
        session.execute(
            sa.update(NodeModel)
            .where(
                NodeModel.public_key == public_key_pem,
                NodeModel.status == NodeStatus.UNREGISTERED,
            )
            .values(status=NodeStatus.REGISTERED, unregistered_at=None)
        )
    found = state.get_node_id_by_public_key(public_key_pem)
    if found is None:
        raise TypeError("Flower's books refuse a key that they do not hold")
    return int(found)


def _account() -> AccountInfo:
    if _ACCOUNT is None:
        raise TypeError("Flower's own account is missing")
    return _ACCOUNT


async def _serve_quietly(
    server: uvicorn.Server, listeners: list[socket.socket] | None = None
) -> None:
    # uvicorn leaves with SystemExit where a port is taken; who waits is told by `started`.
    try:
        await server.serve(sockets=listeners)
    except SystemExit:
        return
