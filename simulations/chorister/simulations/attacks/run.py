"""All attacks, one after the other, in one laboratory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from chorister.server.attack_record import Attack, Attacks, Picture
from chorister.shared.console import progress, say
from chorister.shared.voice.base_digest import BASE_SHA256
from chorister.simulations.attacks import client_canaries, planted, sgd_canaries
from chorister.simulations.attacks.identify import identify
from chorister.simulations.attacks.inversion import invert_gradients
from chorister.simulations.attacks.lab import Lab, open_lab
from chorister.simulations.attacks.membership import infer_membership
from chorister.simulations.attacks.plan import PARTS, Plan
from chorister.simulations.attacks.tell import (
    LIMITS,
    draw_pictures,
    tell_detections,
    tell_estimate,
    tell_identification,
    tell_inversion,
    tell_membership,
    tell_training,
)
from chorister.simulations.attacks.training_audit import audit_training
from chorister.simulations.randomness import SimulatedRandomness

_ESTIMATE_DIMENSION = 320
_TOGETHER = 4


def run_attacks(
    plan: Plan, data: Path | None, names: Sequence[str] | None, seed: int, *, command: str,
    version: str, made_at_s: int, parts: Sequence[str] = PARTS,
) -> Attacks:  # fmt: skip
    """Run every attack and return what it came to.

    Args:
        plan: how much of each.
        data: folder of speech; None for the embedded corpus.
        names: speakers to take; None for all.
        seed: of everything that is drawn.
        command: as typed, for the record.
        version: of Chorister.
        made_at_s: Unix time.
        parts: which attacks, of `PARTS`.

    Raises:
        UsageError: the voices cannot be read.
    """
    started_s = time.process_time()
    found: list[Attack] = []

    # 1 the mechanisms, and faults in them
    if "mechanisms" in parts:
        found += _mechanisms(plan, seed)
    with open_lab(
        data, names, most_voices=plan.voices, most_segments=plan.segments, seed=seed
    ) as lab:
        # 2 whole trainings, 3 who sent it, 4 who and what was in it, 5 what was said
        if "training" in parts:
            with progress("Auditing whole trainings", plan.trainings) as step:
                found.append(tell_training(audit_training(lab, plan.trainings, seed, step)))
        if "identification" in parts:
            with progress("Identifying speakers", len(lab.voices) * (plan.updates + 1)) as step:
                found += tell_identification(identify(lab, plan.updates, seed, step))
        if "membership" in parts:
            with progress("Inferring membership", len(lab.voices) + plan.federations) as step:
                member = infer_membership(lab, plan.federations, plan.rounds, seed, step)
            found += tell_membership(member)
        pictures: list[Picture] = []
        if "inversion" in parts:
            with progress("Inverting gradients", 3 * plan.inverted) as step:
                inverted = invert_gradients(lab, plan.inverted, plan.iterations, seed, step)
            found.append(tell_inversion(inverted))
            pictures = draw_pictures(inverted)
        took_s = time.process_time() - started_s
        say(f"{took_s / 60:.1f} minutes of processor time")
        return Attacks(
            chorister=version, simulated=True, made_at_s=made_at_s, command=command,
            scale=plan.scale, seed=seed, data=lab.data, settings=_settings(lab),
            base_sha256=BASE_SHA256, took_s=took_s, attacks=found, pictures=pictures,
            limits=list(LIMITS),
        )  # fmt: skip


def _mechanisms(plan: Plan, seed: int) -> list[Attack]:
    cases = len(sgd_canaries.PLANTED)
    with progress("DP-SGD with planted faults", cases * plan.sgd_repeats) as step:
        sgd = planted.audit_sgd_faults(plan.canaries, plan.sgd_repeats, seed, step)
    cases = len(client_canaries.PLANTED)
    with progress("Speaker-level noise with planted faults", cases * plan.client_repeats) as step:
        clients = planted.audit_client_faults(plan.canaries, plan.client_repeats, seed, step)
    return [
        *tell_detections("segment", sgd, plan.canaries),
        *tell_detections("speaker", clients, plan.canaries),
        _estimate(plan, seed),
    ]


def _estimate(plan: Plan, seed: int) -> Attack:
    claimed = client_canaries.setting(1.0, 1, _ESTIMATE_DIMENSION)
    estimates = []
    with progress("Canary clients", 2) as step:
        for device in (client_canaries.HONEST, client_canaries.HALVED_NOISE):
            randomness = SimulatedRandomness(seed, "canary clients", device.name)
            estimates.append(
                client_canaries.estimate_clients(
                    claimed, device, plan.estimate_sums, _TOGETHER, randomness
                )
            )
            step()
    return tell_estimate(claimed, *estimates)


def _settings(lab: Lab) -> list[tuple[str, str]]:
    federation = lab.federation
    segment, speaker, task = (
        federation.segment_privacy, federation.speaker_privacy, federation.training
    )  # fmt: skip
    return [
        ("local steps", f"{task.local_steps}"),
        ("expected batch", f"{task.expected_batch_size}"),
        ("learning rate", f"{task.learning_rate:g}"),
        ("segment clip", f"{segment.clip_norm:g}"),
        ("segment noise", f"{segment.noise_multiplier:g}"),
        ("speaker clip", f"{speaker.clip_norm:g}"),
        ("speaker noise", f"{speaker.noise_multiplier:g}"),
        ("adapter values", f"{lab.spec.size}"),
    ]
