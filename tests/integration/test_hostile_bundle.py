"""A server that ships code: Flower's SuperNode runs it, a device of Chorister refuses it unread.

Both are connected to one real SuperLink, with TLS and authentication, and are sent the same message
of the same run. The bundle puts a module `chorister.client.app` before the installed one; were it
run, it would write a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.servicer.control import control_handlers

from chorister.client.bundle_guard import BundleGuard
from chorister.client.daemon import Daemon
from chorister.client.supernode import NotAdmitted, Unreachable, connected
from chorister.server import tls
from chorister.server.superlink import Addresses, SuperLink
from chorister.shared.bundle import BUNDLE_SHA256
from chorister.shared.node_key import NodeKey
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.randomness import SystemRandomness

WITHIN_S = 90
SHADOW = "chorister.client.app:app"
OTHER = "their_app:app"
SERVER = """
import json, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    until = time.time() + {within}
    while len(list(grid.get_node_ids())) < {nodes} and time.time() < until:
        time.sleep(0.5)
    content = RecordDict({{"chorister": ConfigRecord({{"message": b"x" * 32}})}})
    asked = [Message(content, node, "query.hello") for node in grid.get_node_ids()]
    said = {{}}
    for reply in grid.send_and_receive(asked, timeout={within}):
        reason = reply.error.reason if reply.has_error() else "answered"
        said[str(reply.metadata.src_node_id)] = reason
    path = Path({answers!r})
    path.with_suffix(".part").write_text(json.dumps(said))
    path.with_suffix(".part").rename(path)
"""
CLIENT = """
from pathlib import Path
Path({trace!r}).write_text("imported")
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.query("hello")
def hello(message, context):
    return Message(RecordDict(), reply_to=message)
"""


def a_bundle(client: str, trace: Path, answers: Path, nodes: int) -> bytes:
    """A bundle whose client component is code of its own."""
    module = client.partition(":")[0].replace(".", "/") + ".py"
    files = {
        "pyproject.toml": '[project]\nname = "chorister"\nversion = "1.0.0"\nlicense = "x"\n'
        '[tool.flwr.app]\npublisher = "chorister"\n[tool.flwr.app.components]\n'
        f'serverapp = "their_server:app"\nclientapp = "{client}"\n',
        "their_server.py": SERVER.format(within=WITHIN_S, nodes=nodes, answers=str(answers)),
        module: CLIENT.format(trace=str(trace)),
    }
    listed = "\n".join(
        f"{name},{hashlib.sha256(text.encode()).hexdigest()},{len(text) * 8}"
        for name, text in files.items()
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in (*files.items(), (".info/CONTENT", listed)):
            file.writestr(name, text)
    return archive.getvalue()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def superlink(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
    certificates = tmp_path / "tls"
    now_s = int(time.time())
    tls.make_certificate_authority(certificates, "choir", now_s)
    tls.make_server_certificate(certificates, ["127.0.0.1"], now_s)
    addresses = Addresses("127.0.0.1", free_port(), free_port())
    link = SuperLink(tmp_path / "superlink", certificates, addresses, SystemRandomness())
    link.start({}, subprocess.DEVNULL)
    link.address = f"127.0.0.1:{addresses.port}"
    link.root = (certificates / tls.CA_FILE).read_text()
    link.root_file = certificates / tls.CA_FILE
    yield link
    link.stop()


def admitted(link, name):
    key = NodeKey.generate(SystemRandomness())
    public = key.private_key().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key, link.register(pem, name)


def start_flowers_own(link, folder, key):
    """`flower-supernode` as anybody would start it."""
    path = folder / "node-key"
    path.write_bytes(
        key.private_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    binaries = Path(sys.executable).parent
    return subprocess.Popen(
        [
            str(binaries / "flower-supernode"), "--superlink", link.address,
            "--root-certificates", str(link.root_file), "--auth-supernode-private-key", str(path),
            "--port", str(free_port()),
        ],
        env=os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def run_bundle(link, bundle, answers):
    """Start a run of a bundle, and return what each node answered to its hello."""
    control_handlers.start_run(
        StartRunRequest(fab=Fab(content=bundle)),
        NoOpControlAuthnPlugin().validate_tokens_in_metadata([])[1],
        link.state, TRANSPORT_TYPE_GRPC_RERE,
    )  # fmt: skip
    until = time.monotonic() + WITHIN_S
    while not answers.exists() and time.monotonic() < until:
        time.sleep(0.3)
    return json.loads(answers.read_text())


@contextmanager
def our_device(link, folder, key):
    """A device of Chorister, connected until the block ends."""
    folder.mkdir()
    ledger = LedgerFile(folder / "ledger.jsonl", owner="ours", federation="choir")
    daemon = Daemon(
        federation="choir", folder=folder,
        connect=lambda: connected(link.address, link.root, key, BundleGuard((BUNDLE_SHA256,))),
        reason_to_wait=lambda: None, ledger=lambda: ledger,
    )  # fmt: skip
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        daemon.over.set()
        thread.join(timeout=20)


def test_another_certificate_than_the_invitations_is_no_server(superlink, tmp_path):
    key, _ = admitted(superlink, "ours")
    tls.make_certificate_authority(tmp_path / "other", "choir", int(time.time()))
    other = (tmp_path / "other" / tls.CA_FILE).read_text()
    guard, stranger = BundleGuard((BUNDLE_SHA256,)), NodeKey.generate(SystemRandomness())
    for root, name, error, what in [
        (other, key, Unreachable, "CERTIFICATE_VERIFY_FAILED"),
        (superlink.root, stranger, NotAdmitted, "register the file"),
    ]:
        connection = connected(superlink.address, root, name, guard)
        with pytest.raises(error, match=what), connection:
            pass
    with connected(superlink.address, superlink.root, key, guard) as node:
        assert node.pull() is None


def test_flower_runs_what_a_server_ships_and_this_device_refuses_it(superlink, tmp_path):
    key, ours_id = admitted(superlink, "ours")
    other, theirs_id = admitted(superlink, "theirs")
    trace, bundles = tmp_path / "trace", {}
    with our_device(superlink, tmp_path / "ours", key):
        for number, client in enumerate((SHADOW, OTHER)):
            answers = tmp_path / f"answers-{number}"
            bundles[client] = a_bundle(client, trace, answers, nodes=1)
            assert run_bundle(superlink, bundles[client], answers) == {str(ours_id): "bundle"}
        assert not trace.exists()
        # The control: the bundle is no dud. Where Flower's own node runs it, its code runs.
        supernode = start_flowers_own(superlink, tmp_path, other)
        try:
            answers = tmp_path / "answers-control"
            said = run_bundle(superlink, a_bundle(SHADOW, trace, answers, nodes=2), answers)
        finally:
            supernode.terminate()
            supernode.wait(timeout=20)
    assert said == {str(ours_id): "bundle", str(theirs_id): "answered"}
    assert trace.read_text() == "imported"
    noted = [json.loads(line) for line in read_lines(tmp_path / "ours" / "ledger.jsonl")]
    refusals = [e["fields"]["found"] for e in noted if e["kind"] == "refusal"]
    for bundle, found in zip(bundles.values(), refusals, strict=False):
        assert hashlib.sha256(bundle).hexdigest() in found
    assert len(refusals) == 3
    assert {p.name for p in (tmp_path / "ours").iterdir()} == {
        "ledger.jsonl", ".ledger.jsonl.lock", "ledger.refusals.json", "status.json",
    }  # fmt: skip
