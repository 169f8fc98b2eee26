"""`chorister server start`: one server in the foreground, until a signal or `server stop`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType

from chorister.server.conductor import Conductor
from chorister.server.operator import ENVIRONMENT
from chorister.server.plan import read_plan, write_plan
from chorister.server.server_folder import FOLDER_VARIABLE, ServerFolder
from chorister.server.server_log import ServerLog
from chorister.server.server_options import parse_server, server_parser
from chorister.shared.console import say
from chorister.shared.errors import UsageError
from chorister.shared.files import hold_lock
from chorister.shared.randomness import SystemRandomness

EXAMPLES = """examples:
  chorister server start
      in the foreground; Ctrl-C or `chorister server stop` ends it
  chorister server start --log-to-stdout
      the same, with its log on standard output: for a service manager"""


def start(argv: Sequence[str]) -> int:
    """Run the server in the foreground: devices connect, rounds begin as the plan says."""
    parser = server_parser(
        "start", "Listen to devices and run the rounds that are wanted.", EXAMPLES
    )
    parser.add_argument(
        "--log-to-stdout", action="store_true", help="print the log, one JSON object a line"
    )
    parser.add_argument(
        "--insecure-loopback", action="store_true",
        help="without TLS, on 127.0.0.1 only: to look at the traffic in a test",
    )  # fmt: skip
    options, folder = parse_server(parser, argv)
    return run_server(folder, echo=options.log_to_stdout, encrypted=not options.insecure_loopback)


def run_server(folder: ServerFolder, *, echo: bool, encrypted: bool) -> int:
    """Run a server until it is told to stop, and return the exit status.

    Raises:
        UsageError: another server runs in the folder, a port is taken, or a file is missing.
        BadSettings, BadLedger, BadWeights: settings or state were altered.
    """
    machine = folder.server_settings()
    if not hold_lock(folder.lock_file, 1.0):  # whoever looks at it holds it for a moment
        raise UsageError(
            "One server runs in a folder.", f"another in '{folder.root}'",
            "Stop it first: chorister server stop.",
        )  # fmt: skip
    _check_state(folder)
    _forget_stopping(folder)  # it was said to an earlier process, which was killed before it could
    log = ServerLog(folder.logs, echo=echo)
    environment = {FOLDER_VARIABLE: str(folder.root.resolve()), ENVIRONMENT: "installed"}
    os.environ.update(_flower(folder))
    # Flower reads its environment when it is imported.
    from chorister.server.door import Crowd
    from chorister.server.page_server import PageServer
    from chorister.server.superlink import Addresses, SuperLink

    log.attach_flower()
    link = SuperLink(
        folder.flower, folder.tls,
        Addresses(machine.listen_host, machine.listen_port, machine.local_port),
        SystemRandomness(), encrypted=encrypted,
        crowd=Crowd(machine.most_strangers, machine.most_held_mib * 2**20),
    )  # fmt: skip
    page = PageServer(folder, machine.page_port)
    stopped = threading.Event()
    _on_signals(stopped)
    read_end, write_end = os.pipe()
    try:
        link.start(environment, write_end)
        os.close(write_end)
        reader = threading.Thread(
            target=log.follow, args=(os.fdopen(read_end, "rb"),), name="log", daemon=True
        )
        reader.start()
        page.start()
        conductor = Conductor(folder, link, log)
        conductor.begin()
        log.tell("started", pid=os.getpid(), port=machine.listen_port)
        if not echo:
            say(
                f"Devices connect to {machine.public_address} (port {machine.listen_port} here). "
                f"Page: http://127.0.0.1:{machine.page_port}/"
            )
        status = conductor.run(stopped.is_set)
    finally:
        page.stop()
        link.stop()
        folder.status_file.unlink(missing_ok=True)
    log.take_app()
    log.tell("stopped", status=status)
    _forget_stopping(folder)
    return status


def _check_state(folder: ServerFolder) -> None:
    """Refuse to start on altered settings or state: it is better said here than in a round."""
    from chorister.server.installed import desk
    from chorister.server.rounds import read_rounds

    operator = desk(folder)
    read_rounds(operator.rounds_path)
    operator.revoked()
    operator.withdrawals.devices()
    read_plan(folder.plan_file)


def _flower(folder: ServerFolder) -> dict[str, str]:
    return {
        "FLWR_HOME": str((folder.flower / "home").resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def _on_signals(stopped: threading.Event) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _forget_stopping(folder: ServerFolder) -> None:
    """A server that was asked to stop and did may begin rounds when it is started again."""
    plan = read_plan(folder.plan_file)
    if plan.stopping:
        from dataclasses import replace

        write_plan(folder.plan_file, replace(plan, stopping=False))
