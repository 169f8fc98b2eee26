"""Several ledgers of one federation against each other: each knows something of the others.

    device ledger     what the device signed, and the server checkpoints that it witnessed
    server ledger     what the server says of devices
    budget journals   what each side charged

A server cannot drop a round that a device remembers, nor a device one that the server shows its
signature for; a budget file from an old backup lacks rounds that its device's own ledger, or the
server's, shows that it contributed to. Memory grows with the lives of the devices whose ledgers are
given, not with the server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chorister.shared.errors import BadLedger
from chorister.shared.privacy.budget import Book, Booking
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger import Checkpoint, Entry

BUDGET_OWNER = "budget of "
SERVER = "server"
NO_FEDERATION = "none"
"""What a vault's own ledger says, which is of no federation, or of all."""


@dataclass(slots=True)
class DeviceFacts:
    """What a device's own ledger says of rounds.

    Attributes:
        applied: round to (entry, digest of terms, signature of the token).
        contributed: round to (entry, time, digest of the masked delta, units that were charged).
        witnessed: checkpoints of the server's ledger that it was shown.
        local: what it charged by itself, outside of rounds: name to (entry, units).
        refusals: how many it counted of what a server asked.
        unwritten: how many of these have no line of their own.
    """

    applied: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    contributed: dict[str, tuple[int, int, str, frozenset[str]]] = field(default_factory=dict)
    witnessed: list[Checkpoint] = field(default_factory=list)
    local: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    refusals: int = 0
    unwritten: int = 0

    def follow(self, entry: Entry) -> None:
        """Take one entry.

        Raises:
            BadLedger: a refusal's number does not follow the one before.
        """
        fields: Mapping[str, Any] = entry.fields
        if entry.kind == "budget":
            self.local[fields["round"]] = (entry.index, frozenset(fields["charges"]))
        if entry.kind == "refusal" and "number" in fields:
            number = fields["number"]
            if type(number) is not int or not self.refusals < number < 2**53:
                raise BadLedger(
                    "The refusals of a ledger are numbered upwards, in whole numbers.",
                    f"{str(number)[:40]} in entry {entry.index}, after {self.refusals}",
                    "Ask its owner for the ledger as the device wrote it; its count says nothing.",
                )
            self.unwritten += number - self.refusals - 1
            self.refusals = number
        if entry.kind != "round":
            return
        if fields.get("action") == "applied":
            self.applied[fields["round"]] = (entry.index, fields["terms"], fields["signature"])
            witness = Checkpoint.from_plain(fields["witness"])
            if witness not in self.witnessed[-2:]:
                self.witnessed.append(witness)
        elif fields.get("action") == "contributed":
            units = frozenset(fields["charges"])
            self.contributed[fields["round"]] = (
                entry.index, entry.time_s, fields["masked"], units
            )  # fmt: skip


@dataclass(slots=True)
class ServerFacts:
    """What the server's ledger says of some devices.

    Attributes:
        devices: those that are looked for.
        rounds: rounds that were started.
        admissions: (device, round) to (entry, signature of the token).
        inputs: (device, round) to (entry, digest of the masked delta).
        spent: rounds whose budget was spent, to (entry, charge).
        last_s: the latest time of an entry.
    """

    devices: frozenset[str]
    rounds: set[str] = field(default_factory=set)
    admissions: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    inputs: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    spent: dict[str, tuple[int, PrivacyEvent]] = field(default_factory=dict)
    last_s: int = 0

    def follow(self, entry: Entry) -> None:
        """Take one entry."""
        fields: Mapping[str, Any] = entry.fields
        self.last_s = max(self.last_s, entry.time_s)
        name = fields.get("round")
        if entry.kind == "round" and fields.get("action") == "started":
            self.rounds.add(str(name))
        elif entry.kind == "admission" and fields.get("device") in self.devices:
            signature = str(fields.get("signature"))
            self.admissions[fields["device"], str(name)] = (entry.index, signature)
        elif entry.kind == "survivors" and "evidence" in fields:
            # Whether it is there and holds is for `ClaimChecker`.
            for device, signed in fields["evidence"]["inputs"].items():
                if device in self.devices:
                    self.inputs[device, str(name)] = (entry.index, signed["digest"])
        elif entry.kind == "budget" and fields["step"] == "spend":
            self.spent[str(name)] = (entry.index, PrivacyEvent.from_plain(fields["charge"]))


@dataclass(slots=True)
class JournalFacts:
    """What a budget's journal says; its bookings are replayed, so their order is checked.

    Attributes:
        limits: unit to its limit as the journal notes it, plain JSON.
        charges: round to account to event.
        book: the state after the last booking.
    """

    limits: dict[str, Any] = field(default_factory=dict)
    charges: dict[str, Mapping[str, PrivacyEvent]] = field(default_factory=dict)
    book: Book = field(default_factory=lambda: Book({}))

    def follow(self, entry: Entry) -> None:
        """Take one entry.

        Raises:
            BadLedger: it does not follow from the bookings before.
        """
        if entry.kind == "budget":
            booking = Booking.from_fields(entry.fields)
            self.book.apply(booking)
            if booking.step == "reserve":
                self.charges[booking.round_id] = booking.charges
            elif booking.step == "release":
                del self.charges[booking.round_id]
        elif "limits" in entry.fields and isinstance(entry.fields["limits"], dict):
            self.limits = dict(entry.fields["limits"])


