import pytest

from chorister.client.budget import DeviceBudget
from chorister.shared.errors import BudgetExhausted, ProtocolViolation
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.events import PrivacyEvent


def opened(path, segment=10.0, speaker=2.0):
    def steps(events):
        return float(sum(event.steps for event in events))

    return DeviceBudget(
        path, segment=Limit(segment, 1e-3, steps), speaker=Limit(speaker, 1e-5, steps),
        device_id="0123456789abcdef", federation="choir", clock=lambda: 0,
    )  # fmt: skip


def event(steps):
    return PrivacyEvent("gaussian", 1.0, 0.5, steps)


def test_one_exhausted_unit_refuses_the_round_and_books_neither(tmp_path):
    budget = opened(tmp_path / "b")
    with pytest.raises(BudgetExhausted, match="'segment'"):
        budget.reserve("r1", segment=event(11), speaker=event(1))
    assert (budget.epsilon_segment(), budget.epsilon_speaker()) == (0, 0)
    budget.reserve("r1", segment=event(4), speaker=event(1))
    assert (budget.epsilon_segment(), budget.epsilon_speaker()) == (4, 1)


def test_a_round_without_any_noise_books_nothing_and_is_refused(tmp_path):
    with pytest.raises(ProtocolViolation, match="at least one event"):
        opened(tmp_path / "b").reserve("r1", segment=None, speaker=None)


def test_spent_over_its_life_and_released_when_nothing_left(tmp_path):
    budget = opened(tmp_path / "b")
    budget.reserve("r1", segment=None, speaker=event(1))
    budget.spend("r1")
    budget.reserve("r2", segment=event(3), speaker=event(1))
    assert budget.release("r2") is True
    again = opened(tmp_path / "b")
    assert (again.epsilon_segment(), again.epsilon_speaker()) == (0, 1)
    assert again.events("speaker") == (event(1),)
