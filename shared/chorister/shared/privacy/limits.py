"""The limits that budgets enforce, from settings and accountants."""

from __future__ import annotations

from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.segment_level import segment_accountant
from chorister.shared.privacy.speaker_level import speaker_accountant
from chorister.shared.settings import SegmentPrivacy, SpeakerPrivacy


def segment_limit(privacy: SegmentPrivacy) -> Limit:
    """Return the limit on what training may cost each segment."""
    return Limit(privacy.epsilon_max, privacy.delta_dp, segment_accountant(privacy.delta_dp))


def speaker_limit(privacy: SpeakerPrivacy) -> Limit:
    """Return the limit on what rounds may cost a speaker."""
    return Limit(privacy.epsilon_max, privacy.delta_dp, speaker_accountant(privacy.delta_dp))
