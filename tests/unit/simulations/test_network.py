"""Simulated drop-outs: at the stated rate, once gone gone, and the same for the same seed."""

from __future__ import annotations

import pytest

from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, ROUND, SHARE
from chorister.simulations import network
from chorister.simulations.network import DroppedOut
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.scenario import Dropout, Scenario


def present(dropout, client, exchange, round_id="run/1"):
    scenario = Scenario(dropout=dropout)
    try:
        network._maybe_drop_out(scenario, SimulatedRandomness(client), exchange, round_id)
    except DroppedOut:
        return False
    return True


def test_nobody_goes_where_nobody_should():
    assert all(present(Dropout(), c, e) for c in range(50) for e in ROUND)


@pytest.mark.parametrize(
    ("stage", "exchange"),
    [
        ("advertise", ADVERTISE), ("share", SHARE), ("masked", CONTRIBUTE), ("confirm", CONFIRM),
        ("reveal", REVEAL),
    ],
)  # fmt: skip
def test_who_goes_at_a_stage_was_there_before_and_stays_away(stage, exchange):
    dropout, clients = Dropout(**{stage: 0.3}), range(300)
    at = ROUND.index(exchange)
    gone = [c for c in clients if not present(dropout, c, exchange)]
    # Binomial(300, 0.3): 90, standard deviation 8.
    assert abs(len(gone) - 90) < 40
    assert all(present(dropout, c, e) for c in clients for e in ROUND[:at])
    for later in ROUND[at:]:
        assert [c for c in clients if not present(dropout, c, later)] == gone


def test_rounds_draw_anew_and_a_seed_repeats():
    dropout = Dropout(masked=0.5)
    rows = [[present(dropout, c, CONTRIBUTE, f"run/{n}") for c in range(100)] for n in (1, 2, 1)]
    assert rows[0] == rows[2] != rows[1]
