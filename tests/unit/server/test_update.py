"""Server optimisers against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chorister.server.update import OptimiserState, next_adapter
from chorister.shared.errors import RoundAborted
from chorister.shared.settings import Aggregation
from chorister.shared.types import Adapter

START = Adapter(np.array([1.0, -2.0], np.float32), "s" * 64)
DELTA = np.array([0.1, -0.3])
FRESH = OptimiserState.initial(2)


@pytest.mark.parametrize(
    "delta", [np.array([0.1, np.nan]), np.array([np.inf, 0.0]), np.zeros(3), np.zeros((2, 1))]
)
@pytest.mark.parametrize("optimiser", ["fedavg", "fedadam"])
def test_what_is_no_finite_delta_of_this_size_is_refused(delta, optimiser):
    with pytest.raises(RoundAborted, match="2 finite values"):
        next_adapter(START, delta, FRESH, Aggregation(optimiser=optimiser))


def test_fedavg_by_hand():
    new, state = next_adapter(START, DELTA, FRESH, Aggregation(server_learning_rate=0.5))
    np.testing.assert_allclose(new.values, [1.05, -2.15], rtol=1e-7)
    assert (new.values.dtype, new.spec) == (np.float32, START.spec)
    assert state is FRESH


def test_fedadam_by_hand():
    settings = Aggregation(optimiser="fedadam", server_learning_rate=0.1)
    # m = 0.1 delta; v = 0.99 * 1e-6 + 0.01 delta^2; x + 0.1 m / (sqrt(v) + 1e-3)
    #   m = 0.01, -0.03; v = 1.0099e-4, 9.0099e-4; sqrt(v) = 0.01004938, 0.03001650
    one, state = next_adapter(START, DELTA, FRESH, settings)
    np.testing.assert_allclose(
        one.values, [1 + 0.001 / 0.01104938, -2 - 0.003 / 0.03101650], rtol=1e-6
    )
    # Second round with no delta: m = 0.009, -0.027; v = 9.99801e-5, 8.919801e-4;
    #   sqrt(v) = 0.009999005, 0.02986603
    two, state = next_adapter(one, np.zeros(2), state, settings)
    np.testing.assert_allclose(
        two.values - one.values, [0.0009 / 0.010999005, -0.0027 / 0.03086603], rtol=1e-5
    )
    np.testing.assert_allclose(state.first, [0.009, -0.027], rtol=1e-12)


def test_the_adapter_that_clients_hold_is_not_changed():
    before = START.values.copy()
    next_adapter(START, DELTA, FRESH, Aggregation())
    assert np.array_equal(START.values, before)
