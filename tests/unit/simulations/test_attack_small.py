"""The attacks on small devices: controls succeed, what is masked stays at chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chorister.server.attack_record import read_attacks
from chorister.shared.errors import BadSettings, UsageError
from chorister.shared.settings import Federation
from chorister.simulations.attacks import identify as identification
from chorister.simulations.attacks.command import attack
from chorister.simulations.attacks.identify import identify
from chorister.simulations.attacks.inversion import SEEN, invert_gradients
from chorister.simulations.attacks.lab import Lab, Voice
from chorister.simulations.attacks.membership import infer_membership
from chorister.simulations.attacks.tell import (
    draw_pictures,
    tell_identification,
    tell_inversion,
    tell_membership,
    tell_training,
)
from chorister.simulations.attacks.training_audit import audit_training


def steps(done: int = 1) -> None:
    """Nobody watches."""


@pytest.fixture
def lab(choirs, trainable_model, permits):
    """Six voices of noise, each with a profile of its own."""
    voices = []
    for seed in range(6):
        material = choirs.a_material(12, seed)
        known = choirs.a_material(5, seed + 100)
        voices.append(
            Voice(
                f"voice {seed}", material.profile, material.segments, np.arange(12) // 2,
                known.segments,
            )
        )  # fmt: skip
    federation = Federation.parse(
        {
            "name": "rehearsal",
            "training": {"local_steps": 2, "expected_batch_size": 8, "learning_rate": 1.0},
            "speaker_privacy": {"delta_dp": 1e-2},
        },
        "the tests",
    )
    return Lab(
        tuple(voices), federation, choirs.SPEC, trainable_model, permits("training"), "noise"
    )  # fmt: skip


@pytest.fixture(autouse=True)
def on_time(monkeypatch):
    monkeypatch.setattr("chorister.simulations.attacks.lab.NOW_S", 1_800_000_000)


def test_masked_updates_are_at_chance_and_the_same_attack_works_without_masks(lab, monkeypatch):
    monkeypatch.setattr(identification, "MASKED_ROUNDS", 12)
    found = identify(lab, 3, 7, steps)
    assert found.masked.top_one.trials == 6 * 3 * 12
    assert found.masked.top_one.low < 1 / 6 < found.masked.top_one.high
    assert found.masked.equal_error.low < 0.5 < found.masked.equal_error.high
    # Voices of noise are less unlike than people: what counts is that chance is left behind.
    for control in (found.raw, found.reused):
        assert control.equal_error.high < 0.45
        assert control.top_one.low > 1 / 6
    error, named = tell_identification(found)
    assert error.figure == found.masked.equal_error.value
    assert named.chance == pytest.approx(1 / 6)
    assert [b.name for b in named.beside][-1].startswith("published")


def test_the_masks_are_what_hides_it(lab):
    """The same noised integers, with the protocol's masks taken off, are not uniform."""
    terms = identification._terms(lab)
    noised = np.zeros((6, terms.length), dtype=np.int64)
    masked = identification._masked(noised, terms, 1)
    again = identification._masked(noised, terms, 2)
    assert np.abs(masked.astype(float).mean() / 2**31 - 1) < 0.05
    assert not np.any(masked == again)
    differences = identification._share_one_mask(noised, noised, masked, terms)
    np.testing.assert_array_equal(differences, 0)  # one mask for two cancels


def test_membership_is_seen_where_it_has_to_be_and_a_recordings_not_with_privacy(lab):
    found = infer_membership(lab, 24, 1, 7, steps)
    assert found.clients == 3
    assert found.recording_alone.area.low > 0.6
    assert found.speaker_plain.area.low > 0.5
    assert found.recording.area.low < 0.5 < found.recording.area.high
    recording, speaker = tell_membership(found)
    assert recording.positive_control.figure == found.recording_alone.area.value
    assert speaker.positive_control.figure == found.speaker_plain.area.value


def test_a_training_audit_stays_below_the_claim_and_its_control_rises(lab):
    found = audit_training(lab, 40, 7, steps)
    assert found.guesses.canaries == 320
    assert found.bound < min(found.claim.accountants.values())
    assert found.without_noise > 1.5
    assert tell_training(found).positive_control.figure == found.without_noise


def test_inversion_matches_gradients_and_the_control_comes_nearest(lab):
    found = invert_gradients(lab, 1, 50, 7, steps)
    assert found.plain.match > 0.8
    assert found.framewise.correlation.value > found.private.correlation.value
    entry = tell_inversion(found)
    assert entry.figure == found.private.gain_db.value
    pictures = draw_pictures(found)
    assert len(pictures) == 2 + len(SEEN)
    assert {p.bands for p in pictures} == {80}


def test_the_command_writes_what_a_report_reads(lab, tmp_path, monkeypatch, capsys):
    from contextlib import contextmanager

    from chorister.simulations.attacks import plan, run

    @contextmanager
    def small(*_, **__):
        yield lab

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(run, "open_lab", small)
    monkeypatch.setattr(
        plan, "QUICK",
        replace(
            plan.QUICK, canaries=200, sgd_repeats=1, client_repeats=1, estimate_sums=4,
            trainings=5, updates=1, federations=10, inverted=1, iterations=3,
        ),
    )  # fmt: skip
    out = tmp_path / "out"
    assert attack(["--quick", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Speaker identification" in said
    assert "proves nothing" in said
    sealed = read_attacks(out / "attacks.json")
    assert sealed.attacks.scale == "quick"
    assert sealed.attacks.command == f"chorister audit attack --quick --out {out}"
    assert len(list(out.glob("*.png"))) == 5
    with pytest.raises(UsageError, match="not overwritten"):
        attack(["--quick", "--out", str(out)])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--canaries", "3"], BadSettings), (["--canaries", "99999999"], BadSettings),
        (["--split", "splits.json:clients"], UsageError),
    ],
)  # fmt: skip
def test_wrong_usage_measures_nothing(tmp_path, arguments, error):
    with pytest.raises(error):
        attack(["--quick", "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()
