"""Privacy figures in a report: the worst device, no guarantee said where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from chorister.server.rounds import RoundRecord
from chorister.shared.privacy.events import SEGMENT_MECHANISM, SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.settings import AdaptiveClip, Federation, SegmentPrivacy, SpeakerPrivacy
from chorister.simulations import costs
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Speaker

RECORD = RoundRecord(
    round=1, status="finished", reason=None, cohort=3, answered={}, drop_outs={}, refusals={},
    survivors=3, adapter_sha256="a" * 64, min_honest=2, noise_multiplier=4.0,
    epsilon_speaker=1.0, bytes_up=0, bytes_down=0, seconds=0.0,
)  # fmt: skip
SPEAKERS = tuple(Speaker(name, ()) for name in ("anna", "berta", "carla"))


def segment(noise, rate, steps):
    return PrivacyEvent(SEGMENT_MECHANISM, noise, rate, steps)


def speaker(noise, rounds):
    return tuple(PrivacyEvent(SPEAKER_MECHANISM, noise, 1.0, 1) for _ in range(rounds))


@pytest.fixture
def figures(monkeypatch):
    """Makes both figures for devices with these events."""

    def made(segments, speakers, *, private=True, single=False, size=5, records=(RECORD,)):
        booked = {"segment": segments, "speaker": speakers}
        monkeypatch.setattr(
            costs.speaker_device,
            "budget_events",
            lambda world, one, unit: booked[unit][SPEAKERS.index(one)],
        )
        monkeypatch.setattr(
            costs, "split_speaker", lambda one: SimpleNamespace(single_recording=single)
        )
        monkeypatch.setattr(costs, "_segments_in_longest_recording", lambda one: size)
        federation = Federation(
            private=private,
            segment_privacy=SegmentPrivacy(noise_multiplier=4.0),
            speaker_privacy=SpeakerPrivacy(noise_multiplier=4.0),
        )
        world = SimpleNamespace(scenario=Scenario(federation=federation), clients=SPEAKERS)
        return costs.budgets(world, list(records))

    return made


NOTHING = ((), (), ())
UNEVEN = ((segment(4.0, 0.2, 5),), (segment(4.0, 0.9, 5), segment(4.0, 0.9, 5)), ())


def test_without_privacy_there_are_no_figures(figures):
    assert figures(NOTHING, NOTHING, private=False) == []


def test_the_figure_is_the_worst_devices(figures):
    by_segment, by_speaker = figures(UNEVEN, (speaker(4.0, 1), (), speaker(4.0, 3)))
    worst = segment_figure(UNEVEN[1], 1e-3)
    assert by_segment["epsilon"] == worst.epsilon
    assert by_segment["events"] == 10
    assert "0.9 a step" in by_segment["sampling"]
    assert by_speaker["events"] == 3
    assert (by_segment["unit"], by_speaker["unit"]) == ("segment", "speaker")
    assert by_segment["label"] is None
    assert any("2 honest survivors" in c for c in by_speaker["caveats"])
    for figure in (by_segment, by_speaker):
        assert costs.SIMULATED in figure["caveats"]
        json.dumps(figure, allow_nan=False)


def test_a_figure_above_ten_is_called_no_guarantee(figures):
    loud = (segment(0.3, 1.0, 50),)
    by_segment, by_speaker = figures((loud, (), ()), (speaker(0.2, 5), (), ()))
    assert by_segment["epsilon"] > 10
    assert by_segment["label"] == by_speaker["label"] == costs.NO_GUARANTEE


def test_an_infinite_figure_is_null_and_no_guarantee(figures):
    strange = (PrivacyEvent("other", 1.0, 1.0, 1),)
    by_segment, _ = figures((strange, (), ()), NOTHING)
    assert by_segment["epsilon"] is None
    assert by_segment["label"] == costs.NO_GUARANTEE
    assert by_segment["group"]["epsilon"] is None
    json.dumps(by_segment, allow_nan=False)


def test_clients_of_one_recording_have_no_segment_guarantee(figures):
    by_segment, _ = figures(UNEVEN, NOTHING, single=True)
    assert by_segment["label"] == costs.NO_GUARANTEE
    assert by_segment["caveats"][0] == costs.SINGLE


def test_a_run_that_booked_nothing_says_so(figures):
    by_segment, by_speaker = figures(NOTHING, NOTHING, records=())
    assert by_segment["sampling"] == "none"
    assert (by_segment["epsilon"], by_speaker["events"]) == (0.0, 0)


def test_a_recording_of_one_segment_is_no_group():
    assert costs._group((segment(1.0, 0.2, 8),), 1e-3, 1) is None


def test_a_group_whose_delta_reaches_one_is_not_bounded():
    found = costs._group((PrivacyEvent("other", 1.0, 1.0, 1),), 1e-3, 5)
    assert found["epsilon"] is None
    assert "nothing bounds it" in found["meaning"]


def test_an_adaptive_clip_is_named_beside_the_figure(figures):
    _, by_speaker = figures(NOTHING, NOTHING)
    assert not any("adapted" in c for c in by_speaker["caveats"])
    privacy = SpeakerPrivacy(adaptive_clip=AdaptiveClip(budget_share=0.2))
    found = costs._speaker(privacy, [()], [replace(RECORD, min_honest=None)])
    assert any("20% of each round" in c for c in found["caveats"])
