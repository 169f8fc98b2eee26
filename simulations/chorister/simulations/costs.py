"""What a run cost in privacy, for run.json: the largest figure over all devices, unit by unit."""

from __future__ import annotations

import math
from typing import Any

from chorister.client.prepare import SEGMENT_S
from chorister.server.rounds import RoundRecord
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.figures import NO_GUARANTEE, PrivacyFigure
from chorister.shared.privacy.segment_level import recording_figure, segment_figure
from chorister.shared.privacy.speaker_level import speaker_figure
from chorister.shared.settings import SegmentPrivacy, SpeakerPrivacy
from chorister.shared.voice.audio import probe_recording
from chorister.simulations import speaker_device
from chorister.simulations.speakers import Speaker, split_speaker
from chorister.simulations.world import World

FLOATING_POINT = (
    "The noise of DP-SGD is floating-point Gaussian noise; attacks on its last bits (Mironov "
    "2012) are outside of this figure."
)
ENROLMENT = (
    "The enrolment set (speaker vector, mel and F0 statistics, table of sounds) is not protected "
    "by this unit; the "
    "speaker-level figure covers it."
)
SINGLE = (
    "Clients with one recording: enrolment and training come from the same breath, so the "
    "segment-level figure is no guarantee for them."
)
COUNT = (
    "How many segments a device has is taken as public: sampling rate and mean gradient follow "
    "from it."
)
TRUST = "It holds if at least min_honest devices in the sum are honest and draw their noise."
SIMULATED = (
    "This run's randomness is simulated and not private: the figure is what a real run would cost."
)


def budgets(world: World, records: list[RoundRecord]) -> list[dict[str, Any]]:
    """Return both privacy units' figures; empty if the run was not private."""
    federation = world.scenario.federation
    if not federation.private:
        return []
    events = {
        unit: [speaker_device.budget_events(world, speaker, unit) for speaker in world.clients]
        for unit in ("segment", "speaker")
    }
    return [
        _segment(world, federation.segment_privacy, events["segment"]),
        _speaker(federation.speaker_privacy, events["speaker"], records),
    ]


def _segment(
    world: World, privacy: SegmentPrivacy, events: list[tuple[PrivacyEvent, ...]]
) -> dict[str, Any]:
    figures = [segment_figure(booked, privacy.delta_dp) for booked in events]
    worst = max(range(len(figures)), key=lambda i: figures[i].epsilon)
    figure, booked = figures[worst], events[worst]
    speaker = world.clients[worst]
    single = any(split_speaker(s).single_recording for s in world.clients)
    caveats = [ENROLMENT, COUNT, FLOATING_POINT, SIMULATED]
    if single:
        caveats.insert(0, SINGLE)
    size = _segments_in_longest_recording(speaker)
    return {
        **_common(figure, "segment", "the client that spent most"),
        "epsilon_max": privacy.epsilon_max,
        "sampling": "Poisson, on the device and secret; probability "
        f"{booked[0].sample_rate:.3g} a step"
        if booked
        else "none",
        "noise_multiplier": privacy.noise_multiplier,
        "clip_norm": privacy.clip_norm,
        "events": sum(event.steps for event in booked),
        "group": _group(booked, privacy.delta_dp, size),
        "label": NO_GUARANTEE if single else figure.label,
        "caveats": caveats,
    }


def _speaker(
    privacy: SpeakerPrivacy,
    events: list[tuple[PrivacyEvent, ...]],
    records: list[RoundRecord],
) -> dict[str, Any]:
    figures = [speaker_figure(booked, privacy.delta_dp) for booked in events]
    worst = max(range(len(figures)), key=lambda i: figures[i].epsilon)
    figure = figures[worst]
    caveats = [TRUST, SIMULATED]
    if privacy.adaptive_clip is not None:
        caveats.append(
            f"The clip adapted: {privacy.adaptive_clip.budget_share:.0%} of each round's cost went "
            "to a noisy count of the deltas within it."
        )
    least = [record.min_honest for record in records if record.min_honest is not None]
    if least:
        caveats.append(f"The noise was sized for {min(least)} honest survivors.")
    return {
        **_common(figure, "speaker", "the client that spent most"),
        "epsilon_max": privacy.epsilon_max,
        "sampling": "none claimed: the server knows who takes part",
        "noise_multiplier": privacy.noise_multiplier,
        "clip_norm": privacy.clip_norm,
        "events": sum(event.steps for event in events[worst]),
        "group": None,
        "label": figure.label,
        "caveats": caveats,
    }


def _common(figure: PrivacyFigure, unit: str, holder: str) -> dict[str, Any]:
    return {
        "unit": unit,
        "holder": holder,
        "epsilon": _finite(figure.epsilon),
        "delta": figure.delta,
        "accountants": [
            {"name": name, "epsilon": _finite(value)} for name, value in figure.accountants.items()
        ],
        "neighbouring_relation": figure.relation,
    }


def _segments_in_longest_recording(speaker: Speaker) -> int:
    """Return how many segments at most come from one training recording of a speaker."""
    pieces = split_speaker(speaker).training
    return max(int(probe_recording(piece.utterance.path) / SEGMENT_S) for piece in pieces)


def _group(booked: tuple[PrivacyEvent, ...], delta: float, size: int) -> dict[str, Any] | None:
    """Return group privacy for a whole recording, at the same delta."""
    if size < 2:
        return None
    group = recording_figure(booked, size, delta)
    meaning = f"a recording of {size} segments, at delta {delta:.2g}"
    if not math.isfinite(group.epsilon):
        meaning = f"a recording of {size} segments: its delta would reach 1, so nothing bounds it"
    return {"size": size, "epsilon": _finite(group.epsilon), "meaning": meaning}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
