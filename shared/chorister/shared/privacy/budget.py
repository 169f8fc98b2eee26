"""The rules of a privacy budget: reserve before training, spend before sending. No I/O.

    reserve ---> spend ---> finish    the noise is out: charged for ever, and a sum came of it
       |           |
       |           +------> (nothing) the round was aborted: charged all the same
       |
       +-------> release              only if nothing left the device, and only by who reserved
       |
       +-------> (nothing)            a crash: stays reserved, and counts like spent

What is booked are privacy events, never epsilons: epsilons of rounds do not add up, and a better
accountant may read the same events later. Accounts of different privacy units are never added.

A server that lets devices send and then aborts would drain their budgets for nothing. So a device
stops once it was charged `ALLOWED_UNFINISHED` rounds more without a sum than with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from chorister.shared.errors import BadLedger, BudgetExhausted, ProtocolViolation
from chorister.shared.privacy.events import PERSONAL_MECHANISM, Epsilon, PrivacyEvent
from chorister.shared.privacy.ledger import Json

Step = Literal["reserve", "spend", "finish", "release"]
ALLOWED_UNFINISHED = 5
"""Rounds that may be charged without a sum, beyond as many as came to one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one privacy unit may cost over a device's whole life.

    Attributes:
        epsilon_max: the most that may be booked, above 0.
        delta: of (epsilon, delta), in (0, 1).
        epsilon: the accountant at this delta: from all booked events to epsilon, infinity allowed.
    """

    epsilon_max: float
    delta: float
    epsilon: Epsilon


@dataclass(frozen=True, slots=True)
class Booking:
    """One line of a budget's journal.

    Attributes:
        step: what was done.
        round_id: for which round; reserved once in a budget's life.
        charges: account to event, where an account is a unit ('segment') or a unit and whose it is
            ('speaker/0123456789abcdef'); empty unless step is 'reserve'.
    """

    step: Step
    round_id: str
    charges: Mapping[str, PrivacyEvent] = field(default_factory=dict)

    def to_fields(self) -> dict[str, Json]:
        """Return the booking as a ledger entry's fields."""
        charges: dict[str, Json] = {name: event.to_plain() for name, event in self.charges.items()}
        return {"step": self.step, "round": self.round_id, "charges": charges}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Booking:
        """Return the booking in a ledger entry's fields.

        Raises:
            BadLedger: they hold something else.
        """
        found, round_id, charges = (fields.get(name) for name in ("step", "round", "charges"))
        step: Step | None = next((known for known in get_args(Step) if known == found), None)
        if step is None or not isinstance(round_id, str) or not isinstance(charges, dict):
            raise BadLedger(
                "A budget's journal holds bookings: step, round and charges.", repr(fields)[:200],
                "Restore the budget's journal from a backup.",
            )  # fmt: skip
        return cls(step, round_id, {k: PrivacyEvent.from_plain(v) for k, v in charges.items()})


def is_local(charges: Mapping[str, PrivacyEvent]) -> bool:
    """Return whether charges are for what a device does by itself, outside of any round.

    A device alone says which mechanism it books, so no server can name its rounds to look so.
    """
    return all(event.mechanism == PERSONAL_MECHANISM for event in charges.values())


