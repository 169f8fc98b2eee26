"""Segment-level figures against values that can be had elsewhere."""

from __future__ import annotations

import math

import pytest

from chorister.shared.errors import BadAccounting, BadSettings
from chorister.shared.privacy import segment_level
from chorister.shared.privacy.charges import personal_event, segment_event
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.segment_level import (
    recording_figure,
    segment_accountant,
    segment_figure,
)


def _event(z: float, q: float, n: int) -> PrivacyEvent:
    return PrivacyEvent("gaussian", z, q, n)


def test_one_full_step_is_the_gaussian_mechanism() -> None:
    # Balle, Wang 2018: sigma = 1 at delta 1e-5 has epsilon 4.377.
    figure = segment_figure([_event(1.0, 1.0, 1)], 1e-5)
    assert figure.accountants["PLD"] == pytest.approx(4.377, abs=0.01)
    assert figure.epsilon == figure.accountants["RDP"] > figure.accountants["PLD"]


def test_the_setting_of_the_moments_accountant() -> None:
    # Abadi et al. 2016, section 3.2: q = 0.01, noise 4, 10 000 steps, delta 1e-5 cost 1.26. Later
    # conversions (Canonne et al. 2020) and privacy loss distributions only lower it.
    figure = segment_figure([_event(4.0, 0.01, 10_000)], 1e-5)
    assert 0.8 < figure.accountants["PLD"] < figure.accountants["RDP"] < 1.26


@pytest.mark.parametrize(("z", "q", "n"), [(1.0, 0.2, 24), (1.1, 0.004, 14_000), (3.0, 0.5, 50)])
def test_another_implementation_agrees(z: float, q: float, n: int) -> None:
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(11, 512))
    divergence = rdp.compute_rdp(q=q, noise_multiplier=z, steps=n, orders=orders)
    epsilon, _ = rdp.get_privacy_spent(orders=orders, rdp=divergence, delta=1e-5)
    figure = segment_figure([_event(z, q, n)], 1e-5)
    assert figure.accountants["RDP"] == pytest.approx(epsilon, rel=0.03)
    assert figure.accountants["PLD"] <= epsilon


def test_equal_events_compose_as_one_and_order_does_not_matter() -> None:
    epsilon = segment_accountant(1e-3)
    assert epsilon([_event(1.0, 0.2, 8)] * 3) == epsilon([_event(1.0, 0.2, 24)])
    mixed = [_event(1.0, 0.2, 8), _event(2.0, 0.1, 4)]
    assert epsilon(mixed) == epsilon(mixed[::-1])
    assert epsilon([]) == 0.0


@pytest.mark.parametrize(
    ("z", "n", "delta", "epsilon"),
    [
        # dp-accounting's own tests (privacy_loss_mechanism_test: standard deviation, sensitivity).
        (1.0, 1, 0.12693674, 1.0),
        (1 / 3, 1, 0.78760074, 1.0),
        (1.0, 1, 0.02092364, 2.0),
        (0.344, 1, 1e-5, 16.0),
        # Three steps of three times the variance are one step.
        (math.sqrt(3), 3, 0.12693674, 1.0),
    ],
)
def test_values_of_the_librarys_own_tests(z: float, n: int, delta: float, epsilon: float) -> None:
    figure = segment_figure([_event(z, 1.0, n)], delta)
    assert figure.accountants["PLD"] == pytest.approx(epsilon, abs=0.02)
    assert figure.epsilon >= figure.accountants["PLD"]


@pytest.mark.parametrize(
    ("z", "q", "delta", "epsilon"),
    # The same tests, for adding a sampled record; adding or removing one costs at least as much.
    [
        (1.0, 0.8, 0.081695179, 1.0),
        (1.5 / 2, 0.7, 0.143886147, 1.0),
        (2 / 6, 0.01, 0.0030216468, 1.0),
    ],
)
def test_sampled_values_of_the_librarys_own_tests(
    z: float, q: float, delta: float, epsilon: float
) -> None:
    assert segment_figure([_event(z, q, 1)], delta).accountants["PLD"] >= epsilon - 0.01


def test_the_tutorial_of_tensorflow_privacy() -> None:
    # 15 epochs of MNIST in batches of 256 of 60 000, noise 1.3, delta 1e-5: printed epsilon 1.18.
    figure = segment_figure([_event(1.3, 256 / 60_000, 15 * 60_000 // 256)], 1e-5)
    assert figure.accountants["PLD"] < figure.accountants["RDP"] <= 1.19


def test_the_third_accountant_brackets_the_convolved_figure() -> None:
    # Gopi, Lee, Wutschitz 2021, as Opacus has it: lower bound, estimate, upper bound.
    prv = pytest.importorskip("opacus.accountants")
    accountant = prv.PRVAccountant()
    accountant.history = [(1.0, 0.2, 50)]
    low, high = (accountant.get_epsilon(1e-3, eps_error=e) for e in (0.05, 0.01))
    found = segment_figure([_event(1.0, 0.2, 50)], 1e-3).accountants["PLD"]
    assert found == pytest.approx(high, abs=0.02)
    assert found == pytest.approx(low, abs=0.1)


def test_accountants_that_contradict_each_other_stop_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment_level, "_epsilon_pld", lambda kinds, delta: 50.0)
    with pytest.raises(BadAccounting, match="Nothing may be trained"):
        segment_figure([_event(1.0, 0.2, 8)], 1e-3)
    monkeypatch.setattr(segment_level, "_epsilon_pld", lambda kinds, delta: math.nan)
    with pytest.raises(BadAccounting):
        segment_figure([_event(1.0, 0.2, 8)], 1e-3)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(BadSettings):
        segment_figure([_event(1.0, 0.2, 8)], delta)


def test_a_recording_costs_more_than_its_segments_apart() -> None:
    booked = [_event(4.0, 0.1, 10)]
    one = segment_figure(booked, 1e-5).epsilon
    group = recording_figure(booked, 3, 1e-5)
    assert 3 * one < group.epsilon < 9 * one
    assert recording_figure(booked, 1, 1e-5).epsilon == pytest.approx(one)


def test_a_personal_adapter_that_is_given_away_costs_its_segments() -> None:
    shared, personal = segment_event(1.0, 0.2, 8), personal_event(1.0, 0.2, 8)
    assert shared is not None
    both = segment_figure([shared, personal], 1e-3)
    assert both == segment_figure([_event(1.0, 0.2, 16)], 1e-3)


def test_other_mechanisms_are_infinite() -> None:
    assert segment_figure([PrivacyEvent("skellam", 1.0, 1.0, 1)], 1e-3).epsilon == math.inf
