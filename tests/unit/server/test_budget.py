import pytest

from chorister.server.budget import FederationBudget
from chorister.shared.errors import BudgetExhausted
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.events import PrivacyEvent

EVENT = PrivacyEvent("skellam", 1.0, 1.0, 1)


def opened(path):
    limit = Limit(2.0, 1e-5, lambda events: float(len(events)))
    return FederationBudget(path, speaker=limit, federation="choir", clock=lambda: 0)


def test_a_device_over_its_limit_refuses_the_cohort_and_can_be_left_out(tmp_path):
    budget = opened(tmp_path / "b")
    budget.reserve("r1", ["a", "b"], EVENT)
    budget.reserve("r2", ["a"], EVENT)
    with pytest.raises(BudgetExhausted, match="'speaker/a'"):
        budget.reserve("r3", ["a", "b", "c"], EVENT)
    cohort = [device for device in ("a", "b", "c") if budget.covers(device, EVENT)]
    assert cohort == ["b", "c"]
    budget.reserve("r3", cohort, EVENT)
    assert [budget.epsilon(device) for device in "abcd"] == [2, 2, 1, 0]
    assert budget.epsilon_of_all() == 2


def test_every_device_of_the_cohort_is_charged_and_an_early_abort_gives_back(tmp_path):
    budget = opened(tmp_path / "b")
    budget.reserve("r1", ["a", "b"], EVENT)
    assert budget.release("r1") is True
    budget.reserve("r2", ["a", "b"], EVENT)
    budget.spend("r2")
    assert budget.release("r2") is False
    assert opened(tmp_path / "b").epsilon("b") == 1
