"""The device's own budget: what its owner's voice may cost in all, whatever servers ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chorister.shared.privacy.budget import ALLOWED_UNFINISHED, Limit
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger_file import system_clock


class DeviceBudget:
    """Both privacy units of one device, booked together and never added together.

    Args:
        path: the journal, one file.
        segment: the limit on each training segment.
        speaker: the limit on everything that the speaker contributes.
        device_id: the device's pseudonym.
        federation: the federation it is for.
        clock: where the time of a booking comes from.
        allowed_unfinished: rounds that may be charged without a sum, beyond as many as came to
            one: what a server can waste by aborting. Its owner may raise it.

    Raises:
        BadLedger: the journal was altered, or is another device's.
    """

    def __init__(
        self,
        path: Path,
        *,
        segment: Limit,
        speaker: Limit,
        device_id: str,
        federation: str,
        clock: Callable[[], int] = system_clock,
        allowed_unfinished: int = ALLOWED_UNFINISHED,
    ) -> None:
        self._delta_speaker = speaker.delta
        self._file = BudgetFile(
            path, {"segment": segment, "speaker": speaker}, owner=device_id, federation=federation,
            clock=clock, allowed_unfinished=allowed_unfinished,
        )  # fmt: skip

    def reserve(
        self, round_id: str, *, segment: PrivacyEvent | None, speaker: PrivacyEvent | None
    ) -> None:
        """Book what a round will cost, before anything is trained; None where a unit has no noise.

        Raises:
            BudgetExhausted: either unit's limit does not cover it; nothing was booked.
            ProtocolViolation: the round was reserved before, or an event is out of range.
        """
        charges = {"segment": segment, "speaker": speaker}
        self._file.reserve(round_id, {k: v for k, v in charges.items() if v is not None})

    def spend(self, round_id: str) -> None:
        """Make it permanent, before anything leaves the device; twice is the same as once.

        Raises:
            ProtocolViolation: the round was never reserved, or was released.
        """
        self._file.spend(round_id)

    def release(self, round_id: str) -> bool:
        """Give it back if nothing left the device; False if it stays charged."""
        return self._file.release(round_id)

    def finish(self, round_id: str) -> None:
        """Say that a sum came of a spent round: this device revealed shares for it."""
        self._file.finish(round_id)

    def check_speaker(self, event: PrivacyEvent) -> None:
        """Return if the speaker's limit covers one more event; nothing is booked.

        Raises:
            BudgetExhausted: it does not, or too many rounds were charged without a sum.
        """
        self._file.check({"speaker": event})

    @property
    def delta_speaker(self) -> float:
        """The delta at which the owner wants the speaker unit's figure."""
        return self._delta_speaker

    def epsilon_segment(self) -> float:
        """Return the segment unit's epsilon so far, reserved rounds included."""
        return self._file.epsilon("segment")

    def epsilon_speaker(self) -> float:
        """Return the speaker unit's epsilon so far, reserved rounds included."""
        return self._file.epsilon("speaker")

    def events(self, unit: str) -> tuple[PrivacyEvent, ...]:
        """Return what is booked on 'segment' or 'speaker', for other accountants to read."""
        return self._file.events(unit)
