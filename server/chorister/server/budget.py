"""The federation's budget: the server's own count of what each device's speaker has given.

Every device of a cohort is charged for the round, survivor or not: a server cannot show that a
masked delta that it did not use was not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger_file import system_clock


class FederationBudget:
    """The speaker unit of every device, in one journal.

    Args:
        path: the journal, one file.
        speaker: the limit on each device's speaker.
        federation: the federation it is for.
        clock: where the time of a booking comes from.

    Raises:
        BadLedger: the journal was altered, or is another federation's.
    """

    def __init__(
        self,
        path: Path,
        *,
        speaker: Limit,
        federation: str,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        limits = {"speaker": speaker}
        self._file = BudgetFile(path, limits, owner="server", federation=federation, clock=clock)

    def reserve(self, round_id: str, cohort: Iterable[str], event: PrivacyEvent) -> None:
        """Book a round for every device of its cohort, before any device is asked to train.

        Raises:
            BudgetExhausted: a device's limit does not cover it (the message names the device's
                pseudonym; leave it out and try again); nothing was booked.
            ProtocolViolation: the round was reserved before, or the event is out of range.
        """
        self._file.reserve(round_id, {_account(device): event for device in cohort})

    def covers(self, device_id: str, event: PrivacyEvent) -> bool:
        """Return whether a device's limit covers one more event, to choose a cohort by."""
        return self._file.covers(_account(device_id), event)

    def spend(self, round_id: str) -> None:
        """Make it permanent, before the masked deltas are asked for; twice is the same as once.

        Raises:
            ProtocolViolation: the round was never reserved, or was released.
        """
        self._file.spend(round_id)

    def release(self, round_id: str) -> bool:
        """Give it back if no device had sent a masked delta; False if it stays charged."""
        return self._file.release(round_id)

    def knows(self, round_id: str) -> bool:
        """Return whether anything was ever booked for a round, whatever became of it."""
        return self._file.state(round_id) is not None

    def devices(self) -> frozenset[str]:
        """Return every device that anything is booked on, whether it answers now or not."""
        return frozenset(a.removeprefix(_account("")) for a in self._file.accounts())

    def epsilon(self, device_id: str) -> float:
        """Return the epsilon of one device's speaker, reserved rounds included."""
        return self._file.epsilon(_account(device_id))

    def epsilon_of_all(self) -> float:
        """Return the largest epsilon over devices, 0 if nothing is booked."""
        return self._file.largest_epsilon()


def _account(device_id: str) -> str:
    return f"speaker/{device_id}"
