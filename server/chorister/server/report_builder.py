"""From ledgers to the report, top to bottom: inspect, gather, work out, put into words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from chorister.server.attack_record import SealedAttacks
from chorister.server.inspection import Inspection, inspect
from chorister.server.report_figures import (
    accounts,
    device_rows,
    epsilon_by_round,
    extrapolate,
    worst_figures,
)
from chorister.server.report_record import (
    AuditReport,
    Consent,
    LedgerLine,
    RandomnessLine,
    Responsible,
    Round,
    WithdrawalLine,
)
from chorister.server.report_story import RoundStory, Story
from chorister.server.report_words import (
    DOES_NOT_PROVE,
    PROVES,
    registry_entry,
    summarise,
    tell_dropouts,
    trust_model,
    undermining,
)
from chorister.server.terms import total_noise_multiplier
from chorister.shared.errors import UsageError
from chorister.shared.privacy.crosscheck import SERVER
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.privacy.speaker_level import largest_delta
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Accountability
from chorister.shared.signing import VerifyKey


def build_report(
    paths: Sequence[Path],
    *,
    attacks: SealedAttacks | None,
    responsible: Accountability | None,
    recording_segments: int,
    checkpoints: Sequence[Checkpoint] = (),
    keys: Sequence[VerifyKey] | None = None,
    authority: VerifyKey | None = None,
    now_s: int | None = None,
) -> AuditReport:
    """Return the report on ledgers that belong together; contradictions are in it.

    Args:
        paths: ledger files of one federation, budgets' journals included.
        attacks: measured, None if they were not.
        responsible: who answers for it; None takes what the server stated in its ledger.
        recording_segments: segments of a recording, for group privacy.
        checkpoints: kept elsewhere.
        keys: who may sign checkpoints; None accepts any and names them.
        authority: the enrolment authority's key; None takes what the server stated.
        now_s: Unix time; None asks the clock.

    Raises:
        UsageError: no ledger among them is sound.
    """
    story = Story()
    made_at_s = int(time.time()) if now_s is None else now_s
    found = inspect(
        paths, checkpoints=checkpoints, keys=keys, authority=authority, on_entry=story.follow,
        now_s=made_at_s,
    )  # fmt: skip
    sound = [ledger for ledger in found.ledgers if ledger.verified is not None]
    if not sound:
        raise UsageError(
            "A report needs at least one ledger whose chain holds.",
            found.problems[0].what if found.problems else "none",
            "Run `chorister audit verify` on each file.",
        )
    finished = frozenset(r.name for r in story.rounds.values() if r.status == "finished")
    rows = accounts(found, finished)
    figures = worst_figures(rows, story, recording_segments)
    spent = epsilon_by_round(found, list(story.rounds.values()))
    rounds = [_round(r, spent.get(r.name, (None, None))[0]) for r in story.rounds.values()]
    devices = _devices(found, story)
    settings = story.statement.get("settings", {})
    who = responsible or Accountability.parse(
        settings.get("accountability", {}), "the server's statement"
    )
    simulated = bool(story.statement.get("simulated")) or any(r.simulated for r in rounds)
    federation = next((one.federation for one in sound if one.federation != "none"), "none")
    gamma = settings.get("aggregation", {}).get("corrupt_fraction")
    verified = [one.verified for one in sound if one.verified is not None]
    return AuditReport(
        chorister=version("chorister"), made_at_s=made_at_s, federation=federation,
        covers_s=(min(v.first_s for v in verified), max(v.latest_s for v in verified)),
        summary=summarise(
            federation, figures, rounds, devices=devices, simulated=simulated, sound=found.sound,
            withdrawn=len({device for device, *_ in story.withdrawals}), purpose=who.purpose,
        ),
        sound=found.sound,
        problems=[f"{_short(p.file)}: {p.what}" for p in found.problems],
        remarks=_remarks(found),
        figures=figures, devices=device_rows(rows), rounds=rounds, dropouts=tell_dropouts(rounds),
        randomness=_randomness(story), simulated=simulated,
        undermine=undermining(
            figures, simulated=simulated, population=devices,
            largest_delta=largest_delta(max(devices, 1)),
        ),
        responsible=Responsible(**who.model_dump()),
        consents=_consents(story), withdrawals=_withdrawals(story),
        exports=[
            f"device {device}: voice {voice[:16]} under consent {consent[:16]}; a voice that is "
            "given away is covered by no figure here"
            for device, voice, consent in story.exports
        ],
        refusals=[f"{n} x {reason}" for reason, n in story.refusals.most_common(30)],
        trust=trust_model(rounds, gamma), attacks=attacks.attacks if attacks else None,
        attacks_signed_by=attacks.key if attacks else None, extrapolated=extrapolate(rows),
        digests=_digests(story), ledgers=_ledgers(found),
        proves=list(PROVES), does_not_prove=list(DOES_NOT_PROVE),
        limits=_limits(found, story, attacks, figures),
        registry=registry_entry(
            federation=federation, purpose=who.purpose, controller=who.controller,
            date=f"{datetime.fromtimestamp(made_at_s, UTC):%Y-%m-%d}", figures=figures,
            rounds=sum(r.charged for r in rounds),
            code_sha256=str(story.statement.get("code_sha256", "")), version=version("chorister"),
        ),
    )  # fmt: skip


def _round(story: RoundStory, epsilon: float | None) -> Round:
    terms = story.terms
    private = terms is not None and terms.private
    in_sum = None
    if terms is not None and private and story.survivors:
        in_sum = total_noise_multiplier(terms, story.survivors)
    status = story.status if story.status in ("finished", "aborted") else "open"
    return Round(
        round=story.name, status=status, reason=story.reason, at_s=story.at_s,  # type: ignore[arg-type]
        asked=story.asked, admitted=story.admitted, survivors=story.survivors,
        min_honest=terms.min_honest if terms else None,
        clip_norm=terms.clip_norm if terms and private else None,
        noise_promised=terms.noise_multiplier if terms and private else None,
        noise_in_sum=in_sum, epsilon_speaker=epsilon, charged=story.charged,
        simulated=terms.simulated if terms else False, adapter=story.adapter,
    )  # fmt: skip


def _devices(found: Inspection, story: Story) -> int:
    own = {one.owner for one in found.ledgers if one.owner != SERVER}
    taking_part = {consent.device for consent in story.consents.values() if consent.uses}
    charged = {
        account.partition("/")[2]
        for one in found.ledgers
        if one.booked is not None and one.owner == SERVER
        for account in one.booked.book.accounts()
    }
    return len(charged or (own & taking_part) or own)


def _randomness(story: Story) -> RandomnessLine:
    statements = sorted(story.randomness) or ["no ledger says where randomness came from"]
    said = sorted({who for some in story.randomness.values() for who in some})
    private = statements == [SystemRandomness.statement]
    return RandomnessLine(
        statement="; ".join(statements), private=private,
        said_by=[f"{len(said)} of the given ledgers"] if said else [],
    )  # fmt: skip


def _consents(story: Story) -> list[Consent]:
    return [
        Consent(
            digest=digest, device=c.device, state=c.state, purposes=c.purposes, uses=c.uses,
            last_use_s=c.last_use_s,
        )
        for digest, c in sorted(story.consents.items(), key=lambda item: item[1].device)
    ]  # fmt: skip


def _withdrawals(story: Story) -> list[WithdrawalLine]:
    return [
        WithdrawalLine(
            device=device, consent=consent, at_s=at_s, versions=versions,
            evidence="the device's signature" if signed else "the writer's word alone",
        )
        for device, consent, at_s, versions, signed in story.withdrawals
    ]  # fmt: skip


def _digests(story: Story) -> list[tuple[str, str]]:
    rows = [
        (name, str(story.statement[key]))
        for name, key in (("Code of the server", "code_sha256"), ("Base model", "base_sha256"))
        if key in story.statement
    ]
    first = next((r.terms.adapter for r in story.rounds.values() if r.terms), None)
    if first is not None:
        rows.append(("Shared adapter before the first round", first))
    rows += [
        (f"Shared adapter after {r.name}", r.adapter)
        for r in story.rounds.values()
        if r.status == "finished"
    ]
    return rows


def _ledgers(found: Inspection) -> list[LedgerLine]:
    return [
        LedgerLine(
            file=_short(str(one.path)), owner=one.owner,
            kind="budget" if one.journal else "ledger", entries=one.verified.length,
            head=one.verified.head, signed_to=one.verified.signed_to,
            signed_by=sorted(one.verified.keys),
        )
        for one in found.ledgers
        if one.verified is not None
    ]  # fmt: skip


def _limits(
    found: Inspection, story: Story, attacks: SealedAttacks | None, figures: Sequence[object]
) -> list[str]:
    kinds = {(one.owner == SERVER, one.journal) for one in found.ledgers}
    limits = []
    if (True, False) not in kinds:
        limits.append("The server's ledger was not given: rounds and sums cannot be listed.")
    if (False, False) not in kinds:
        limits.append("No device's ledger was given: only the devices' signatures were checked.")
    if (False, True) not in kinds:
        limits.append(
            "No device's budget was given: the segment-level figure is known to devices alone."
        )
    if not figures:
        limits.append("No budget was booked: this report states no privacy figure.")
    if not story.statement:
        limits.append("The server did not state its settings and software in its ledger.")
    if story.unreadable:
        limits.append(f"{story.unreadable} entries lack the fields of their kind and are left out.")
    if attacks is None:
        limits.append("No attack was measured for this report; its figures are bounds alone.")
    elif attacks.attacks.base_sha256 != story.statement.get("base_sha256"):
        limits.append(
            "The attacks were measured on another base model than the one that the server states."
        )
    limits += [
        "The sum's inputs are not range-proved: a certified device can spoil a round, within the "
        "bound on the sum's norm.",
        "A device's quality, its words and its voice appear nowhere here, so nothing here says "
        "whether the adapter is good.",
    ]
    return limits


def _remarks(found: Inspection) -> list[str]:
    """Return each remark once, with the files that it is about."""
    about: dict[str, list[str]] = {}
    for remark in found.remarks:
        about.setdefault(remark.what, []).append(_short(remark.file))
    return [
        f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}: {what}."
        for what, names in about.items()
    ]


def _short(file: str) -> str:
    """Return a file's last two names: enough to find it, and nothing of the machine's folders."""
    return "/".join(Path(file).parts[-2:])
