"""What happened in a run, step by step, in sentences made from its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from chorister.simulations.verdict import figure


def tell(run: dict[str, Any], ledger_kinds: Mapping[str, int]) -> list[str]:
    """Return the steps of a run in order.

    Args:
        run: the record, as docs/run.schema.json describes it.
        ledger_kinds: how many entries of each kind the ledger holds; empty without a ledger.
    """
    steps = [_speakers(run["data"])]
    if run["federated"]:
        steps += _consent(ledger_kinds)
        steps += _rounds(run)
    else:
        steps.append("Each device trained alone; no round was run and nothing was shared.")
    steps += _personalised(run["personalised"])
    if run.get("voice") is not None:
        steps.append(
            f"The voice of {run['voice']['speaker']} was exported as {run['voice']['path']}, which "
            "onnxruntime runs alone."
        )
    for resumed in run["resumed"]:
        after = resumed["after_round"]
        where = f"after round {after}" if after else "before the first round"
        steps.append(f"The run was stopped and resumed {where}.")
    return steps


def _speakers(data: dict[str, Any]) -> str:
    roles = Counter(s["role"] for s in data["speakers"])
    seconds = sum(s["seconds"] for s in data["speakers"])
    shift = (
        ""
        if data["shift"] == "none"
        else f", heard through a {data['shift']} that the base model lacks"
    )
    skipped = len(data["skipped"])
    left = f" {skipped} {'file was' if skipped == 1 else 'files were'} left out." if skipped else ""
    return (
        f"{len(data['speakers'])} voices were read, {seconds / 60:.1f} minutes in all{shift}: "
        f"{roles['client']} sing in the choir and {roles['held_out']} were kept aside, to measure "
        f"by.{left}"
    )


def _consent(kinds: Mapping[str, int]) -> list[str]:
    if not kinds:
        return []
    admissions, refusals = kinds.get("admission", 0), kinds.get("refusal", 0)
    refused = (
        "nothing was refused"
        if not refusals
        else f"the ledger holds {refusals} refusal{'s' if refusals > 1 else ''} with the reason"
    )
    return [
        "Before each round a device showed its certificate and a signed consent token: "
        f"{admissions} admissions in all, {refused}."
    ]


def _rounds(run: dict[str, Any]) -> list[str]:
    rounds = run["rounds"]
    if not rounds:
        return ["No round was started."]
    steps = []
    last = rounds[-1]
    d = run["shared_adapter"]["d"]
    if run["private"]:
        clip = "" if last["clip_norm"] is None else f" to a norm of {figure(last['clip_norm'])}"
        steps.append(
            f"In each round a device trained the shared adapter of {d} values on its own "
            f"recordings, clipped what had changed{clip}, rounded it to integers, added its share "
            "of the noise and masked the result. The server saw masked numbers and their sum."
        )
    else:
        steps.append(
            f"In each round a device trained the shared adapter of {d} values on its own "
            "recordings and masked what had changed. There was no noise."
        )
    lost: Counter[str] = Counter()
    for r in rounds:
        lost.update(r["drop_outs"])
    if lost.total():
        stages = ", ".join(f"{n} at '{stage}'" for stage, n in sorted(lost.items()) if n)
        steps.append(f"Devices dropped out on the way, as the scenario says: {stages}.")
    finished = [r for r in rounds if r["status"] == "finished"]
    if finished:
        seconds = sum(r["seconds"] for r in rounds)
        steps.append(
            f"{len(finished)} of {len(rounds)} rounds were finished in {seconds:.0f} s; the sum of "
            f"the last had {last['survivors']} clients in it."
            if last["status"] == "finished"
            else f"{len(finished)} of {len(rounds)} rounds were finished in {seconds:.0f} s."
        )
    steps += [f"Round {r['round']} was aborted: {r['reason']}" for r in rounds if r["reason"]]
    return steps


def _personalised(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    kept = sum(row["kept"] for row in rows)
    voices = "voice was" if len(rows) == 1 else "voices were"
    step = (
        f"{len(rows)} {voices} personalised on the device, without sharing anything; "
        f"{kept} got better."
    )
    pairs = [
        (row["similarity_zero_shot"], row["similarity_personalised"])
        for row in rows
        if row["similarity_zero_shot"] is not None and row["similarity_personalised"] is not None
    ]
    if pairs:
        before, after = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        step += f" Similarity to the target went from {figure(before)} to {figure(after)}."
    return [step]
