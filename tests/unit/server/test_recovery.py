"""A server that dies before any of a round's writes goes on: nothing lost, nothing paid twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chorister.server import rounds
from chorister.server.budget import FederationBudget
from chorister.server.inspection import find_ledgers, inspect
from chorister.server.recovery import STOPPED, settle_unfinished
from chorister.server.registry import Registry
from chorister.server.round import run_round
from chorister.server.rounds import append_round, read_rounds
from chorister.shared import files
from chorister.shared.privacy import ledger_file
from chorister.shared.privacy.ledger import parse


class Killed(BaseException):
    """The process ends here: no handler of ours sees it."""


class Power:
    """Counts durable writes of the server and ends the process before one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left: int | None = None
        self.done: list[str] = []

    def write(self, name: str, path: Path) -> None:
        if self.folder not in path.parents:
            return
        if self.left is not None:
            if self.left == 0:
                raise Killed(name)
            self.left -= 1
        self.done.append(name)


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Power:
    power = Power(tmp_path / "choir" / "server")
    append, atomic, save = (
        ledger_file.LedgerFile.append_locked, files.write_atomically, rounds.save_optimiser,
    )  # fmt: skip

    def appended(self: Any, kind: str, fields: Any) -> Any:
        word = fields.get("action") or fields.get("step") or ""
        power.write(f"{self.path.name} {kind} {word}".strip(), self.path)
        return append(self, kind, fields)

    def written(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        power.write(path.name if len(path.name) < 30 else "an adapter", path)
        atomic(path, data, mode=mode)

    def saved(folder: Path, *rest: Any) -> None:
        power.write("the optimiser", folder / "optimiser")
        save(folder, *rest)

    monkeypatch.setattr(ledger_file.LedgerFile, "append_locked", appended)
    for module in ("chorister.server.registry", "chorister.server.rounds"):
        monkeypatch.setattr(f"{module}.write_atomically", written)
    monkeypatch.setattr("chorister.server.round.save_optimiser", saved)
    return power


def _go(choir: Any) -> None:
    """What the app does when it starts, for one round."""
    operator = choir.operator
    settle_unfinished(operator)
    record = run_round(choir, operator, len(read_rounds(operator.rounds_path)) + 1)
    operator.on_round(record)
    append_round(operator.rounds_path, record)


def _restart(choir: Any, most_rounds: int = 10) -> None:
    """Forget all that the server's process knew: open registry, budget and ledger from the disk."""
    from dataclasses import replace

    old = choir.operator
    ledger = ledger_file.LedgerFile(
        old.ledger.path, owner="server", federation=old.settings.name, clock=old.now_s
    )
    limit = choir.devices[choir.names[0]].budget._file._book.limits["speaker"]
    choir.operator = replace(
        old,
        ledger=ledger,
        registry=Registry(old.folder / "adapters"),
        budget=FederationBudget(
            old.folder / "budget.jsonl", speaker=limit, federation=old.settings.name,
            clock=old.now_s,
        ),
    )  # fmt: skip


def _count(choir: Callable[..., Any], power: Power, tmp_path: Path) -> list[str]:
    made = choir(private=True)
    _ = made.operator
    power.done.clear()
    _go(made)
    return list(power.done)


def test_every_write_of_a_round_is_a_place_to_die(
    choir: Callable[..., Any], power: Power, tmp_path: Path
) -> None:
    """Dies before each write in turn, starts again, and looks at what is left."""
    writes = _count(choir, power, tmp_path)
    for expected in (
        "budget.jsonl budget reserve", "ledger.jsonl round started", "budget.jsonl budget spend",
        "ledger.jsonl survivors", "the optimiser", "an adapter", "versions.json",
        "ledger.jsonl round finished", "rounds.jsonl",
    ):  # fmt: skip
        assert expected in writes, writes
    stored = writes.index("versions.json")
    for place, write in enumerate(writes):
        shutil.rmtree(tmp_path / "choir")
        power.left = None
        made = choir(private=True)
        _ = made.operator
        power.left = place
        with pytest.raises(Killed):
            _go(made)
        power.left = None
        versions = made.operator.registry.versions()
        _restart(made)
        _go(made)

        operator = made.operator
        records = read_rounds(operator.rounds_path)
        assert [r.round for r in records] == list(range(1, len(records) + 1)), write
        # The version of a round that died after it was stored is kept, and called finished.
        assert operator.registry.versions()[: len(versions)] == versions, write
        assert records[-1].status == "finished", write
        if place > stored:
            assert [r.status for r in records] == ["finished", "finished"], write
            assert records[0].survivors == 4, write
        elif len(records) == 2:
            assert (records[0].status, records[0].reason) == ("aborted", STOPPED), write
        # Every round that was reserved is charged once, and none that nobody heard of.
        for device in made.names:
            assert operator.budget.epsilon(device) == len(records), write
            assert made.devices[device].budget.epsilon_speaker() <= len(records), write
        found = inspect(find_ledgers([made.root]))
        assert found.sound, (write, [str(p) for p in found.problems])


def test_a_round_that_nobody_heard_of_keeps_its_number(choir: Callable[..., Any]) -> None:
    made = choir(private=True)
    assert settle_unfinished(made.operator) is None
    _go(made)
    assert settle_unfinished(made.operator) is None
    assert len(read_rounds(made.operator.rounds_path)) == 1


def test_the_ledger_says_that_a_round_was_settled_later(
    choir: Callable[..., Any], power: Power
) -> None:
    made = choir(private=True)
    _ = made.operator
    power.left = 3  # reserved and started, nothing more
    with pytest.raises(Killed):
        _go(made)
    power.left = None
    _restart(made)
    record = settle_unfinished(made.operator)
    assert record is not None
    assert (record.status, record.cohort) == ("aborted", 4)
    lines = made.operator.ledger.path.read_bytes().splitlines()
    last = [parse(line, i) for i, line in enumerate(lines)][-2]
    assert (last.kind, last.fields["action"], last.fields["recovered"]) == (
        "round", "aborted", True,
    )  # fmt: skip
    assert settle_unfinished(made.operator) is None
