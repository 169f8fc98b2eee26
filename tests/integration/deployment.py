"""A federation of real processes on this machine: authority, server and devices, by their commands.

Whatever can be done in this process is, since starting a process that loads torch takes seconds;
`server start` and `join` are processes of their own, as they are in a deployment.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chorister.server.rounds import RoundRecord, read_rounds
from chorister.server.server_folder import ServerFolder
from chorister.shared.bundle import BUNDLE_SHA256

SPEECH = Path(__file__).parents[2].parent / "shared" / "data" / "librispeech" / "test-clean"
CHORISTER = "import sys; from chorister.shared.cli import main; sys.exit(main())"
SETTINGS = {
    "local_steps = 8": "local_steps = 1",
    "expected_batch_size = 8": "expected_batch_size = 3",
    "dropout_fraction = 0.15": "dropout_fraction = 0.4",
    "stage_deadline_s = 300.0": "stage_deadline_s = {deadline_s}",
    "rounds = 20": "rounds = {rounds}",
}


def call(module: str, action: str, *arguments: object) -> None:
    """Run a command of Chorister in this process."""
    found = getattr(importlib.import_module(module), action)
    assert found([*map(str, arguments), "--quiet"]) == 0


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(found: Callable[[], Any], within_s: float, what: str) -> Any:
    """Return what a function finds, as soon as it finds something."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


