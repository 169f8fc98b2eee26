"""Was this recording trained on? Did this speaker take part? Asked of the released adapter alone.

The attacker knows base, settings, profiles and the recordings in question, and runs federations of
its own with coins for who and what is in (shadow federations), as in the likelihood-ratio attack of
Carlini et al. 2022 (arXiv:2112.03570). What it reads off an adapter is how far it moved along the
gradient of the target's loss: to first order, by how much that loss fell. Recordings are solved for
all at once. For a recording it knows whether the speaker took part; for a speaker it has other
recordings than those trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.client.privatise import add_noise, clip, quantise
from chorister.client.train import TrainingMaterial
from chorister.server.terms import plan_round
from chorister.server.update import OptimiserState, next_adapter
from chorister.shared.console import Step
from chorister.shared.secagg.quantise import mean_delta
from chorister.shared.types import Adapter, AdapterDelta, Aggregate
from chorister.simulations.attacks.lab import Lab
from chorister.simulations.attacks.rates import (
    Measured,
    area_under_curve,
    measure,
    true_positives_at,
)
from chorister.simulations.randomness import SimulatedRandomness

LOW_FALSE_POSITIVES = 0.01
RIDGE = 0.01
"""Chosen on the embedded corpus, without privacy."""
_SEED = bytes(32)
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inferred:
    """How well membership was told.

    Attributes:
        area: under the ROC curve, chance 0.5.
        found: true positives at 1 % false positives, chance 0.01.
    """

    area: Measured
    found: Measured


@dataclass(frozen=True, slots=True)
class Membership:
    """Membership inference with and without differential privacy.

    Attributes:
        recording, speaker: from adapters trained as the scenario states.
        recording_plain, speaker_plain: without clip and noise.
        recording_alone: from one device's plain update instead of the released adapter.
        federations: shadow federations, each of half the voices.
        clients: voices in each.
        rounds: of each.
    """

    recording: Inferred
    recording_plain: Inferred
    recording_alone: Inferred
    speaker: Inferred
    speaker_plain: Inferred
    federations: int
    clients: int
    rounds: int


def infer_membership(lab: Lab, federations: int, rounds: int, seed: int, step: Step) -> Membership:
    """Measure the attack.

    Args:
        lab: voices and settings.
        federations: to run, each both ways; at least 4.
        rounds: of each.
        seed: of everything.
        step: called once a federation, and once a voice.
    """
    randomness = SimulatedRandomness(seed, "membership")
    # A recording's direction is of the recording itself, a speaker's of recordings not trained on.
    recordings, speakers = [], []
    for voice in lab.voices:
        numbers = np.unique(voice.recording_of)
        for number in numbers:
            own = voice.material(np.flatnonzero(voice.recording_of == number).tolist())
            recordings.append((voice.name, int(number), _direction(lab, own, randomness)))
        known = TrainingMaterial(voice.public, voice.profile)
        speakers.append(_direction(lab, known, randomness))
        step()
    clients = len(lab.voices) // 2
    chosen = np.zeros((federations, len(lab.voices)), dtype=bool)
    trained = np.zeros((federations, len(recordings)), dtype=bool)
    moved: dict[bool, list[Matrix]] = {True: [], False: []}
    alone = np.zeros((federations, len(recordings)))
    owner = np.array([[v.name for v in lab.voices].index(name) for name, _, _ in recordings])
    directions = np.stack([d for _, _, d in recordings])
    index = {(name, number): i for i, (name, number, _) in enumerate(recordings)}
    for k in range(federations):
        drawn = randomness.fork(f"federation {k}")
        generator = np.random.default_rng(int.from_bytes(drawn.fork("members").bytes(8), "big"))
        chosen[k, generator.permutation(len(lab.voices))[:clients]] = True
        rows = {}
        for i in np.flatnonzero(chosen[k]):
            voice = lab.voices[i]
            numbers = np.unique(voice.recording_of)
            coins = generator.integers(2, size=len(numbers)).astype(bool)
            coins[generator.integers(len(numbers))] |= not coins.any()
            for number in numbers[coins]:
                trained[k, index[voice.name, int(number)]] = True
            rows[int(i)] = np.flatnonzero(np.isin(voice.recording_of, numbers[coins])).tolist()
        for private in (True, False):
            end, updates = _federate(lab, rows, rounds, drawn, private=private)
            moved[private].append(end)
        for member, update in updates.items():  # of the plain run, which was the last
            own_recordings = np.flatnonzero(owner == member)
            alone[k, own_recordings] = explain(update[None], directions[own_recordings])[0]
        step()
    took_part = chosen[:, owner]
    tables: dict[tuple[str, bool], Inferred] = {}
    for private, adapters in moved.items():
        ends = np.stack(adapters)
        reach = explain(ends, directions)
        tables["recording", private] = _judge(reach, trained, took_part, owner, seed)
        lengths = np.maximum(np.linalg.norm(ends, axis=1, keepdims=True), 1e-12)
        reach = ends / lengths @ np.stack(speakers).T
        everywhere = np.ones_like(chosen)
        tables["speaker", private] = _judge(
            reach, chosen, everywhere, np.arange(len(lab.voices)), seed
        )
    return Membership(
        tables["recording", True], tables["recording", False],
        _judge(alone, trained, took_part, owner, seed), tables["speaker", True],
        tables["speaker", False], federations, clients, rounds,
    )  # fmt: skip


def explain(ends: Matrix, directions: Matrix) -> Matrix:
    """Return how much of each recording explains each adapter best, shape (K, n): ridge regression.

    Recordings pull in much the same direction; solving for all at once tells them apart.

    Args:
        ends: shape (K, d), how far each adapter moved.
        directions: shape (n, d), of length 1.
    """
    d = directions.shape[1]
    inner = directions.T @ directions + RIDGE * np.eye(d)
    found: Matrix = ends @ np.linalg.solve(inner, directions.T)
    return found


def likelihood_ratios(
    values: Matrix, inside: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Return each observation's log likelihood ratio by all other federations, and which have one.

    Args:
        values: shape (K, n), of n targets in K federations.
        inside: shape (K, n), the truth.
        usable: shape (K, n), where the attacker asks at all.
    """
    ratios, judged = np.zeros(values.shape), np.zeros(values.shape, dtype=bool)
    for target in range(values.shape[1]):
        for k in np.flatnonzero(usable[:, target]):
            others = usable[:, target].copy()
            others[k] = False
            ins = values[others & inside[:, target], target]
            outs = values[others & ~inside[:, target], target]
            if len(ins) < 2 or len(outs) < 2:
                continue
            # One variance for both: few federations estimate two badly (as the paper's variant).
            spread = np.concatenate([ins - ins.mean(), outs - outs.mean()])
            variance = float((spread**2).sum() / (len(spread) - 2)) + 1e-12
            far_in, far_out = values[k, target] - ins.mean(), values[k, target] - outs.mean()
            ratios[k, target] = (far_out**2 - far_in**2) / (2 * variance)
            judged[k, target] = True
    return ratios, judged


