"""The operator's desk on a real server: settings, keys and state from its folder."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from chorister.server.budget import FederationBudget
from chorister.server.key_file import read_signing_key
from chorister.server.members import revoked_devices
from chorister.server.operator import Operator
from chorister.server.plan import Plan, last_round, read_plan
from chorister.server.registry import Registry
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, read_rounds
from chorister.server.server_folder import FOLDER_VARIABLE, ServerFolder
from chorister.server.server_log import round_fields, write_line
from chorister.server.withdrawals import WITHDRAWALS_FILE, Withdrawals
from chorister.shared.errors import UsageError
from chorister.shared.files import hold_lock
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.privacy.limits import speaker_limit
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Federation
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

ROUND_LOCK = ".rounds.lock"
LOCK_WAIT_S = 60.0
DEVICE_WAIT_S = 600.0
log = logging.getLogger("chorister.server")


def open_operator() -> Operator:
    """Return the desk of the server whose folder the environment names, for running rounds.

    It holds the folder's lock on rounds until the process ends: a ServerApp that outlived its
    server and one that follows it never work on one ledger.

    Raises:
        UsageError: the environment names no server, or another process runs its rounds.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        raise UsageError(
            f"{FOLDER_VARIABLE} names a server's folder.", "nothing",
            "Start the app with `chorister server start`.",
        )  # fmt: skip
    folder = ServerFolder(Path(named))
    folder.state.mkdir(mode=0o700, exist_ok=True)
    if not hold_lock(folder.state / ROUND_LOCK, LOCK_WAIT_S):
        raise UsageError(
            "One process runs a server's rounds.", "another that does",
            "Wait for it to end; `chorister server status` names it.",
        )  # fmt: skip
    return desk(folder, running=True)


def desk(folder: ServerFolder, *, running: bool = False) -> Operator:
    """Return the desk of a server, to look at, or to run rounds from.

    Args:
        folder: of the server.
        running: for rounds: until the last that the plan wants now.

    Raises:
        UsageError: there is no server in the folder.
        BadSettings, BadLedger, BadWeights: settings or state were altered.
    """
    settings, machine = folder.federation(), folder.server_settings()
    authority = machine.authority_key
    ledger = LedgerFile(folder.ledger, owner="server", federation=settings.name)
    registry = Registry(folder.adapters)
    if running:
        done = len(read_rounds(folder.state / ROUNDS_FILE))
        wanted = max(1, last_round(read_plan(folder.plan_file), done))
        settings = settings.model_copy(update={"rounds": wanted})
    return Operator(
        settings=settings,
        run=machine.run,
        signing_key=read_signing_key(folder.signing_key),
        authority=authority,
        revoked=partial(revoked_devices, folder, authority, settings.name),
        withdrawals=Withdrawals(
            folder.state / WITHDRAWALS_FILE, authority=authority, federation=settings.name,
            ledger=ledger, registry=registry,
        ),
        registry=registry,
        budget=FederationBudget(
            folder.budget, speaker=speaker_limit(settings.speaker_privacy),
            federation=settings.name,
        ),
        ledger=ledger,
        randomness=SystemRandomness(),
        simulated=False,
        folder=folder.state,
        now_s=system_clock,
        on_round=partial(_tell_round, folder),
        may_begin=partial(_may_begin, folder),
        note=partial(write_line, folder.logs),
    )  # fmt: skip


def make_state(folder: ServerFolder, settings: Federation, spec: SharedAdapterSpec) -> None:
    """Write a new server's state: a first adapter that changes nothing, and an empty ledger.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = Adapter(np.zeros(spec.size, dtype=np.float32), spec.digest)
    Registry(folder.adapters).store(first, parent=None, round_id=None, survivors=0)
    LedgerFile(folder.ledger, owner="server", federation=settings.name)


def _may_begin(folder: ServerFolder, number: int, devices: Callable[[], int]) -> bool:
    """Wait until enough devices are connected; False where the plan has changed or none come."""
    waited_s = 0.0
    while waited_s <= DEVICE_WAIT_S:
        plan = read_plan(folder.plan_file)
        if not _wants(plan, number):
            return False
        if devices() >= plan.least_devices:
            return True
        time.sleep(1.0)
        waited_s += 1.0
    return False


def _wants(plan: Plan, number: int) -> bool:
    return not plan.stopping and number <= plan.target


def _tell_round(folder: ServerFolder, record: RoundRecord) -> None:
    write_line(folder.logs, "round", round_fields(record))


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file, {} where there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
