"""What the owner agreed to when this device joined: the invitation, and limits of the owner's own.

    item invite-NAME of the vault             the invitation, as the authority signed it
    item limits-NAME                          the owner's limits, where they are narrower
    FOLDER/federations/NAME/ledger.jsonl      what this device did there
    FOLDER/federations/NAME/budget.jsonl      what it cost
    FOLDER/federations/NAME/rounds/           sealed state of the round under way
    FOLDER/federations/NAME/adapters/         the newest shared adapter that did no harm here
    FOLDER/federations/NAME/harmful-adapters/ the newest that did

NAME is a digest of the federation's name, so that files tell nobody where a speaker sings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from chorister.client.home import FEDERATIONS, Home
from chorister.client.membership import pin_authority, short
from chorister.client.secagg_party import Acceptance
from chorister.shared.errors import BadSignature, BadWeights, UsageError
from chorister.shared.invite import Invite
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.limits import segment_limit, speaker_limit
from chorister.shared.settings import Positive, Settings
from chorister.shared.voice.base_digest import BASE_SHA256

KIND = "invite"
_INVITE = "invite-{}"
_LIMITS = "limits-{}"


class OwnerLimits(Settings):
    """What this device's owner demands beyond what the invitation promises; None demands no more.

    Attributes:
        least_cohort: fewest devices in a round.
        least_noise_multiplier: of the speaker-level noise.
        speaker_epsilon_max: what everything that this speaker gives may cost in all.
        segment_epsilon_max: the same for one training segment.
        most_adapter_norm: largest L2 norm of a shared adapter to train from.
    """

    least_cohort: Annotated[int, Field(ge=2, le=4096)] | None = None
    least_noise_multiplier: Positive | None = None
    speaker_epsilon_max: Positive | None = None
    segment_epsilon_max: Positive | None = None
    most_adapter_norm: Positive = 100.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What holds between this device and one federation.

    Attributes:
        invite: signed by the pinned authority.
        limits: the owner's own.
    """

    invite: Invite
    limits: OwnerLimits

    @property
    def federation(self) -> str:
        """Its name."""
        return self.invite.federation

    def acceptance(self) -> Acceptance:
        """Return what a round must satisfy: what was promised, or more where the owner wants."""
        terms, limits = self.invite.terms, self.limits
        privacy, aggregation = terms.speaker_privacy, terms.aggregation
        adaptive = privacy.adaptive_clip
        clips = (privacy.clip_norm, privacy.clip_norm)
        if adaptive is not None:
            clips = (min(clips[0], adaptive.least_norm), max(clips[1], adaptive.most_norm))
        return Acceptance(
            federation=self.federation,
            least_cohort=max(self.invite.least_cohort, limits.least_cohort or 0),
            least_honest=self.invite.least_honest,
            least_gamma=aggregation.corrupt_fraction,
            most_dropout=aggregation.dropout_fraction,
            least_noise_multiplier=max(
                privacy.noise_multiplier, limits.least_noise_multiplier or 0.0
            ),
            least_clip=clips[0],
            most_clip=clips[1],
            most_adapter_norm=limits.most_adapter_norm,
            least_segment_noise=terms.segment_privacy.noise_multiplier,
        )

    def speaker_limit(self) -> Limit:
        """Return the limit on everything that the speaker contributes."""
        most = _least(
            self.invite.terms.speaker_privacy.epsilon_max, self.limits.speaker_epsilon_max
        )
        return speaker_limit(
            self.invite.terms.speaker_privacy.model_copy(update={"epsilon_max": most})
        )

    def segment_limit(self) -> Limit:
        """Return the limit on one training segment."""
        most = _least(
            self.invite.terms.segment_privacy.epsilon_max, self.limits.segment_epsilon_max
        )
        return segment_limit(
            self.invite.terms.segment_privacy.model_copy(update={"epsilon_max": most})
        )


def agree(home: Home, invite: Invite, limits: OwnerLimits) -> Agreement:
    """Pin an invitation's authority and keep the invitation; a newer one replaces an older one.

    Args:
        home: of the speaker, who saw what the invitation asks.
        invite: checked at this time.
        limits: the owner's own.

    Raises:
        BadSignature: it does not check, is of another authority than the one pinned for this
            federation, or is older than the one that was agreed to.
        BadWeights: it names another base model than the installed one.
        UsageError: it asks for a run without privacy, which no real voice takes part in.
    """
    invite.check(home.now_s())
    if not invite.terms.private:
        raise UsageError(
            "A device takes part in private federations only.",
            "an invitation without noise", "Ask the operator for a private run.",
        )  # fmt: skip
    check_base(invite)
    before = agreement(home, invite.federation)
    pin_authority(home, invite.federation, invite.authority)
    if before is not None and invite.release.issued_s < before.invite.release.issued_s:
        raise BadSignature(
            "A newer invitation replaces an older one.",
            f"one whose model release is of {invite.release.issued_s}, older than the agreed one "
            f"of {before.invite.release.issued_s} (Unix time)",
            "Ask the authority for its newest invitation.",
        )
    # The limits first: a crash between the two leaves no invitation that is held to none.
    home.vault.put(
        _LIMITS.format(short(invite.federation)), limits.model_dump_json().encode(), KIND
    )
    home.vault.put(_INVITE.format(short(invite.federation)), invite.to_bytes(), KIND)
    home.ledger.append(
        "note", action="agreed", federation=invite.federation,
        authority=invite.authority.raw.hex(), server=invite.server,
        invitation=hashlib.sha256(invite.to_bytes()).hexdigest(),
    )  # fmt: skip
    return Agreement(invite, limits)


def check_base(invite: Invite) -> None:
    """Return if the base that an authority named is the one that is installed here.

    Raises:
        BadWeights: it is not; no server has a say in it.
    """
    if invite.release.base_sha256 != BASE_SHA256:
        raise BadWeights(
            f"This version of Chorister has the base model {BASE_SHA256[:12]}.",
            f"an invitation that names {invite.release.base_sha256[:12]}",
            "Install the version that the federation uses.",
        )


def agreement(home: Home, federation: str) -> Agreement | None:
    """Return what this device's owner agreed to, None if nothing was.

    Raises:
        BadMessage, BadSignature: what the vault holds is damaged.
    """
    name = _INVITE.format(short(federation))
    if not home.vault.has(name):
        return None
    limits = json.loads(home.vault.get(_LIMITS.format(short(federation))))
    return Agreement(
        Invite.from_bytes(home.vault.get(name)), OwnerLimits.parse(limits, "the owner's limits")
    )


def agreements(home: Home) -> tuple[Agreement, ...]:
    """Return all agreements of this device, by federation."""
    prefix = _INVITE.partition("{")[0]
    names = [item.name for item in home.vault.items() if item.name.startswith(prefix)]
    found = [agreement(home, Invite.from_bytes(home.vault.get(n)).federation) for n in names]
    return tuple(sorted((a for a in found if a is not None), key=lambda a: a.federation))


def folder_of(home_folder: Path, federation: str) -> Path:
    """Return where a federation's files lie; `made` there or not."""
    return home_folder / FEDERATIONS / short(federation)


def _least(promised: float, own: float | None) -> float:
    return promised if own is None else min(promised, own)