@dataclass
class Deployment:
    """One federation below a folder.

    Attributes:
        root: of all files.
        deadline_s: of each stage.
        rounds: that the invitation speaks of.
        encrypted: False for the test that reads the traffic.
        dial: what devices dial, if not the server itself.
        prefix: of each process's command line.
    """

    root: Path
    deadline_s: float = 30.0
    rounds: int = 3
    encrypted: bool = True
    dial: str = ""
    prefix: tuple[str, ...] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server(self) -> ServerFolder:
        return ServerFolder(self.root / "server")

    @property
    def passphrase(self) -> Path:
        return self.root / "passphrase"

    def vault(self, name: str) -> Path:
        return self.root / "vaults" / name

    def make(self) -> None:
        """Authority, server, settings."""
        from chorister.server.key_file import read_signing_key

        self.root.mkdir(parents=True, exist_ok=True)
        self.passphrase.write_text("correct horse battery\n")
        (self.root / "vaults").mkdir()
        authority = self.root / "authority"
        call("chorister.server.authority_cli", "init", "--federation", "choir",
             "--folder", authority)  # fmt: skip
        key = read_signing_key(authority / "authority-key.pem").verify_key().raw.hex()
        port, local, page = free_ports(3)
        call("chorister.server.init_cli", "init", "--folder", self.server.root, "--federation",
             "choir", "--authority", key, "--host", "127.0.0.1", "--port", port, "--listen",
             "127.0.0.1", "--local-port", local, "--page-port", page)  # fmt: skip
        text = self.server.federation_file.read_text()
        for before, after in SETTINGS.items():
            assert before in text, before
            text = text.replace(before, after.format(**vars(self)))
        self.server.federation_file.write_text(text)

    def enrol(self, name: str, recordings: list[Path]) -> None:
        """A vault with a consent and enrolled recordings, as its speaker's command makes it."""
        policy = self.root / "policy.toml"
        policy.write_text('statement = "optional"\nleast_speech_s = 10.0\nleast_snr_db = 5.0\n')
        call("chorister.client.enrol_cli", "main", "--name", name, "--controller", "choir",
             "--policy", policy, "--vault", self.vault(name), "--passphrase-file",
             self.passphrase, *recordings)  # fmt: skip

    def join(self, name: str, *, admitted: bool = True) -> str:
        """Invitation, agreement, certificate, admission; return the device's pseudonym."""
        folder = self.root / "post" / name
        folder.mkdir(parents=True)
        authority = ("--folder", self.root / "authority")
        machine = self.server.server_settings()
        root = ("--root-certificate", self.server.tls / "ca.pem") if self.encrypted else ()
        call("chorister.server.authority_invite", "invite", *authority, "--server",
             self.dial or machine.public_address, *root, "--settings",
             self.server.federation_file, "--bundle", BUNDLE_SHA256,
             "--adapter-rank", machine.adapter_rank, "--adapter-placement",
             machine.adapter_placement, "--token", "--out", folder / "invitation")  # fmt: skip
        vault = ("--vault", self.vault(name), "--passphrase-file", self.passphrase)
        call("chorister.client.join_cli", "main", "--invite", folder / "invitation", "--yes",
             "--request", folder / "request", *vault)  # fmt: skip
        call("chorister.server.authority_cli", "approve", *authority, folder / "request",
             "--out", folder / "certificate", "--node", folder / "node")  # fmt: skip
        if admitted:
            call("chorister.server.status_cli", "admit", "--folder", self.server.root,
                 folder / "node")  # fmt: skip
        from chorister.shared.signing import Certificate

        return Certificate.from_bytes((folder / "certificate").read_bytes()).device_id

    def start(self, *arguments: object, log: str, code: str = CHORISTER) -> subprocess.Popen[bytes]:
        """A command of Chorister in a process and a session of its own."""
        (self.root / "out").mkdir(exist_ok=True)
        with (self.root / "out" / log).open("ab") as out:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, "-c", code, *map(str, arguments)],
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def start_server(self, code: str = CHORISTER) -> subprocess.Popen[bytes]:
        """`chorister server start`, once devices can connect."""
        before = len(self.events("started"))
        plain = () if self.encrypted else ("--insecure-loopback",)
        process = self.start(
            "server", "start", "--folder", self.server.root, *plain, log="server", code=code
        )
        wait_for(
            lambda: len(self.events("started")) > before or process.poll() is not None, 90,
            f"a server that listens\n{self.said('server')}",
        )  # fmt: skip
        assert process.poll() is None, self.said("server")
        return process

    def start_device(
        self, name: str, for_s: int = 600, code: str = CHORISTER
    ) -> subprocess.Popen[bytes]:
        """`chorister join`, on any power, at any time."""
        certificate = self.root / "post" / name / "certificate"
        joined = self.vault(name) / ".joined"
        first = () if joined.exists() else ("--certificate", certificate)
        joined.touch()
        return self.start(
            "join", *first, "--any-power", "--even-if-busy", "--threads", "1", "--for", for_s,
            "--vault", self.vault(name), "--passphrase-file", self.passphrase, log=name,
            code=code,
        )  # fmt: skip

    def run(self, rounds: int, when: int) -> None:
        """Plan rounds."""
        call("chorister.server.run_cli", "run", "--folder", self.server.root, "--rounds", rounds,
             "--when", when, "--detach")  # fmt: skip

    def events(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """What the server's log says of one kind of event."""
        path = self.server.logs / "server.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            line for line in lines
            if line["event"] == kind and all(line.get(k) == v for k, v in fields.items())
        ]  # fmt: skip

    def rounds_done(self) -> list[RoundRecord]:
        """The committed rounds."""
        return read_rounds(self.server.state / "rounds.jsonl")

    def online(self) -> int:
        """Devices that are connected, as the server says."""
        try:
            return int(json.loads(self.server.status_file.read_text())["online"])
        except (OSError, ValueError, KeyError):
            return 0

    def said(self, log: str) -> str:
        """What a process printed."""
        path = self.root / "out" / log
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9, of the process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=20)


@contextmanager
def deployment(root: Path, **choices: Any) -> Iterator[Deployment]:
    """A federation whose processes end with the block."""
    made = Deployment(root, **choices)
    made.make()
    try:
        yield made
    finally:
        for process in made.processes:
            kill(process)


def speakers(count: int, least_s: float = 30.0) -> list[list[Path]]:
    """Recordings of so many real speakers, a few sentences each."""
    import soundfile

    found = []
    for folder in sorted(SPEECH.iterdir())[:count]:
        taken, seconds = [], 0.0
        for path in sorted(folder.glob("*/*.opus")):
            length_s = soundfile.info(path).duration
            if length_s < 3.0:
                continue
            taken.append(path)
            seconds += length_s
            if seconds >= least_s and len(taken) >= 4:
                break
        found.append(taken)
    return found
