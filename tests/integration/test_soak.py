"""Twenty rounds with kills and a network that fails: nothing is lost, budgets are exact.

With `tc netem` (in a network namespace of its own) packets are delayed and lost; where the kernel
has no netem, a line in front of the server delays what passes and breaks connections.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest

from chorister.server.budget import FederationBudget
from chorister.server.inspection import find_ledgers, inspect
from chorister.server.registry import Registry
from chorister.shared.privacy.ledger import Entry, parse
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.privacy.limits import speaker_limit

ROUNDS = int(os.environ.get("CHORISTER_SOAK_ROUNDS", "20"))  # fewer for a quick look
DEVICES = 5
LONGEST_S = 3000
NETEM = ("delay", "40ms", "20ms", "loss", "2%")
NAMESPACE = "chorister-soak"


@contextmanager
def netem() -> Iterator[tuple[tuple[str, ...], str]]:
    """Give a command prefix for a namespace with a bad network, () and why where there is none."""

    def ip(*words: str) -> str:
        done = subprocess.run([*words], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()

    steps = (
        ("ip", "netns", "add", NAMESPACE),
        ("ip", "-n", NAMESPACE, "link", "set", "lo", "up"),
        ("tc", "-n", NAMESPACE, "qdisc", "add", "dev", "lo", "root", "netem", *NETEM),
    )
    try:
        refused = next((why for why in (ip(*step) for step in steps) if why), "")
    except FileNotFoundError as error:
        refused = f"{error.filename} is not installed"
    try:
        yield ((), refused) if refused else (("ip", "netns", "exec", NAMESPACE), "")
    finally:
        with suppress(FileNotFoundError):
            ip("ip", "netns", "del", NAMESPACE)


@pytest.mark.slow
def test_nothing_is_lost_and_budgets_are_exact(
    town: ModuleType, lines: ModuleType, tmp_path: Path
) -> None:
    if not town.SPEECH.is_dir():
        pytest.skip("real speech is not there: ../shared/data/librispeech/test-clean")
    names = [f"singer-{i}" for i in range(DEVICES)]
    root = tmp_path / "town"
    choice, killed = random.Random(20), Counter()
    with netem() as (prefix, refused), town.deployment(root, deadline_s=25.0, rounds=60) as made:
        made.prefix = prefix
        port = made.server.server_settings().listen_port
        with lines.Line(to=port, delay_s=0.08, break_share=0.002, seed=20) as line:
            if refused:
                print(f"no tc netem here ({refused}): a line delays and breaks connections instead")
                made.dial = f"127.0.0.1:{line.port}"
            for name, recordings in zip(names, town.speakers(DEVICES), strict=True):
                made.enrol(name, recordings)
                made.join(name)
            server = made.start_server()
            devices = {name: made.start_device(name, for_s=LONGEST_S) for name in names}
            made.run(ROUNDS, when=3)
            end = time.monotonic() + LONGEST_S
            wanted = ROUNDS
            while len(made.rounds_done()) < wanted:
                assert time.monotonic() < end, made.said("server")
                time.sleep(choice.uniform(5.0, 15.0))
                if choice.random() < 0.07:
                    town.kill(server)
                    killed["server"] += 1
                    server = made.start_server()
                elif choice.random() < 0.3:
                    name = choice.choice(names)
                    town.kill(devices[name])
                    killed["devices"] += 1
                    time.sleep(choice.uniform(0.0, 3.0))
                    devices[name] = made.start_device(name, for_s=LONGEST_S)
            # Quiet: two rounds that nobody disturbs show that all of it still works.
            town.wait_for(lambda: made.online() >= 3, 400, "devices come back")
            made.run(2, when=3)
            town.wait_for(lambda: len(made.rounds_done()) == wanted + 2, 900, "quiet rounds")
            broken = line.broken
    _check(made, names, root)
    rounds = made.rounds_done()
    statuses = Counter(record.status for record in rounds)
    reasons = Counter(record.reason for record in rounds if record.reason)
    print(f"{len(rounds)} rounds: {dict(statuses)}; killed: {dict(killed)}; "
          f"broken connections: {broken}; aborted for: {dict(reasons)}")  # fmt: skip
    assert rounds[-1].status == "finished"
    if ROUNDS >= 20:
        assert killed["server"] >= 2
        assert killed["devices"] >= 3


def _entries(path: Path) -> list[Entry]:
    return [parse(line.removesuffix(b"\n"), i) for i, line in enumerate(read_lines(path))]


def _check(made: object, names: list[str], root: Path) -> None:
    folder = made.server  # type: ignore[attr-defined]
    rounds = made.rounds_done()  # type: ignore[attr-defined]
    machine, settings = folder.server_settings(), folder.federation()
    assert [r.round for r in rounds] == list(range(1, len(rounds) + 1))

    # No version lost: each finished round has one, in order, and each file is what its name says.
    registry = Registry(folder.adapters)
    versions = registry.versions()
    finished = [f"{machine.run}/{r.round}" for r in rounds if r.status == "finished"]
    assert [v.round_id for v in versions[1:]] == finished
    for version in versions:
        registry.get(version.sha256)

    # No budget spent twice: the journal books each round once, for those whom the ledger asked, and
    # gives back only what was never spent. What is reserved when the server dies stays charged.
    started = {
        entry.fields["round"]: set(entry.fields["cohort"])
        for entry in _entries(folder.ledger)
        if entry.kind == "round" and entry.fields.get("action") == "started"
    }
    booked, steps = {}, {}
    for entry in _entries(folder.budget):
        if entry.kind == "budget":
            name, step = entry.fields["round"], entry.fields["step"]
            if step == "reserve":
                assert name not in booked, name
                booked[name] = {a.removeprefix("speaker/") for a in entry.fields["charges"]}
            steps.setdefault(name, []).append(step)
    assert all(booked[name] == cohort for name, cohort in started.items())
    assert not [n for n, s in steps.items() if "release" in s and "spend" in s]
    expected: Counter[str] = Counter()
    for name, devices in booked.items():
        if "release" not in steps[name]:
            expected.update(devices)
    budget = FederationBudget(
        folder.budget, speaker=speaker_limit(settings.speaker_privacy), federation=settings.name
    )
    charged = {
        account.removeprefix("speaker/"): sum(e.steps for e in budget._file.events(account))
        for account in budget._file.accounts()
    }
    assert charged == dict(expected)

    # All ledgers and both budgets against each other.
    found = inspect(find_ledgers([root]))
    assert found.sound, [str(problem) for problem in found.problems]
    print(f"{len(found.ledgers)} ledgers sound; rounds charged to each device: "
          f"{sorted(charged.values())} of {len(rounds)}")  # fmt: skip
