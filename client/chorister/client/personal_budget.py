"""What personal adapters trained with noise cost a voice: booked where rounds are booked.

The budget lies beside the vault's ledger. A run is reserved before it trains, for all the steps
that it may take, and spent once it has trained, whether its adapter is kept or given away: what
stays at home today may leave tomorrow. One without noise has no event, and no figure covers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chorister.client.home import BUDGET_FILE, NO_FEDERATION, Home
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.limits import segment_limit

_NAME_BYTES = 8


def personal_budget(home: Home, privacy: PersonalPrivacy) -> BudgetFile:
    """Return this device's budget, with the limit on what all its training may cost a segment.

    Raises:
        BadLedger: the budget was altered, or is another device's.
    """
    return BudgetFile(
        home.folder / BUDGET_FILE, {"segment": segment_limit(privacy.segment)},
        owner=home.device.name, federation=NO_FEDERATION, clock=home.now_s,
    )  # fmt: skip


@contextmanager
def charged(
    home: Home, privacy: PersonalPrivacy | None, event: PrivacyEvent | None
) -> Iterator[None]:
    """Reserve a training before the block and spend it after; give it back if the block fails.

    Args:
        home: whose budget and ledger note it.
        privacy: clip, noise and limit; None if the training has none.
        event: what the training costs each segment at most; None if it costs nothing.

    Raises:
        BudgetExhausted: the budget does not cover it; the block does not run.
    """
    if privacy is None or event is None:
        yield
        return
    budget = personal_budget(home, privacy)
    name = f"personal adapter {privacy.randomness.bytes(_NAME_BYTES).hex()}"
    budget.reserve(name, {"segment": event})
    try:
        yield
    except BaseException:
        budget.release(name)  # nothing of it was kept
        raise
    budget.spend(name)
    home.ledger.append(
        "budget", step="spend", round=name, charges={"segment": event.to_plain()},
        randomness=privacy.randomness.statement,
    )  # fmt: skip
