"""Backup and restoration of a server: what must not be lost, as it was at one moment.

A round writes budget, ledger, registry and list of rounds in that order. A copy is taken in the
opposite order, and again if a round ended meanwhile: so it is what a crash could have left, which a
server knows how to go on from (`chorister.server.recovery`). A restoration that would forget what
is known elsewhere (in the folder that is there, or by a later checkpoint) is refused.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from chorister.server.budget import FederationBudget
from chorister.server.inspection import inspect
from chorister.server.installed import ROUND_LOCK
from chorister.server.key_file import read_signing_key
from chorister.server.plan import Plan, read_plan, write_plan
from chorister.server.registry import INDEX, Registry
from chorister.server.rounds import ROUNDS_FILE, read_rounds
from chorister.server.sealed_archive import open_sealed, read_header, seal
from chorister.server.server_folder import ServerFolder
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.files import hold_lock, sync_folder, write_atomically
from chorister.shared.privacy.crosscheck import first_difference
from chorister.shared.privacy.ledger import Checkpoint, verify
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.privacy.limits import speaker_limit
from chorister.shared.randomness import Randomness, SystemRandomness

TRIES = 10
_JOURNALS = ("ledger.jsonl", "budget.jsonl")
_LEFT_OUT = ("flower", "logs", "running.json")
_MOST_BYTES = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restoration did.

    Attributes:
        rounds: committed in it.
        entries: of its ledger.
        forgot: entries that the folder had and the backup lacks; 0 where it forgot nothing.
        former: where the folder that was there has gone; None where there was none.
    """

    rounds: int
    entries: int
    forgot: int
    former: Path | None


def make_backup(folder: ServerFolder, passphrase: str, randomness: Randomness) -> bytes:
    """Return a sealed copy of a server, running or not.

    Raises:
        UsageError: there is no server in the folder, the passphrase is too short, or rounds
            followed each other too fast to copy one moment.
        BadLedger, BadWeights: its state was altered.
    """
    settings = folder.federation()
    machine = folder.server_settings()
    for _ in range(TRIES):
        before = _moment(folder)
        data = _copy(folder)
        if _moment(folder) == before:
            break
        time.sleep(1.0)
    else:
        raise UsageError(
            "A backup is of one moment.", f"rounds that ended during each of {TRIES} tries",
            "Try again when no round is under way: chorister server run --cancel.",
        )  # fmt: skip
    lines = list(_member(data, "state/ledger.jsonl").splitlines(keepends=True))
    found = verify(iter(lines), federation=settings.name)
    key = read_signing_key(folder.signing_key)
    checkpoint = Checkpoint.sign(key, found.ledger, found.length - 1, found.head)
    header = {
        "federation": settings.name, "run": machine.run, "made_s": int(time.time()),
        "rounds": len(before[0].splitlines()), "checkpoint": checkpoint.to_plain(),
    }  # fmt: skip
    return seal(data, passphrase, header, randomness)


def restore(
    folder: ServerFolder,
    sealed: bytes,
    passphrase: str,
    *,
    checkpoints: tuple[Checkpoint, ...] = (),
    accept_rollback: bool = False,
) -> Restored:
    """Put a server back as a backup has it, in place of what is in the folder.

    Args:
        folder: empty, absent, or of the same server, which is moved aside.
        sealed: the backup.
        passphrase: that it was made with.
        checkpoints: of this server's ledger, kept elsewhere (by devices, an officer, `status`).
        accept_rollback: although rounds are forgotten. Budgets that the folder has are kept, the
            ledger says so, and rounds have a new name from then on.

    Raises:
        UsageError: another passphrase, a damaged file, a server that is running or did until just
            now, or a rollback.
        BadLedger: what is in the backup is not sound, or of another history than the folder.
    """
    header = read_header(sealed)
    data = open_sealed(sealed, passphrase)
    there = _journals(folder)
    folder.root.parent.mkdir(parents=True, exist_ok=True)
    fresh = ServerFolder(Path(tempfile.mkdtemp(prefix=".restore-", dir=folder.root.parent)))
    try:
        _unpack(data, fresh.root)
        backed = _bytes(fresh.budget)
        rounds, entries = _check(fresh)
        forgot = _look_for_rollback(folder, fresh, entries, checkpoints)
        if forgot and not accept_rollback:
            raise UsageError(
                "A restoration forgets no round that is known elsewhere.",
                f"a backup of {entries} ledger entries, {forgot} fewer than are known",
                "Restore a later backup; if there is none: --accept-rollback, and tell the "
                "federation's privacy officer.",
            )
        if forgot:
            _keep_budget(there[1], backed, fresh)
            _accept(fresh, header, forgot)
        former = _swap(folder, fresh, there)
    except BaseException:
        shutil.rmtree(fresh.root, ignore_errors=True)
        raise
    return Restored(rounds, entries, forgot, former)


def _moment(folder: ServerFolder) -> tuple[bytes, bytes]:
    """What changes exactly when a round ends."""
    return _bytes(folder.state / ROUNDS_FILE), _bytes(folder.adapters / INDEX)


def _copy(folder: ServerFolder) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in _in_order(folder):
            data = path.read_bytes()
            if path.name in _JOURNALS:
                data = data[: data.rfind(b"\n") + 1]  # a line that is being written is not there
            info = tarfile.TarInfo(str(path.relative_to(folder.root)))
            info.size, info.mode = len(data), path.stat().st_mode & 0o700
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def _in_order(folder: ServerFolder) -> list[Path]:
    """The files of a server, each before those that a round writes earlier."""
    rank = {ROUNDS_FILE: 0, INDEX: 1, "ledger.jsonl": 3, "budget.jsonl": 4}
    files = [
        path for path in folder.root.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        and path.relative_to(folder.root).parts[0] not in _LEFT_OUT
    ]  # fmt: skip
    return sorted(files, key=lambda path: (rank.get(path.name, 2), str(path)))


