"""All ledgers that somebody holds, checked together: chains, signatures, claims, each other.

The rules are in `chorister.shared.privacy`; this module reads the files, three times at most and
line by line, and gathers what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.privacy.claims import ClaimChecker
from chorister.shared.privacy.crosscheck import (
    NO_FEDERATION,
    SERVER,
    DeviceFacts,
    JournalFacts,
    ServerFacts,
    compare_budgets,
    compare_server_with_journal,
    compare_with_journal,
    compare_with_server,
    first_difference,
    owner_of,
    same_federation,
)
from chorister.shared.privacy.ledger import Checkpoint, Entry, Verified, genesis_of, verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.signing import VerifyKey

OnEntry = Callable[["Ledger", Entry], None]
MOST_PROBLEMS = 50
"""Of one file; the rest of a ledger that is wrong all over says nothing new."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be if nobody tampered.

    Attributes:
        file: where it was found.
        what: one sentence, with the entry.
    """

    file: str
    what: str


@dataclass(slots=True)
class Ledger:
    """One file that was looked at.

    Attributes:
        path: the file.
        owner: whose ledger: a device's pseudonym or 'server'.
        journal: whether it is a budget's.
        federation: as its first entry says.
        name: digest of its first line, which checkpoints carry.
        verified: what its chain came to; None if it is broken.
        claims: of a server's ledger.
        device: facts of a device's ledger.
        server: facts of a server's ledger.
        booked: facts of a budget's journal.
    """

    path: Path
    owner: str
    journal: bool
    federation: str
    name: str
    verified: Verified | None = None
    claims: ClaimChecker | None = None
    device: DeviceFacts | None = None
    server: ServerFacts | None = None
    booked: JournalFacts | None = None


@dataclass(slots=True)
class Inspection:
    """What was found in a set of ledgers.

    Attributes:
        ledgers: all files that begin like a ledger.
        problems: what cannot be if nobody tampered.
        remarks: what may be and should be known.
    """

    ledgers: list[Ledger] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    remarks: list[Problem] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found that cannot be."""
        return not self.problems


