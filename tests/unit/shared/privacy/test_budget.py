import math

import pytest

from chorister.shared.errors import BadLedger, BudgetExhausted, ProtocolViolation
from chorister.shared.privacy.budget import Book, Booking, Limit
from chorister.shared.privacy.events import PrivacyEvent


def steps(events):
    """An accountant that is easy to check by hand: one epsilon a step."""
    return float(sum(event.steps for event in events))


def event(count=1, **changes):
    noise = {"mechanism": "m", "noise_multiplier": 1.0, "sample_rate": 1.0, **changes}
    return PrivacyEvent(**noise, steps=count)


def reserving(**changes):
    charges = {"speaker": {**event().to_plain(), **changes}}
    return {"step": "reserve", "round": "r1", "charges": charges}


def book(segment=10.0, speaker=3.0):
    return Book({"segment": Limit(segment, 1e-3, steps), "speaker": Limit(speaker, 1e-5, steps)})


def reserved(target, round_id, **charges):
    target.apply(target.plan(round_id, charges))


def test_it_refuses_before_the_limit_is_passed_and_books_nothing():
    b = book()
    for round_id in ("r1", "r2", "r3"):
        reserved(b, round_id, speaker=event())
    with pytest.raises(BudgetExhausted, match=r"epsilon 4 with round 'r4' \(epsilon 3 is booked"):
        b.plan("r4", {"speaker": event()})
    assert b.epsilon("speaker") == 3
    assert b.state("r4") is None


def test_reserved_and_spent_count_alike_and_released_does_not_count():
    b = book()
    for round_id in ("r1", "r2", "r3"):
        reserved(b, round_id, speaker=event())
    b.apply(b.plan_spend("r1"))
    assert b.epsilon("speaker") == 3
    b.apply(b.plan_release("r2"))
    assert b.epsilon("speaker") == 2
    reserved(b, "r4", speaker=event())


def test_units_are_never_added_and_one_full_unit_refuses_both():
    b = book(segment=10, speaker=3)
    reserved(b, "r1", segment=event(9), speaker=event())
    assert (b.epsilon("segment"), b.epsilon("speaker")) == (9, 1)
    with pytest.raises(BudgetExhausted, match="'segment'"):
        b.plan("r2", {"segment": event(2), "speaker": event()})
    assert b.epsilon("speaker") == 1


def test_accounts_of_one_unit_are_apart():
    b = book()
    reserved(b, "r1", **{"speaker/a": event(3), "speaker/b": event(1)})
    with pytest.raises(BudgetExhausted, match="'speaker/a'"):
        b.plan("r2", {"speaker/a": event(), "speaker/b": event()})
    assert b.covers("speaker/b", event(2))
    assert not b.covers("speaker/b", event(3))
    assert b.largest_epsilon() == 3
    assert b.accounts() == ("speaker/a", "speaker/b")


@pytest.mark.parametrize("epsilon", [math.nan, math.inf])
def test_an_epsilon_that_is_no_number_is_refused(epsilon):
    b = Book({"speaker": Limit(1e9, 1e-5, lambda events: epsilon)})
    with pytest.raises(BudgetExhausted):
        b.plan("r1", {"speaker": event()})
    assert not b.covers("speaker", event())


def test_an_unlimited_budget_is_one_with_an_infinite_limit():
    b = Book({"speaker": Limit(math.inf, 1e-5, lambda events: math.inf)})
    reserved(b, "r1", speaker=event())
    assert b.epsilon("speaker") == math.inf


@pytest.mark.parametrize("last", ["reserve", "spend", "release"])
def test_a_round_is_reserved_once_whatever_became_of_it(last):
    b = book()
    reserved(b, "r1", speaker=event())
    if last == "spend":
        b.apply(b.plan_spend("r1"))
    elif last == "release":
        b.apply(b.plan_release("r1"))
    with pytest.raises(ProtocolViolation, match="reserved once"):
        b.plan("r1", {"speaker": event()})


def test_spending_needs_a_reservation_and_twice_is_once():
    b = book()
    with pytest.raises(ProtocolViolation, match="not reserved"):
        b.plan_spend("r1")
    reserved(b, "r1", speaker=event())
    b.apply(b.plan_spend("r1"))
    assert b.plan_spend("r1") is None
    assert b.plan_release("r1") is None
    reserved(b, "r2", speaker=event())
    b.apply(b.plan_release("r2"))
    with pytest.raises(ProtocolViolation, match="released"):
        b.plan_spend("r2")


@pytest.mark.parametrize(
    "bad",
    [
        event(0),
        event(-1),
        event(noise_multiplier=0.0),
        event(noise_multiplier=math.nan),
        event(noise_multiplier=math.inf),
        event(sample_rate=0.0),
        event(sample_rate=1.5),
    ],
)
def test_an_event_out_of_range_is_refused(bad):
    with pytest.raises(ProtocolViolation, match="in range"):
        book().plan("r1", {"speaker": bad})
    assert not book().covers("speaker", bad)


def test_a_reservation_of_nothing_or_without_a_limit_is_refused():
    with pytest.raises(ProtocolViolation, match="at least one event"):
        book().plan("r1", {})
    with pytest.raises(ProtocolViolation, match="with a limit"):
        book().plan("r1", {"room": event()})


@pytest.mark.parametrize(
    "bookings",
    [
        [Booking("spend", "r1")],
        [Booking("release", "r1")],
        [Booking("reserve", "r1", {"speaker": event()})] * 2,
        [
            Booking("reserve", "r1", {"speaker": event()}),
            Booking("release", "r1"),
            Booking("spend", "r1"),
        ],
    ],
)
def test_a_journal_out_of_order_is_refused(bookings):
    b = book()
    with pytest.raises(BadLedger, match="out of order"):
        for booking in bookings:
            b.apply(booking)


@pytest.mark.parametrize(
    "fields",
    [
        {"step": "reserve"},
        {"step": "refund", "round": "r1", "charges": {}},
        {"step": "reserve", "round": 1, "charges": {}},
        {"step": "reserve", "round": "r1", "charges": {"speaker": {"steps": 1}}},
        reserving(steps=-1),
        reserving(steps=True),
        reserving(noise_multiplier="1"),
    ],
)
def test_a_booking_with_other_fields_is_refused(fields):
    with pytest.raises(BadLedger):
        Booking.from_fields(fields)


def test_a_booking_survives_its_plain_form():
    booking = Booking("reserve", "r1", {"segment": event(40, sample_rate=0.25), "speaker": event()})
    assert Booking.from_fields(booking.to_fields()) == booking


def test_one_call_of_the_accountant_serves_accounts_with_the_same_history():
    calls = []

    def counted(events):
        calls.append(tuple(events))
        return steps(events)

    b = Book({"speaker": Limit(9.0, 1e-5, counted)})
    reserved(b, "r1", **{f"speaker/{i}": event() for i in range(50)})
    assert len(calls) == 1