@dataclass(slots=True)
class Book:
    """All bookings of one budget: pure state, driven by whoever stores it.

    Args:
        limits: privacy unit to its limit.
        allowed_unfinished: rounds that may be charged without a sum, beyond as many as came to
            one; None for no cap.
    """

    limits: Mapping[str, Limit]
    allowed_unfinished: int | None = None
    _open: dict[str, Mapping[str, PrivacyEvent]] = field(default_factory=dict)
    _states: dict[str, Step] = field(default_factory=dict)
    _spent: dict[str, list[PrivacyEvent]] = field(default_factory=dict)
    _local: set[str] = field(default_factory=set)

    def plan(self, round_id: str, charges: Mapping[str, PrivacyEvent]) -> Booking:
        """Return the reservation that books these charges, if every limit covers it.

        Raises:
            BudgetExhausted: with it, an account would pass its limit (or its epsilon is no number),
                or too many rounds were charged without a sum.
            ProtocolViolation: the round was reserved before, or an event is out of range.
        """
        if round_id in self._states:
            raise ProtocolViolation(
                "A round is reserved once in a budget's life.",
                f"round '{round_id}' again, which is at '{self._states[round_id]}'",
                "Start a new round under a new id.",
            )
        self.check(charges, f"with round '{round_id}'")
        return Booking("reserve", round_id, dict(charges))

    def check(self, charges: Mapping[str, PrivacyEvent], with_what: str = "with it") -> None:
        """Return if every limit covers these charges; nothing is booked.

        Args:
            charges: account to event, at least one.
            with_what: what they are for, for the error.

        Raises:
            BudgetExhausted: an account would pass its limit, or too many rounds came to nothing.
            ProtocolViolation: an event is out of range.
        """
        if not charges or not all(event.is_valid() for event in charges.values()):
            raise ProtocolViolation(
                "A reservation names at least one event, each with its values in range.",
                repr(dict(charges))[:200],
                "Give noise_multiplier > 0, 0 < sample_rate <= 1, steps >= 1.",
            )  # fmt: skip
        known: dict[tuple[str, tuple[PrivacyEvent, ...]], float] = {}
        for account, event in charges.items():
            limit = self._limit(account)
            unit = account.partition("/")[0]
            events = (*self.events(account), event)
            # Most accounts of a server have the same history: one call serves them all.
            if (unit, events) not in known:
                known[unit, events] = limit.epsilon(events)
            epsilon = known[unit, events]
            # Written so that a NaN is refused.
            if not epsilon <= limit.epsilon_max:
                raise BudgetExhausted(
                    f"The budget of '{account}' is epsilon {limit.epsilon_max:g} at delta "
                    f"{limit.delta:g} over its whole life.",
                    f"epsilon {epsilon:.4g} {with_what} "
                    f"(epsilon {self.epsilon(account):.4g} is booked so far)",
                    "Nothing was trained. Raise the noise or leave the federation; "
                    "a budget does not come back.",
                )
        unfinished, finished = self.outcomes()
        cap = self.allowed_unfinished
        if cap is not None and unfinished - finished >= cap and not is_local(charges):
            raise BudgetExhausted(
                f"A device is charged at most {cap} rounds more without a sum than with one.",
                f"{unfinished} without and {finished} with one",
                "Nothing was trained. Ask the operator why rounds are aborted; the owner of the "
                "device may allow more.",
            )

    def outcomes(self) -> tuple[int, int]:
        """Return how many charged rounds came to no sum (as far as known) and how many to one.

        What the owner trained on this device alone is no round: no server can waste it.
        """
        states = [step for name, step in self._states.items() if name not in self._local]
        return states.count("reserve") + states.count("spend"), states.count("finish")

    def plan_finish(self, round_id: str) -> Booking | None:
        """Return the booking that says that a sum came of a spent round, None if it is not at that.

        A round without noise was never booked, and one may be finished twice: both are nothing to
        book.
        """
        return Booking("finish", round_id) if self._states.get(round_id) == "spend" else None

    def plan_spend(self, round_id: str) -> Booking | None:
        """Return the booking that makes a reservation permanent, None if it is already spent.

        Raises:
            ProtocolViolation: the round was never reserved, or was released.
        """
        state = self._states.get(round_id)
        if state in ("spend", "finish"):
            return None
        if state != "reserve":
            raise ProtocolViolation(
                "A round's budget is reserved before it is spent.",
                f"round '{round_id}' is {'released' if state else 'not reserved'}",
                "Send nothing in this round.",
            )
        return Booking("spend", round_id)

    def plan_release(self, round_id: str) -> Booking | None:
        """Return the booking that gives a reservation back, None if it is not open (then it stays).

        Only who reserved may ask, in the same process: who finds a reservation cannot know whether
        something left the device.
        """
        return Booking("release", round_id) if self._states.get(round_id) == "reserve" else None

    def apply(self, booking: Booking) -> None:
        """Take a booking from the journal into the state.

        Raises:
            BadLedger: it does not follow from the bookings before.
        """
        before: dict[Step, Step | None] = {
            "reserve": None,
            "spend": "reserve",
            "finish": "spend",
            "release": "reserve",
        }
        if self._states.get(booking.round_id) != before[booking.step]:
            raise BadLedger(
                "In a budget's journal each round is reserved once, then spent or released.",
                f"'{booking.step}' of round '{booking.round_id}' out of order",
                "Restore the budget's journal from a backup.",
            )
        self._states[booking.round_id] = booking.step
        if booking.step == "reserve":
            self._open[booking.round_id] = booking.charges
            if is_local(booking.charges):
                self._local.add(booking.round_id)
        elif booking.step != "finish":
            charges = self._open.pop(booking.round_id)
            if booking.step == "spend":
                for account, event in charges.items():
                    self._spent.setdefault(account, []).append(event)

    def covers(self, account: str, event: PrivacyEvent) -> bool:
        """Return whether an account's limit covers one more event; the cap is not looked at."""
        limit = self._limit(account)
        return (
            event.is_valid() and limit.epsilon((*self.events(account), event)) <= limit.epsilon_max
        )

    def events(self, account: str) -> tuple[PrivacyEvent, ...]:
        """Return what is booked on an account: spent first, then reserved."""
        return (*self.spent(account), *self.reserved(account))

    def spent(self, account: str) -> tuple[PrivacyEvent, ...]:
        """Return what was spent on an account."""
        return tuple(self._spent.get(account, ()))

    def reserved(self, account: str) -> tuple[PrivacyEvent, ...]:
        """Return what is reserved on an account: a round is under way, or a crash ended it."""
        return tuple(charges[account] for charges in self._open.values() if account in charges)

    def rounds(self) -> Mapping[str, Step]:
        """Return each round's last step, in the order of reservation."""
        return dict(self._states)

    def epsilon(self, account: str) -> float:
        """Return the epsilon of all events booked on an account, 0 if there are none."""
        events = self.events(account)
        return self._limit(account).epsilon(events) if events else 0.0

    def largest_epsilon(self) -> float:
        """Return the largest epsilon over all accounts, 0 if nothing is booked."""
        histories = {(name.partition("/")[0], self.events(name)) for name in self.accounts()}
        return max((self._limit(unit).epsilon(events) for unit, events in histories), default=0.0)

    def accounts(self) -> tuple[str, ...]:
        """Return the accounts that anything is booked on, sorted."""
        reserved = {account for charges in self._open.values() for account in charges}
        return tuple(sorted(reserved | self._spent.keys()))

    def state(self, round_id: str) -> Step | None:
        """Return a round's last step, None if it was never reserved."""
        return self._states.get(round_id)

    def _limit(self, account: str) -> Limit:
        unit = account.partition("/")[0]
        if unit not in self.limits:
            raise ProtocolViolation(
                f"A charge names a privacy unit with a limit: {', '.join(sorted(self.limits))}.",
                f"'{account}'", "Set a limit for this unit; without one nothing may be booked.",
            )  # fmt: skip
        return self.limits[unit]
