"""The audit report as data: every figure of the page, and the schema that docs/ publishes.

The order is that of NIST SP 800-226: the privacy unit first, then epsilon and delta, then what
could undermine them. `registry` carries the fields of an OpenDP deployments registry entry.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from chorister.server.attack_record import Attacks, MaybeNumber, Number, Part, Text
from chorister.shared.errors import UsageError


class Accountant(Part):
    """One accountant's reading of the same events."""

    name: Text
    epsilon: MaybeNumber


class Group(Part):
    """What a figure says about several units together (group privacy)."""

    size: int
    epsilon: MaybeNumber
    delta: Number


class Figure(Part):
    """One epsilon with everything that it needs to mean something."""

    unit: Literal["segment", "speaker"]
    protects: Text
    relation: Text
    holder: Text = Field(description="whose figure: the device that spent most")
    devices: int = Field(description="how many devices' budgets were read for it")
    epsilon: MaybeNumber = Field(description="the larger of the accountants; null: unbounded")
    delta: Number
    accountants: list[Accountant]
    label: Text | None = Field(description="'no meaningful guarantee' above 10")
    epsilon_max: MaybeNumber = Field(description="the budget's limit; null: none")
    mechanisms: list[Text]
    sampling: Text
    noise_multipliers: list[Number]
    clip_norms: list[Number]
    steps: int
    group: Group | None
    outsiders: Text = Field(description="whether cohort sampling gives outsiders a better figure")
    source: Text


class DeviceBudget(Part):
    """What one device's budget came to, in one unit."""

    device: Text
    unit: Literal["segment", "speaker"]
    source: Literal["device", "server"]
    spent: MaybeNumber
    booked: MaybeNumber = Field(description="spent and reserved together")
    epsilon_max: MaybeNumber
    delta: Number
    rounds: int
    without_a_sum: int = Field(description="charged rounds that came to no sum, as far as known")


class Round(Part):
    """One round as the ledger has it."""

    round: Text
    status: Literal["finished", "aborted", "open"]
    reason: Text | None
    at_s: int
    asked: int
    admitted: int
    survivors: int
    min_honest: int | None
    clip_norm: MaybeNumber
    noise_promised: MaybeNumber = Field(description="noise multiplier with min_honest devices")
    noise_in_sum: MaybeNumber = Field(description="with the survivors as they were")
    epsilon_speaker: MaybeNumber = Field(description="of the worst device after this round")
    charged: bool
    simulated: bool
    adapter: Text


class Consent(Part):
    """One consent record, by its digest."""

    digest: Text
    device: Text
    state: Text
    purposes: list[Text] | None
    uses: int
    last_use_s: int | None


class WithdrawalLine(Part):
    """One withdrawal and what shows it."""

    device: Text
    consent: Text
    at_s: int
    versions: list[Text]
    evidence: Text


class Party(Part):
    """What one party may learn, and what it saw."""

    party: Text
    saw: Text
    never: Text


class Extrapolated(Part):
    """A figure that nobody paid: what would be, if the federation went on."""

    what: Text
    unit: Literal["segment", "speaker"]
    rounds: int
    epsilon: MaybeNumber
    delta: Number


class LedgerLine(Part):
    """One ledger that the report was made from."""

    file: Text
    owner: Text
    kind: Literal["ledger", "budget"]
    entries: int
    head: Text
    signed_to: int
    signed_by: list[Text]


class Responsible(Part):
    """Who answers for the federation."""

    purpose: Text
    controller: Text
    contact: Text
    legal_basis: Text
    jurisdiction: Text
    retention: Text


class RandomnessLine(Part):
    """Where noise, masks and keys came from."""

    statement: Text
    private: bool
    said_by: list[Text]


class AuditReport(Part):
    """Everything that the page says."""

    format: Literal[1] = 1
    chorister: Text
    made_at_s: int
    federation: Text
    covers_s: tuple[int, int] = Field(description="first and last time of any entry")
    summary: Text = Field(description="a paragraph for somebody who is no specialist")
    sound: bool = Field(description="whether the ledgers contradict nothing")
    problems: list[Text]
    remarks: list[Text]
    figures: list[Figure]
    devices: list[DeviceBudget]
    rounds: list[Round]
    dropouts: Text
    randomness: RandomnessLine
    simulated: bool
    undermine: list[Text] = Field(description="what could make the figures wrong")
    responsible: Responsible
    consents: list[Consent]
    withdrawals: list[WithdrawalLine]
    exports: list[Text]
    refusals: list[Text]
    trust: list[Party]
    attacks: Attacks | None
    attacks_signed_by: Text | None = Field(description="key, 64 hexadecimal digits")
    extrapolated: list[Extrapolated]
    digests: list[tuple[Text, Text]]
    ledgers: list[LedgerLine]
    proves: list[Text]
    does_not_prove: list[Text]
    limits: list[Text]
    registry: dict[str, Text] = Field(description="fields of an OpenDP registry entry")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report, the one that docs/audit.schema.json shows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Chorister audit report",
        **AuditReport.model_json_schema(),
    }


def parse_report(plain: Any) -> AuditReport:
    """Return the report in plain JSON.

    Raises:
        UsageError: it does not fit the schema.
    """
    try:
        return AuditReport.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            "A report follows docs/audit.schema.json.", f"{where}: {first['msg'].lower()}",
            "Read it with the version of Chorister that wrote it.",
        ) from None  # fmt: skip