def _member(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(name)
        return b"" if file is None else file.read()


def _unpack(data: bytes, root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            path = (root / info.name).resolve()
            file = tar.extractfile(info)
            if file is None or root.resolve() not in path.parents or info.size > _MOST_BYTES:
                raise UsageError(
                    "A backup holds the files of one server.", info.name[:80],
                    "Take another backup.",
                )  # fmt: skip
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, file.read(), mode=info.mode & 0o600)


def _check(fresh: ServerFolder) -> tuple[int, int]:
    """Return rounds and ledger entries of an unpacked backup that is sound."""
    settings = fresh.federation()
    rounds = read_rounds(fresh.state / ROUNDS_FILE)
    registry = Registry(fresh.adapters)
    for version in registry.versions():
        registry.get(version.sha256)
    paths = [fresh.state / name for name in _JOURNALS if (fresh.state / name).exists()]
    found = inspect(paths, federation=settings.name)
    if not found.sound:
        raise BadLedger(
            "A backup's ledger and budget are sound.", str(found.problems[0].what)[:300],
            "Take an earlier backup, and keep this one for whoever looks into it.",
        )  # fmt: skip
    if (fresh.state / _JOURNALS[1]).exists():
        FederationBudget(
            fresh.budget, speaker=speaker_limit(settings.speaker_privacy), federation=settings.name
        )
    return len(rounds), sum(1 for _ in read_lines(fresh.ledger))


def _look_for_rollback(
    folder: ServerFolder, fresh: ServerFolder, entries: int, checkpoints: tuple[Checkpoint, ...]
) -> int:
    """Return how many ledger entries are known elsewhere that the backup lacks.

    Raises:
        BadLedger: the folder or a checkpoint is of another history.
    """
    known = entries
    lines = list(read_lines(fresh.ledger))
    if folder.ledger.exists():
        theirs = list(read_lines(folder.ledger))
        at = first_difference(iter(lines), iter(theirs))
        if at is None and _bytes(folder.signing_key) != _bytes(fresh.signing_key):
            at = 0  # two servers that are as old to the second, one without rounds
        if at is not None:
            raise BadLedger(
                "A backup goes back into the folder of the same server.",
                f"a ledger that is another from entry {at} on",
                "Restore it into a folder of its own.",
            )
        known = max(known, len(theirs))
    within = [c for c in checkpoints if c.index < entries]
    verify(iter(lines), checkpoints=within)
    for checkpoint in checkpoints:
        checkpoint.check()
        known = max(known, checkpoint.index + 1)
    return known - entries


def _keep_budget(there: bytes, backed: bytes, fresh: ServerFolder) -> None:
    """Forget nothing of what voices have cost: the longer of two journals of one budget is kept.

    The folder's is the shorter one where it is older than the backup, and a checkpoint is later
    than both.
    """
    whole = there[: there.rfind(b"\n") + 1]  # a crash may have left half a line
    if backed.startswith(whole):
        return
    if not whole.startswith(backed):
        raise BadLedger(
            "The folder's budget and the backup's are one journal.", "two that differ",
            "Restore it into a folder of its own, and compare the two.",
        )  # fmt: skip
    write_atomically(fresh.budget, whole)


def _accept(fresh: ServerFolder, header: dict[str, object], forgot: int) -> None:
    """Go on after a rollback: under another name, and the ledger says so."""
    text = fresh.server_file.read_text("utf-8")
    run = f"{fresh.server_settings().run[:50]}-{SystemRandomness().bytes(4).hex()}"
    renamed = re.sub(r"(?m)^run = .*$", f"run = {json.dumps(run)}", text)
    write_atomically(fresh.server_file, renamed.encode(), mode=0o644)
    ledger = LedgerFile(fresh.ledger, owner="server", federation=fresh.federation().name)
    ledger.append(
        "note", action="restored", forgot_entries=forgot, made_s=_number(header.get("made_s")),
        run=run,
    )  # fmt: skip
    ledger.checkpoint(read_signing_key(fresh.signing_key))


def _swap(folder: ServerFolder, fresh: ServerFolder, there: tuple[bytes, bytes]) -> Path | None:
    """Put the new folder in the old one's place, which is moved aside, if it did not change."""
    plan = read_plan(fresh.plan_file)
    # What was wanted then is not wanted now, until the operator says so.
    write_plan(fresh.plan_file, Plan(least_devices=plan.least_devices))
    former = None
    if folder.root.exists() and any(folder.root.iterdir()):
        for lock in (folder.lock_file, folder.state / ROUND_LOCK):
            if lock.parent.exists() and not hold_lock(lock, 0.0):
                raise UsageError(
                    "A server is restored while it does not run.", f"one in '{folder.root}'",
                    "Stop it first: chorister server stop.",
                )  # fmt: skip
        if _journals(folder) != there:
            raise UsageError(
                "A restoration replaces what it was compared with.", "a ledger that grew meanwhile",
                "Restore again.",
            )  # fmt: skip
        former = folder.root.with_name(f"{folder.root.name}.before-{int(time.time())}")
        folder.root.rename(former)
    elif folder.root.exists():
        folder.root.rmdir()
    os.chmod(fresh.root, 0o700)  # noqa: PTH101 (the folder, not what a link names)
    fresh.root.rename(folder.root)
    sync_folder(folder.root.parent)
    return former


def _journals(folder: ServerFolder) -> tuple[bytes, bytes]:
    return _bytes(folder.ledger), _bytes(folder.budget)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
