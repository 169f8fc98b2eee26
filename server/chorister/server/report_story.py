"""What the entries of several ledgers tell, gathered for a report in one pass over each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chorister.server.inspection import Ledger
from chorister.server.statement import STATEMENT
from chorister.shared import codec
from chorister.shared.errors import ChoristerError
from chorister.shared.privacy.crosscheck import SERVER
from chorister.shared.privacy.ledger import Entry
from chorister.shared.secagg.terms import RoundTerms

MOST_REASON = 120


@dataclass(slots=True)
class RoundStory:
    """One round as the server's ledger tells it."""

    name: str
    at_s: int
    terms: RoundTerms | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    asked: int = 0
    admitted: int = 0
    survivors: int = 0
    charged: bool = False
    status: str = "open"
    reason: str | None = None
    adapter: str = ""


@dataclass(slots=True)
class ConsentStory:
    """One consent record as the ledgers name it."""

    device: str
    state: str = "used"
    purposes: list[str] | None = None
    uses: int = 0
    last_use_s: int | None = None


@dataclass(slots=True)
class Story:
    """Everything that a report needs and that is not in a budget's journal.

    Attributes:
        statement: what the server said of itself last; empty if it never did.
        rounds: by name, in order.
        consents: digest to what is known of it.
        withdrawals: (device, consent, time, versions, whether the device's notice is there).
        exports: (device, digest of the voice, consent).
        refusals: reason to how often.
        randomness: statement to who said it.
        unreadable: entries without the fields that their kind has.
    """

    statement: Mapping[str, Any] = field(default_factory=dict)
    rounds: dict[str, RoundStory] = field(default_factory=dict)
    consents: dict[str, ConsentStory] = field(default_factory=dict)
    withdrawals: list[tuple[str, str, int, list[str], bool]] = field(default_factory=list)
    exports: list[tuple[str, str, str]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    randomness: dict[str, set[str]] = field(default_factory=dict)
    unreadable: int = 0

    def follow(self, ledger: Ledger, entry: Entry) -> None:
        """Take one entry of a sound ledger; one without its fields is counted and left out."""
        if ledger.journal:
            return
        try:
            self._take(ledger, entry, entry.fields)
        except (ChoristerError, KeyError, TypeError, ValueError, AttributeError):
            self.unreadable += 1

    def _take(self, ledger: Ledger, entry: Entry, fields: Mapping[str, Any]) -> None:
        if entry.kind == "note" and isinstance(fields.get(STATEMENT), dict):
            self.statement = fields[STATEMENT]
            self._random(self.statement["randomness"], SERVER)
        elif entry.kind == "round":
            if ledger.owner == SERVER:
                self._server_round(entry, fields)
            elif fields.get("action") == "contributed":
                self._random(fields["randomness"], ledger.owner)
        elif entry.kind == "admission":
            found = self.rounds.get(fields["round"])
            if found is not None:
                found.admitted += 1
            self._consent(fields["consent"], fields["device"])
        elif entry.kind == "survivors":
            self.rounds[fields["round"]].survivors = len(fields["survivors"])
        elif entry.kind == "budget" and fields["step"] == "spend":
            if ledger.owner == SERVER:  # a device notes its personal adapters, which are no rounds
                self.rounds[fields["round"]].charged = True
        elif entry.kind == "consent":
            self._own_consent(ledger.owner, entry, fields)
        elif entry.kind == "withdrawal":
            self._withdrawal(ledger.owner, fields)
        elif entry.kind == "export":
            self.exports.append(
                (ledger.owner, str(fields.get("voice", "")), str(fields.get("consent", "")))
            )
        elif entry.kind == "refusal":
            reason = fields.get("reason") or fields.get("found") or "no reason given"
            self.refusals[str(reason)[:MOST_REASON]] += 1

    def _server_round(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        name, action = fields["round"], fields["action"]
        if action == "started":
            self.rounds[name] = RoundStory(
                name, entry.time_s, RoundTerms.from_bytes(codec.encode(fields["announced"])),
                fields["task"], len(fields["cohort"]),
            )  # fmt: skip
            return
        found = self.rounds.setdefault(name, RoundStory(name, entry.time_s))
        found.status, found.reason = action, fields.get("reason")
        found.adapter = fields.get("adapter") or ""

    def _consent(self, digest: str, device: str) -> ConsentStory:
        return self.consents.setdefault(digest, ConsentStory(device))

    def _own_consent(self, device: str, entry: Entry, fields: Mapping[str, Any]) -> None:
        found = self._consent(fields["consent"], device)
        if fields["action"] == "granted":
            found.uses += 1
            found.last_use_s = max(found.last_use_s or 0, entry.time_s)
        else:
            found.state, found.purposes = fields["action"], list(fields.get("purposes", []))

    def _withdrawal(self, owner: str, fields: Mapping[str, Any]) -> None:
        device = fields.get("device", owner)
        self._consent(fields["consent"], device).state = "withdrawn"
        versions = [str(version) for version in fields.get("versions", [])]
        signed = "notice" in fields or "signature" in fields
        self.withdrawals.append((device, fields["consent"], fields["at_s"], versions, signed))

    def _random(self, statement: str, who: str) -> None:
        self.randomness.setdefault(statement, set()).add(who)
