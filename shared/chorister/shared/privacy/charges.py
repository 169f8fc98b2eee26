"""What a round charges a speaker: the one reading of its terms that device and server share."""

from __future__ import annotations

from chorister.shared.privacy.events import (
    PERSONAL_MECHANISM,
    SEGMENT_MECHANISM,
    SPEAKER_MECHANISM,
    PrivacyEvent,
)
from chorister.shared.secagg.terms import RoundTerms


def speaker_event(terms: RoundTerms) -> PrivacyEvent | None:
    """Return what a round under these terms costs each speaker of its cohort; None without noise.

    It is the noise of `min_honest` devices: what more survivors add is not counted on. No sampling
    is claimed: the server knows who was asked.
    """
    if not terms.private:
        return None
    return PrivacyEvent(SPEAKER_MECHANISM, terms.noise_multiplier, 1.0, 1)


def segment_event(noise_multiplier: float, sample_rate: float, steps: int) -> PrivacyEvent | None:
    """Return what local DP-SGD costs each segment; None without noise.

    Args:
        noise_multiplier: standard deviation over the clip norm.
        sample_rate: chance of a segment to join a step, in (0, 1].
        steps: of the optimiser.
    """
    if noise_multiplier == 0:
        return None
    return PrivacyEvent(SEGMENT_MECHANISM, noise_multiplier, sample_rate, steps)


def personal_event(noise_multiplier: float, sample_rate: float, steps: int) -> PrivacyEvent:
    """Return what DP-SGD of a personal adapter costs each segment, whether it is released or not.

    It is booked when it is trained: what stays on the device today may be given away tomorrow. One
    that was trained without noise and given away is covered by no figure at all.

    Args:
        noise_multiplier: standard deviation over the clip norm, above 0.
        sample_rate: chance of a segment to join a step, in (0, 1].
        steps: of the optimiser.
    """
    return PrivacyEvent(PERSONAL_MECHANISM, noise_multiplier, sample_rate, steps)