def find_ledgers(paths: Sequence[Path]) -> list[Path]:
    """Return the ledger files among files and folders; baselines of a simulation are left out.

    Raises:
        UsageError: a path does not exist, or a folder holds no ledger.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.rglob("*.jsonl"))
                if "baselines" not in file.relative_to(path).parts and _looks_like_ledger(file)
            ]
            if not inside:
                raise UsageError(
                    "A folder of ledgers holds files *.jsonl that begin with a ledger's first "
                    "entry.", f"none in {path}", "Give the ledger's own path.",
                )  # fmt: skip
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError("A ledger can be read.", f"no file {path}", "Check the path.")
    return list(dict.fromkeys(found))


def inspect(
    paths: Sequence[Path],
    *,
    checkpoints: Iterable[Checkpoint] = (),
    keys: Sequence[VerifyKey] | None = None,
    authority: VerifyKey | None = None,
    federation: str | None = None,
    chain_only: bool = False,
    on_entry: OnEntry | None = None,
    now_s: int | None = None,
) -> Inspection:
    """Return what is found in ledgers that belong together.

    Args:
        paths: ledger files.
        checkpoints: kept elsewhere.
        keys: who may sign checkpoints; None accepts any and names them.
        authority: the enrolment authority's key; None leaves certificates unchecked.
        federation: that all must belong to; None takes any one.
        chain_only: leaves out every signature and every comparison.
        on_entry: called with each entry of a sound ledger, in order, for a report.
        now_s: Unix time, to notice entries from the future; None does not look.
    """
    found = Inspection()
    for path in paths:
        try:
            found.ledgers.append(_open(path))
        except BadLedger as error:
            found.problems.append(Problem(str(path), str(error)))
    try:
        same_federation({str(ledger.path): ledger.federation for ledger in found.ledgers})
    except BadLedger as error:
        found.problems.append(Problem("all", str(error)))
    devices = frozenset(ledger.owner for ledger in found.ledgers if ledger.owner != SERVER)
    kept = list(checkpoints)
    # Devices first: they witnessed the server's checkpoints.
    for ledger in sorted(found.ledgers, key=lambda one: one.owner == SERVER and not one.journal):
        own = [c for c in dict.fromkeys(kept) if c.ledger == ledger.name]
        _verify(found, ledger, own, keys, authority, federation, devices, chain_only)
        if ledger.device is not None:
            kept += ledger.device.witnessed
    _check_unmatched(found, kept)
    _check_copies(found)
    if not chain_only:
        _compare(found)
    for ledger in found.ledgers:
        if ledger.verified is not None:
            _remark(found, ledger, now_s)
            if on_entry is not None:
                _give_entries(ledger, on_entry)
    return found


def read_checkpoints(path: Path) -> list[Checkpoint]:
    """Return the checkpoints in a file: JSON, one a line or one object.

    Raises:
        UsageError: the file cannot be read, or is no JSON.
        BadLedger: it holds something else than checkpoints.
    """
    try:
        text = path.read_text(encoding="utf-8")
        try:
            plain: list[Any] = [json.loads(text)]
        except ValueError:
            plain = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(
            "A checkpoint is a file of JSON.", f"{path}: {error}",
            "Give the checkpoint as the ledger's owner gave it out.",
        ) from None  # fmt: skip
    return [Checkpoint.from_plain(item) for item in plain]


def _looks_like_ledger(path: Path) -> bool:
    try:
        _open(path)
    except BadLedger:
        # A damaged one is looked at too: leaving it out would hide the damage.
        with path.open("rb") as file:
            return b'"previous"' in file.read(4096)
    return True


def _open(path: Path) -> Ledger:
    line = next(iter(read_lines(path)), b"").removesuffix(b"\n")
    owner, federation, name = genesis_of(line)
    whose, journal = owner_of(owner)
    return Ledger(path, whose, journal, federation, name)


def _verify(
    found: Inspection,
    ledger: Ledger,
    checkpoints: list[Checkpoint],
    keys: Sequence[VerifyKey] | None,
    authority: VerifyKey | None,
    federation: str | None,
    devices: frozenset[str],
    chain_only: bool,
) -> None:
    listeners: list[Callable[[Entry], None]] = []
    if not chain_only:
        if ledger.journal:
            ledger.booked = JournalFacts()
            listeners.append(ledger.booked.follow)
        elif ledger.owner == SERVER:
            ledger.claims = ClaimChecker(ledger.federation, authority)
            ledger.server = ServerFacts(devices)
            listeners += [ledger.claims.follow, ledger.server.follow]
        else:
            ledger.device = DeviceFacts()
            listeners.append(ledger.device.follow)

    def listen(entry: Entry) -> None:
        for listener in listeners:
            try:
                listener(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BadLedger(
                    f"Entry {entry.index} has the fields of its kind, '{entry.kind}'.",
                    f"others ({type(error).__name__})",
                    "If a newer version wrote the ledger, read it with that version.",
                ) from None

    # A device signs its own checkpoints with its own key, which is its name.
    trusted = keys if ledger.owner == SERVER or keys is None else None
    try:
        ledger.verified = verify(
            read_lines(ledger.path), checkpoints=checkpoints, keys=trusted,
            federation=None if ledger.federation == NO_FEDERATION else federation,
            signatures=not chain_only, on_entry=listen,
        )  # fmt: skip
    except BadLedger as error:
        found.problems.append(Problem(str(ledger.path), str(error)))
        ledger.claims = ledger.device = ledger.server = ledger.booked = None
        return
    strangers = ledger.verified.keys - {ledger.owner}
    if ledger.owner != SERVER and strangers:
        what = f"a checkpoint by {min(strangers)}, which is not the device {ledger.owner}"
        found.problems.append(Problem(str(ledger.path), what))
    if ledger.claims is not None:
        found.problems += [
            Problem(str(ledger.path), f"Entry {index}: {what}")
            for index, what in ledger.claims.problems[:MOST_PROBLEMS]
        ]


def _check_unmatched(found: Inspection, kept: list[Checkpoint]) -> None:
    names = {ledger.name for ledger in found.ledgers}
    servers = [one for one in found.ledgers if one.owner == SERVER and not one.journal]
    witnessed = {c for one in found.ledgers if one.device for c in one.device.witnessed}
    for checkpoint in dict.fromkeys(kept):
        if checkpoint.ledger in names or (checkpoint in witnessed and not servers):
            continue
        what = (
            f"the checkpoint at entry {checkpoint.index} by {checkpoint.key.name} is of none of "
            "these ledgers: one was rewritten from its first entry, or is missing"
        )
        if not any(problem.what == what for problem in found.problems):
            found.problems.append(Problem("all", what))


def _check_copies(found: Inspection) -> None:
    """Two files of one ledger: one continues the other, or history was forked."""
    for i, one in enumerate(found.ledgers):
        for other in found.ledgers[i + 1 :]:
            if one.name != other.name:
                continue
            at = first_difference(read_lines(one.path), read_lines(other.path))
            if at is not None:
                what = f"forked: from entry {at} on it is another history than {other.path}"
                found.problems.append(Problem(str(one.path), what))


def _compare(found: Inspection) -> None:
    sound = [one for one in found.ledgers if one.verified is not None]
    servers = [one for one in sound if one.server is not None]
    # A vault has a ledger and a budget of its own beside those of each federation; only the latter
    # have rounds.
    kept = sorted(sound, key=lambda one: one.federation != NO_FEDERATION)
    journals = {one.owner: one for one in kept if one.booked is not None}
    devices = {one.owner: one for one in kept if one.device is not None}
    for server in servers:
        facts, charged = server.server, journals.get(SERVER)
        if facts is None:
            continue
        booked = charged.booked if charged else None
        if booked is not None:
            _add(found, server, compare_server_with_journal(facts, booked))
        for name, device in devices.items():
            if device.device is not None:
                _add(found, device, compare_with_server(name, device.device, facts))
        for name, journal in journals.items():
            if name != SERVER and journal.booked is not None:
                _add(found, journal, compare_budgets(name, journal.booked, facts, booked))
    for device in (one for one in sound if one.device is not None):
        for own in sound:
            same = (own.owner, own.federation) == (device.owner, device.federation)
            if same and own.booked is not None and device.device is not None:
                _add(found, own, compare_with_journal(own.owner, device.device, own.booked))


def _add(found: Inspection, ledger: Ledger, what: Iterator[str]) -> None:
    found.problems += [Problem(str(ledger.path), sentence) for sentence in what][:MOST_PROBLEMS]


def _remark(found: Inspection, ledger: Ledger, now_s: int | None) -> None:
    verified = ledger.verified
    if verified is None:
        return
    remarks = []
    if verified.clock_set_back:
        remarks.append(f"its clock was set back {verified.clock_set_back} times")
    if now_s is not None and verified.latest_s > now_s + 86_400:
        remarks.append("it has entries from the future: its clock was wrong, or this one is")
    if verified.signed_to < 0 and not ledger.journal:
        remarks.append("it holds no signed checkpoint: nobody can see whether its end was cut off")
    if ledger.device is not None and ledger.device.unwritten:
        remarks.append(
            f"it counts {ledger.device.refusals} refusals of what a server asked, "
            f"{ledger.device.unwritten} of them without a line of their own: there were too many"
        )
    found.remarks += [Problem(str(ledger.path), what) for what in remarks]


def _give_entries(ledger: Ledger, on_entry: OnEntry) -> None:
    verify(
        read_lines(ledger.path), signatures=False, on_entry=lambda entry: on_entry(ledger, entry)
    )
