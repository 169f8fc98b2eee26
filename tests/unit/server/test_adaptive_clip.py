"""The clip that follows the deltas: its bit is inside the sum, under the same noise and budget."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from chorister.client import contribute
from chorister.client.privatise import QuantisedDelta, add_noise, clip, quantise
from chorister.client.secagg_checks import Acceptance
from chorister.server.round import run_round
from chorister.server.terms import plan_round
from chorister.server.update import next_clip
from chorister.shared.errors import BadSettings, ProtocolViolation
from chorister.shared.exchanges import Invitation
from chorister.shared.privacy.charges import speaker_event
from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.speaker_level import speaker_figure
from chorister.shared.randomness import SystemRandomness
from chorister.shared.records import ADVERTISE, CONTRIBUTE
from chorister.shared.secagg.quantise import mean_delta, share_within
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.settings import AdaptiveClip, Aggregation, Federation, SpeakerPrivacy
from chorister.shared.types import Adapter, AdapterDelta, Aggregate, ClippedDelta
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import FEDERATION, Rehearsal, rehearsal_terms

SHARE = 0.1
ADAPTIVE = AdaptiveClip(quantile=0.5, learning_rate=0.2, least_norm=0.01, most_norm=4.0)


def _terms(cohort: int = 8, d: int = 50, z: float = 1.0) -> RoundTerms:
    return rehearsal_terms(cohort, d, noise_multiplier=z, bit_share=SHARE)


def _delta(norm: float, d: int, seed: int = 0) -> AdapterDelta:
    values = np.random.default_rng(seed).normal(size=d)
    return AdapterDelta((values * norm / np.linalg.norm(values)).astype(np.float32))


def test_the_bit_takes_its_share_and_no_more() -> None:
    terms = _terms()
    assert terms.length == 51
    assert terms.bit_steps**2 / terms.squared_sensitivity == pytest.approx(SHARE, rel=1e-3)
    noise = math.sqrt(terms.min_honest * terms.client_variance)
    assert noise / terms.sensitivity == pytest.approx(1.0, rel=1e-3)


def test_the_split_is_that_of_the_paper() -> None:
    # Andrew et al. 2021, theorem 1: z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2), where sigma_b is the
    # deviation of the noise in the count of devices.
    terms = _terms(z=1.3)
    noise = math.sqrt(terms.min_honest * terms.client_variance)
    z_delta = noise / math.sqrt(terms.norm_bound)
    sigma_b = noise / (2 * terms.bit_steps)
    z = noise / terms.sensitivity
    assert z_delta == pytest.approx((z**-2 - (2 * sigma_b) ** -2) ** -0.5, rel=1e-12)


def test_the_split_is_flowers_too() -> None:
    from flwr.supercore.differential_privacy import compute_adaptive_noise_params

    for share in (0.01, 0.1, 0.4):
        terms = rehearsal_terms(20, 50, noise_multiplier=1.3, bit_share=share)
        noise = math.sqrt(terms.min_honest * terms.client_variance)
        sigma_b = noise / (2 * terms.bit_steps)
        _, z_delta = compute_adaptive_noise_params(noise / terms.sensitivity, 20, sigma_b)
        assert noise / math.sqrt(terms.norm_bound) == pytest.approx(z_delta, rel=1e-9)
    # The paper's own choice, sigma_b = 100 / 20 for 100 devices, takes a share of one hundredth.
    sigma_b, z_delta = compute_adaptive_noise_params(1.0, 100, None)
    assert (2 * sigma_b) ** -2 == pytest.approx(0.01)
    assert z_delta == pytest.approx((1 - 0.01) ** -0.5)


def test_both_parts_composed_cost_what_is_booked() -> None:
    terms = _terms()
    booked = speaker_event(terms)
    assert booked == PrivacyEvent(SPEAKER_MECHANISM, terms.noise_multiplier, 1.0, 1)
    noise = math.sqrt(terms.min_honest * terms.client_variance)
    parts = [
        PrivacyEvent(SPEAKER_MECHANISM, noise / size, 1.0, 1)
        for size in (math.sqrt(terms.norm_bound), terms.bit_steps)
    ]
    together = speaker_figure(parts, 1e-5).epsilon
    assert together == pytest.approx(speaker_figure([booked], 1e-5).epsilon, rel=1e-3)
    # A bit that nobody accounted for would be seen here.
    assert speaker_figure(parts[:1], 1e-5).epsilon < 0.98 * together


@pytest.mark.parametrize("norm", [0.0, 0.5, 0.999, 1.001, 30.0])
def test_the_bit_says_whether_the_delta_was_within_the_clip(norm: float) -> None:
    terms = _terms()
    clipped = clip(_delta(norm, 50), 1.0)
    values = quantise(clipped, terms, bytes(32), SimulatedRandomness(0)).values
    assert len(values) == 51
    assert values[-1] == (terms.bit_steps if norm <= 1 else -terms.bit_steps)


def test_the_bit_is_as_noisy_as_every_other_value() -> None:
    terms = _terms(d=5)
    zero = QuantisedDelta(np.zeros(6, np.int64), 32)
    noise = [add_noise(zero, terms, SimulatedRandomness(i)).values[-1] for i in range(2000)]
    planned = math.sqrt(terms.client_variance)
    assert np.std(noise) == pytest.approx(planned, rel=0.08)
    assert np.std(noise[:1000]) != pytest.approx(planned / math.sqrt(2), rel=0.08)


def test_the_count_comes_out_of_the_protected_sum_and_the_delta_is_untouched() -> None:
    terms = _terms(cohort=8, d=50, z=1e-3)
    rehearsal = Rehearsal(terms, 0)
    deltas = {
        name: _delta(0.2 if i < 6 else 5.0, 50, i) for i, name in enumerate(rehearsal.devices)
    }
    noised = {
        name: add_noise(
            quantise(clip(delta, 1.0), terms, bytes(32), SimulatedRandomness(1, name)), terms,
            SimulatedRandomness(2, name),
        ).values
        for name, delta in deltas.items()
    }  # fmt: skip
    aggregate = rehearsal.run(noised)
    within = share_within(aggregate, terms)
    assert within == pytest.approx(6 / 8, abs=0.01)
    expected = np.mean([clip(delta, 1.0).values for delta in deltas.values()], axis=0)
    assert mean_delta(aggregate, terms, bytes(32)) == pytest.approx(expected, abs=0.01)


def test_a_fixed_clip_sends_no_bit() -> None:
    terms = rehearsal_terms(8, 50)
    assert (terms.bit_steps, terms.length) == (0, 50)
    aggregate = Aggregate(np.arange(50), ("a", "b"), 32)
    assert share_within(aggregate, terms) is None


def test_the_clip_finds_the_quantile() -> None:
    # Norms between 0 and 1: half of them are below 0.5, and four fifths below 0.8.
    norms = np.random.default_rng(0).uniform(size=400)
    for quantile in (0.5, 0.8):
        for start in (0.02, 3.0):
            wanted, found = ADAPTIVE.model_copy(update={"quantile": quantile}), start
            for _ in range(120):
                found = next_clip(found, float(np.mean(norms <= found)), wanted)
            assert found == pytest.approx(np.quantile(norms, quantile), abs=0.03)


def test_the_step_is_geometric_and_bounded() -> None:
    assert next_clip(1.0, 0.75, ADAPTIVE) == pytest.approx(math.exp(-0.2 * 0.25))
    assert next_clip(1.0, 0.5, ADAPTIVE) == 1.0
    # Noise may push the count anywhere: the clip stays where devices accept it.
    assert next_clip(1.0, 99.0, ADAPTIVE) == next_clip(1.0, 1.0, ADAPTIVE)
    assert next_clip(0.0101, 5.0, ADAPTIVE) == 0.01
    assert next_clip(3.99, -5.0, ADAPTIVE) == 4.0


def test_a_bit_without_noise_is_refused() -> None:
    with pytest.raises(BadSettings, match="bit_share"):
        rehearsal_terms(8, 5, noise_multiplier=0.0, bit_share=SHARE)
    with pytest.raises(BadSettings, match="adapts"):
        replace(rehearsal_terms(8, 5, noise_multiplier=0.0), bit_steps=100)
    with pytest.raises(BadSettings, match="bit_share"):
        rehearsal_terms(8, 5, bit_share=1.0)


def test_a_larger_bit_than_the_noise_covers_is_refused() -> None:
    terms = _terms()
    with pytest.raises(BadSettings, match="noise as large"):
        replace(terms, bit_steps=2 * terms.bit_steps)


@pytest.mark.parametrize(("least", "most"), [(1.1, 2.0), (0.1, 0.9)])
def test_a_device_refuses_a_clip_out_of_its_range(least: float, most: float) -> None:
    acceptance = Acceptance(FEDERATION, 2, 2, 0.0, 0.5, 0.0, True, least, most)
    with pytest.raises(ProtocolViolation, match="clip"):
        acceptance.check(_terms(), SystemRandomness())
    replace(acceptance, least_clip=1.0, most_clip=1.0).check(_terms(), SystemRandomness())


def test_the_clip_is_in_what_every_device_signs() -> None:
    terms = _terms()
    others = [replace(terms, clip_norm=0.99, scale=terms.scale), replace(terms, bit_steps=1)]
    assert len({terms.sha256(), *(other.sha256() for other in others)}) == 3


def _plan(adaptive: AdaptiveClip | None, clip_norm: float | None, private: bool) -> RoundTerms:
    settings = Federation(private=private, speaker_privacy=SpeakerPrivacy(adaptive_clip=adaptive))
    adapter = Adapter(np.zeros(320, np.float32), "a" * 64)
    return plan_round(settings, "run", 1, 8, adapter, "b" * 64, True, clip_norm)


def test_the_servers_terms_state_the_clip_that_it_has_come_to() -> None:
    assert _plan(ADAPTIVE, 0.3, True).clip_norm == 0.3
    assert _plan(ADAPTIVE, None, True).clip_norm == SpeakerPrivacy().clip_norm
    assert _plan(ADAPTIVE, 0.3, True).bit_steps > 0
    # A clip that adapted before is forgotten where the operator fixes it again.
    assert _plan(None, 0.3, True).clip_norm == SpeakerPrivacy().clip_norm
    assert _plan(None, 0.3, True).bit_steps == 0
    assert _plan(ADAPTIVE, 0.3, False).bit_steps == 0


def test_a_range_the_wrong_way_round_is_refused() -> None:
    values = {"adaptive_clip": {"least_norm": 2.0, "most_norm": 1.0}}
    with pytest.raises(BadSettings, match="least_norm is at most most_norm"):
        SpeakerPrivacy.parse(values, "settings")


def _adaptive(choirs: ModuleType) -> Federation:
    privacy = SpeakerPrivacy(noise_multiplier=0.01, clip_norm=0.5, adaptive_clip=ADAPTIVE)
    settings: Federation = choirs.PRIVATE.model_copy(update={"speaker_privacy": privacy})
    return settings


def _terms_heard(singers: Any) -> RoundTerms:
    invitation = Invitation.from_bytes(singers.heard[ADVERTISE, singers.names[0]])
    return RoundTerms.from_bytes(invitation.terms)


def test_the_next_round_states_the_next_clip(choir: Any, choirs: ModuleType) -> None:
    singers = choir(federation=_adaptive(choirs))
    one = run_round(singers, singers.operator, 1)
    assert (one.status, one.clip_norm) == ("finished", 0.5)
    # The choir's deltas are far longer or far shorter than the clip, all alike.
    assert min(abs(one.share_within), abs(one.share_within - 1)) < 0.1
    two = run_round(singers, singers.operator, 2)
    assert two.clip_norm == pytest.approx(next_clip(0.5, one.share_within, ADAPTIVE))
    assert two.clip_norm != 0.5
    assert _terms_heard(singers).clip_norm == two.clip_norm
    # What the clip's bit costs is in what was booked: one event a round, of the noise stated.
    device = singers.devices[singers.names[0]]
    assert device.budget.events("speaker") == (PrivacyEvent(SPEAKER_MECHANISM, 0.01, 1.0, 1),) * 2


def test_an_aborted_round_moves_no_clip(choir: Any, choirs: ModuleType) -> None:
    singers = choir(federation=_adaptive(choirs))
    singers.gone = {CONTRIBUTE: set(singers.names[:3])}
    one = run_round(singers, singers.operator, 1)
    assert (one.status, one.share_within) == ("aborted", None)
    singers.gone = {}
    assert run_round(singers, singers.operator, 2).clip_norm == 0.5


def test_rotated_deltas_give_the_same_adapter(
    choir: Any, choirs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregation = Aggregation(rotation=True)
    settings = choirs.PLAIN.model_copy(update={"aggregation": aggregation})
    singers, deltas, true = choir(federation=settings), [], contribute.clip

    def spy(delta: AdapterDelta, clip_norm: float) -> ClippedDelta:
        deltas.append(true(delta, clip_norm).values)
        return true(delta, clip_norm)

    monkeypatch.setattr(contribute, "clip", spy)
    record = run_round(singers, singers.operator, 1)
    assert record.status == "finished"
    terms = _terms_heard(singers)
    assert terms.rotation
    new = singers.operator.registry.get(record.adapter_sha256).values
    assert np.linalg.norm(new) > 1e-3
    np.testing.assert_allclose(new, np.mean(deltas, axis=0), atol=10 / terms.scale)
