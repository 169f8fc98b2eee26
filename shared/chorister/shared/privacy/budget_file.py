"""A budget on disk: exact across crashes and across processes, in one file that can be copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chorister.shared.privacy.budget import Book, Booking, Limit
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger import Entry
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock


class BudgetFile:
    """A budget's journal: a ledger of bookings, each on the disk before it counts as done.

    Args:
        path: the journal; its folder exists.
        limits: privacy unit to its limit.
        owner: whose budget: a device's pseudonym or 'server'.
        federation: the federation it is for.
        clock: where the time of a booking comes from.

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
    ) -> None:
        self._book = Book(limits)
        self._journal = LedgerFile(
            path,
            owner=f"budget of {owner}",
            federation=federation,
            clock=clock,
            on_entry=self._take,
        )
        self._mine: set[str] = set()

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

    def events(self, account: str) -> tuple[PrivacyEvent, ...]:
        """Return the events booked on an account, spent and reserved together."""
        with self._locked() as book:
            return book.events(account)

    def accounts(self) -> tuple[str, ...]:
        """Return the accounts that anything is booked on, sorted."""
        with self._locked() as book:
            return book.accounts()

    @contextmanager
    def _locked(self) -> Iterator[Book]:
        with self._journal.locked():
            yield self._book

    def _write(self, booking: Booking) -> None:
        self._journal.append_locked("budget", booking.to_fields())

    def _take(self, entry: Entry) -> None:
        if entry.kind == "budget":
            self._book.apply(Booking.from_fields(entry.fields))
