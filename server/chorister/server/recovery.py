"""What a server that was stopped in the middle of a round makes of it when it starts again.

The order of a round's writes decides: budget reserved, ledger 'started', budget spent, ledger
'survivors', registry, ledger 'finished', the line of `rounds.jsonl`. A version in the registry is a
finished round, whatever else is missing; anything less is an aborted one. Its budget stays as it
was booked: reserved or spent, it is charged once and never given back, since the process that knew
what had left the devices is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chorister.server.operator import Operator
from chorister.server.registry import AdapterVersion
from chorister.server.rounds import RoundRecord, append_round, read_rounds
from chorister.shared.privacy.ledger import parse
from chorister.shared.privacy.ledger_file import read_lines

STOPPED = "the server was stopped in it"


@dataclass(slots=True)
class _Traces:
    """What the ledger says of one round."""

    started: Mapping[str, Any] | None = None
    survivors: int = 0
    outcome: Mapping[str, Any] | None = None
    refusals: dict[str, int] = field(default_factory=dict)
    any: bool = False


def settle_unfinished(operator: Operator) -> RoundRecord | None:
    """Commit the round that an earlier process left behind, and return its record; None if none.

    Call it before the first round of a process, with no other process at work on the same folder.

    Raises:
        BadLedger: the ledger or the list of rounds was altered.
    """
    path = operator.rounds_path
    number = len(read_rounds(path)) + 1
    round_id = f"{operator.run}/{number}"
    traces = _read_traces(operator, round_id)
    version = _version_of(operator, round_id)
    if version is None and not traces.any and not operator.budget.knows(round_id):
        return None  # nobody ever heard of it: its number is still free
    record = _record(operator, number, traces, version)
    if traces.outcome is None:
        operator.ledger.append(
            "round", round=round_id, action=record.status, reason=record.reason,
            adapter=record.adapter_sha256, recovered=True,
        )  # fmt: skip
        operator.ledger.checkpoint(operator.signing_key)
    operator.on_round(record)
    append_round(path, record)
    return record


def _read_traces(operator: Operator, round_id: str) -> _Traces:
    traces = _Traces()
    for index, line in enumerate(read_lines(operator.ledger.path)):
        entry = parse(line.removesuffix(b"\n"), index)
        if entry.fields.get("round") != round_id:
            continue
        traces.any = True
        if entry.kind == "round":
            if entry.fields.get("action") == "started":
                traces.started = entry.fields
            else:
                traces.outcome = entry.fields
        elif entry.kind == "survivors":
            traces.survivors = len(_list(entry.fields.get("survivors")))
        elif entry.kind == "refusal":
            reason = "protocol" if entry.fields.get("stage") else "consent"
            traces.refusals[reason] = traces.refusals.get(reason, 0) + 1
    return traces


def _version_of(operator: Operator, round_id: str) -> AdapterVersion | None:
    return next((v for v in operator.registry.versions() if v.round_id == round_id), None)


def _record(
    operator: Operator, number: int, traces: _Traces, version: AdapterVersion | None
) -> RoundRecord:
    newest = operator.registry.latest()
    finished = version is not None
    private = operator.settings.private and traces.started is not None
    terms = traces.started.get("announced", {}) if traces.started else {}
    return RoundRecord(
        round=number,
        status="finished" if finished else "aborted",
        reason=None if finished else STOPPED,
        cohort=len(_list(traces.started.get("cohort"))) if traces.started else 0,
        answered={},
        drop_outs={},
        refusals=dict(sorted(traces.refusals.items())),
        survivors=traces.survivors if finished else 0,
        adapter_sha256=newest.sha256 if newest else "",
        min_honest=_whole(terms.get("min_honest")),
        noise_multiplier=None,
        epsilon_speaker=operator.budget.epsilon_of_all() if private else None,
        bytes_up=0,
        bytes_down=0,
        seconds=0.0,
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
