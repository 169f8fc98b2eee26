"""A budget on disk: exact across crashes and across processes, in one file that can be copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

from chorister.shared.privacy.budget import Book, Booking, Limit
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger import Entry, Json
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock


class BudgetFile:
    """A budget's journal: a ledger of bookings, each on the disk before it counts as done.

    Args:
        path: the journal; its folder exists.
        limits: privacy unit to its limit.
        owner: whose budget: a device's pseudonym or 'server'.
        federation: the federation it is for.
        clock: where the time of a booking comes from.
        allowed_unfinished: rounds that may be charged without a sum, beyond as many as came to
            one; None for no cap.

    Raises:
        BadLedger: the journal was altered, or is another owner's.
    """

    def __init__(
        self,
        path: Path,
        limits: Mapping[str, Limit],
        *,
        owner: str,
        federation: str,
        clock: Callable[[], int] = system_clock,
        allowed_unfinished: int | None = None,
    ) -> None:
        self._book = Book(limits, allowed_unfinished)
        self._noted: Json = None
        self._journal = LedgerFile(
            path,
            owner=f"budget of {owner}",
            federation=federation,
            clock=clock,
            on_entry=self._take,
        )
        self._mine: set[str] = set()
        self._note_limits(limits)

    def reserve(self, round_id: str, charges: Mapping[str, PrivacyEvent]) -> None:
        """Book a round's charges before anything is trained, all accounts or none.

        Args:
            round_id: unique in this budget's life.
            charges: account to event.

        Raises:
            BudgetExhausted: a limit does not cover it; nothing was booked.
            ProtocolViolation: the round was reserved before, or a charge is out of range.
        """
        with self._locked() as book:
            self._write(book.plan(round_id, charges))
        self._mine.add(round_id)

    def spend(self, round_id: str) -> None:
        """Make a reservation permanent, before the first byte that depends on the data is sent.

        Spending twice is the same as once, since a message may be delivered twice.

        Raises:
            ProtocolViolation: the round was never reserved, or was released.
        """
        with self._locked() as book:
            booking = book.plan_spend(round_id)
            if booking is not None:
                self._write(booking)
        self._mine.discard(round_id)

    def finish(self, round_id: str) -> None:
        """Say that a sum came of a spent round; nothing to book for any other."""
        with self._locked() as book:
            booking = book.plan_finish(round_id)
            if booking is not None:
                self._write(booking)

    def check(self, charges: Mapping[str, PrivacyEvent]) -> None:
        """Return if every limit covers these charges; nothing is booked.

        Raises:
            BudgetExhausted: a limit does not cover it, or too many rounds came to nothing.
            ProtocolViolation: an event is out of range.
        """
        with self._locked() as book:
            book.check(charges)

    def release(self, round_id: str) -> bool:
        """Give a reservation back if nothing left the device, and return whether it was given back.

        It is not if it was spent, or if another process reserved it (or this one before a restart):
        then nobody here knows what left the device, and it stays charged.
        """
        with self._locked() as book:
            booking = book.plan_release(round_id) if round_id in self._mine else None
            if booking is not None:
                self._write(booking)
        self._mine.discard(round_id)
        return booking is not None

    def epsilon(self, account: str) -> float:
        """Return the epsilon booked on an account, spent and reserved together."""
        with self._locked() as book:
            return book.epsilon(account)

    def largest_epsilon(self) -> float:
        """Return the largest epsilon over all accounts, 0 if nothing is booked."""
        with self._locked() as book:
            return book.largest_epsilon()

    def covers(self, account: str, event: PrivacyEvent) -> bool:
        """Return whether an account's limit covers one more event; nothing is booked."""
        with self._locked() as book:
            return book.covers(account, event)

    def state(self, round_id: str) -> str | None:
        """Return a round's last step: 'reserve', 'spend', 'finish' or 'release'; None for none."""
        with self._locked() as book:
            return book.state(round_id)

    def events(self, account: str) -> tuple[PrivacyEvent, ...]:
        """Return the events booked on an account, spent and reserved together."""
        with self._locked() as book:
            return book.events(account)

    def accounts(self) -> tuple[str, ...]:
        """Return the accounts that anything is booked on, sorted."""
        with self._locked() as book:
            return book.accounts()

    def _note_limits(self, limits: Mapping[str, Limit]) -> None:
        """Put the limits into the journal if they are not those that it holds last."""
        wanted: Json = {
            unit: {
                "epsilon_max": limit.epsilon_max if isfinite(limit.epsilon_max) else None,
                "delta": limit.delta,
            }
            for unit, limit in sorted(limits.items())
        }
        with self._journal.locked():
            if self._noted != wanted:
                self._journal.append_locked("note", {"limits": wanted})

    @contextmanager
    def _locked(self) -> Iterator[Book]:
        with self._journal.locked():
            yield self._book

    def _write(self, booking: Booking) -> None:
        self._journal.append_locked("budget", booking.to_fields())

    def _take(self, entry: Entry) -> None:
        if entry.kind == "budget":
            self._book.apply(Booking.from_fields(entry.fields))
        elif "limits" in entry.fields:
            self._noted = entry.fields["limits"]