def compare_with_server(device: str, own: DeviceFacts, server: ServerFacts) -> Iterator[str]:
    """Give what a device's ledger and the server's say differently."""
    for (name, round_id), (index, signature) in sorted(server.admissions.items()):
        if name != device:
            continue
        applied = own.applied.get(round_id)
        if applied is None:
            yield (
                f"the server's entry {index} admits {device} to round '{round_id}', to which the "
                "device's own ledger never applied: entries were removed there"
            )
        elif applied[2] != signature:
            yield (
                f"the server's entry {index} and the device's entry {applied[0]} hold different "
                f"tokens of {device} for round '{round_id}'"
            )
    for (name, round_id), (index, digest) in sorted(server.inputs.items()):
        if name != device:
            continue
        contributed = own.contributed.get(round_id)
        if contributed is None:
            yield (
                f"the server's entry {index} holds a masked delta signed by {device} for round "
                f"'{round_id}', which the device's own ledger does not have: entries were removed "
                "there"
            )
        elif contributed[2] != digest:
            yield (
                f"the server's entry {index} and the device's entry {contributed[0]} name "
                f"different masked deltas of {device} for round '{round_id}'"
            )
    for round_id, (index, time_s, _, _) in sorted(own.contributed.items()):
        if round_id not in server.rounds and time_s <= server.last_s:
            yield (
                f"the device's entry {index} contributes to round '{round_id}', of which the "
                "server's ledger says nothing: entries were removed there"
            )


def compare_with_journal(device: str, own: DeviceFacts, journal: JournalFacts) -> Iterator[str]:
    """Give the rounds, and the trainings by itself, that a device charged and its budget forgot."""
    rounds = {name: (index, units) for name, (index, _, _, units) in own.contributed.items()}
    for round_id, (index, units) in sorted((rounds | own.local).items()):
        missing = units - journal.charges.get(round_id, {}).keys()
        if missing:
            yield (
                f"the budget of {device} lacks round '{round_id}' for {', '.join(sorted(missing))}"
                f", which the device's own entry {index} charged: the budget was restored from a "
                "backup"
            )


def compare_budgets(
    device: str, own: JournalFacts, server: ServerFacts, charged: JournalFacts | None
) -> Iterator[str]:
    """Give what a device's budget has forgotten and the server can show, and the other way round.

    Args:
        device: whose.
        own: the device's journal.
        server: the server's ledger, with the device's signatures.
        charged: the server's journal; None if it was not given.
    """
    for (name, round_id), (index, _) in sorted(server.inputs.items()):
        if name == device and round_id in server.spent and round_id not in own.charges:
            yield (
                f"the budget of {device} lacks round '{round_id}', for which the server's entry "
                f"{index} holds its signed masked delta: the budget was restored from a backup"
            )
    if charged is None:
        return
    account = f"speaker/{device}"
    for round_id, events in sorted(own.charges.items()):
        event = events.get("speaker")
        if event is None:
            continue
        theirs = charged.charges.get(round_id, {}).get(account)
        if theirs is None and round_id in server.rounds:
            yield (
                f"the server's budget does not charge {device} for round '{round_id}', which the "
                "device paid for: the server's budget was restored from a backup"
            )
        elif theirs is not None and theirs != event:
            yield f"server and {device} charge round '{round_id}' differently"


def compare_server_with_journal(server: ServerFacts, journal: JournalFacts) -> Iterator[str]:
    """Give the rounds that the server's ledger spent and its budget has forgotten."""
    for round_id, (index, event) in sorted(server.spent.items()):
        charges = journal.charges.get(round_id)
        if charges is None or journal.book.state(round_id) != "spend":
            yield (
                f"the server's entry {index} spends the budget of round '{round_id}', which its "
                "budget's journal does not have: the journal was restored from a backup"
            )
        elif any(charge != event for charge in charges.values()):
            yield f"the server's ledger and its budget charge round '{round_id}' differently"


def first_difference(first: Iterable[bytes], second: Iterable[bytes]) -> int | None:
    """Return the entry at which two copies of one ledger part, None if one continues the other.

    Args:
        first, second: the lines of each.
    """
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a.rstrip(b"\n") != b.rstrip(b"\n")), None)


def owner_of(owner: str) -> tuple[str, bool]:
    """Return whose ledger this is, and whether it is a budget's journal."""
    if owner.startswith(BUDGET_OWNER):
        return owner.removeprefix(BUDGET_OWNER), True
    return owner, False


def same_federation(names: Mapping[str, str]) -> None:
    """Return if the ledgers belong together; a device that joined none is of every federation.

    Args:
        names: file to federation.

    Raises:
        BadLedger: they do not.
    """
    found = {name for name in names.values() if name != NO_FEDERATION}
    if len(found) > 1:
        raise BadLedger(
            "Ledgers that are checked together belong to one federation.",
            ", ".join(f"{file}: '{name}'" for file, name in names.items()),
            "Check each federation's by themselves.",
        )