def _judge(
    reach: Matrix, inside: NDArray[np.bool_], usable: NDArray[np.bool_], owner: NDArray[np.int64],
    seed: int,
) -> Inferred:  # fmt: skip
    ratios, judged = likelihood_ratios(reach, inside, usable)
    k, target = np.nonzero(judged)
    scores, truth, whose = ratios[judged], inside[judged], owner[target]
    return Inferred(
        measure(area_under_curve, scores, truth, whose, k, seed),
        measure(true_positives_at(LOW_FALSE_POSITIVES), scores, truth, whose, k, seed),
    )


def _direction(lab: Lab, material: TrainingMaterial, randomness: SimulatedRandomness) -> Matrix:
    """The step that lowers the loss of some segments the most, of length 1."""
    task = lab.federation.training.model_copy(
        update={"local_steps": 1, "expected_batch_size": 256, "learning_rate": 1.0}
    )
    own = randomness.fork(f"direction {material.segments.recordings[0].name}")
    step = lab.train(material, own, private=False, task=task).values.astype(np.float64)
    return step / max(float(np.linalg.norm(step)), 1e-12)


def _federate(
    lab: Lab, rows: dict[int, list[int]], rounds: int, randomness: SimulatedRandomness, *,
    private: bool,
) -> tuple[Matrix, dict[int, Matrix]]:  # fmt: skip
    """Run a federation; return how far its adapter moved, and the devices' first updates.

    Masks cancel in the sum and are left out.
    """
    federation = lab.federation.model_copy(update={"private": private})
    adapter: Adapter = lab.start
    first: dict[int, Matrix] = {}
    state = OptimiserState.initial(len(adapter.values))
    for number in range(1, rounds + 1):
        terms = plan_round(federation, "attack", number, len(rows), adapter, "0" * 64, True)
        total = np.zeros(terms.length, dtype=np.int64)
        for i, own in rows.items():
            drawn = randomness.fork(f"round {number} of {i}")
            delta: AdapterDelta = lab.train(
                lab.voices[i].material(own), drawn, private=private, adapter=adapter
            )
            first.setdefault(i, delta.values.astype(np.float64))
            rounded = quantise(clip(delta, terms.clip_norm), terms, _SEED, drawn.fork("rounding"))
            total += add_noise(rounded, terms, drawn.fork("noise")).values
        names = tuple(sorted(lab.voices[i].name for i in rows))
        aggregate = Aggregate(total, names, terms.modulus_bits)
        mean = mean_delta(aggregate, terms, _SEED)
        adapter, state = next_adapter(adapter, mean, state, federation.aggregation)
    return adapter.values.astype(np.float64), first
