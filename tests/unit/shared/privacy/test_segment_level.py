"""Segment-level figures against values that can be had elsewhere."""

from __future__ import annotations

import math

import pytest

from chorister.shared.privacy.budget import PrivacyEvent
from chorister.shared.privacy.segment_level import segment_accountant, segment_figure


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


def test_other_mechanisms_are_infinite() -> None:
    assert segment_figure([PrivacyEvent("skellam", 1.0, 1.0, 1)], 1e-3).epsilon == math.inf
