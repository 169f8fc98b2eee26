import math
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from chorister.shared.errors import BudgetExhausted, ProtocolViolation
from chorister.shared.privacy.budget import Limit
from chorister.shared.privacy.budget_file import BudgetFile
from chorister.shared.privacy.events import PrivacyEvent

LIMIT = 4.0
ROUNDS = st.sampled_from(["r1", "r2", "r3", "r4"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "spend", "release", "restart"]), ROUNDS, st.integers(1, 3)
    ),
    max_size=14,
)


def root_of_squares(events):
    """An accountant whose cost does not add up, as with real ones."""
    return math.sqrt(sum(event.steps**2 for event in events))


def opened(path):
    limits = {"speaker": Limit(LIMIT, 1e-5, root_of_squares)}
    return BudgetFile(path, limits, owner="device", federation="choir", clock=lambda: 0)


def cost(model):
    return math.sqrt(sum(n * n for state, n, _ in model.values() if state != "release"))


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_file_agrees_with_a_dictionary_through_restarts(steps):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "budget.jsonl"
        budget, life = opened(path), 0
        model = {}  # round to (last step, cost, the life in which it was reserved)
        for step, round_id, n in steps:
            known = model.get(round_id)
            if step == "restart":
                budget, life = opened(path), life + 1
            elif step == "reserve":
                with_it = math.sqrt(cost(model) ** 2 + n * n)
                try:
                    budget.reserve(round_id, {"speaker": PrivacyEvent("m", 1.0, 1.0, n)})
                    assert known is None
                    assert with_it <= LIMIT
                    model[round_id] = ("reserve", n, life)
                except ProtocolViolation:
                    assert known is not None
                except BudgetExhausted:
                    assert with_it > LIMIT
            elif step == "spend":
                try:
                    budget.spend(round_id)
                    assert known[0] in ("reserve", "spend")
                    model[round_id] = ("spend", *known[1:])
                except ProtocolViolation:
                    assert known is None or known[0] == "release"
            else:
                given_back = budget.release(round_id)
                assert given_back == (
                    known is not None and known[0] == "reserve" and known[2] == life
                )
                if given_back:
                    model[round_id] = ("release", *known[1:])
            assert math.isclose(budget.epsilon("speaker"), cost(model))
            assert cost(model) <= LIMIT
