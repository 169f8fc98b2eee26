"""Who sent this update? Speakers told apart by one device's delta, as sent and unprotected.

The attacker is the server. It knows the base, the adapter and the task, and for every candidate the
speaker's profile and recordings that were not trained on, which is more than a server is told. From
those it computes the update that each candidate would send, and compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chorister.client.privatise import add_noise, clip, quantise
from chorister.server.terms import plan_round
from chorister.shared.console import Step
from chorister.shared.secagg.masks import centred, residues
from chorister.shared.secagg.messages import MaskedInput
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import AdapterDelta
from chorister.simulations.attacks.lab import Lab, Voice
from chorister.simulations.attacks.rates import Measured, equal_error_rate, measure, share
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import FEDERATION, Network, Rehearsal

Matrix = NDArray[np.float64]
_SEED = bytes(32)
MASKED_ROUNDS = 8
"""Runs of the protocol for each update, each with masks of its own."""


@dataclass(frozen=True, slots=True)
class Identified:
    """How well one kind of observation names its speaker.

    Attributes:
        seen: what the attacker saw.
        equal_error: rate, chance 0.5; interval over speakers.
        top_one: share of observations whose best candidate is the right one, chance 1 / candidates.
    """

    seen: str
    equal_error: Measured
    top_one: Measured


@dataclass(frozen=True, slots=True)
class Identification:
    """Speaker identification under every kind of observation.

    Attributes:
        raw: plain training, no clip, no noise.
        trained: DP-SGD alone, before the speaker-level noise.
        unmasked: DP-SGD, clip and this device's share of noise: what is sent, without its mask.
        masked: what the server receives.
        reused: plain updates under masks of which two devices share one: a positive control.
        candidates: how many speakers.
    """

    raw: Identified
    trained: Identified
    unmasked: Identified
    masked: Identified
    reused: Identified
    candidates: int


def identify(lab: Lab, updates: int, seed: int, step: Step) -> Identification:
    """Measure the attack.

    Args:
        lab: voices and settings.
        updates: of each device, with sampling, noise and masks of their own.
        seed: of everything.
        step: called once for each voice, update and reference.
    """
    randomness = SimulatedRandomness(seed, "identification")
    references = []
    for voice in lab.voices:
        references.append(_reference(lab, voice, randomness.fork(f"reference {voice.name}")))
        step()
    judge = _Judge(np.stack(references))
    terms = _terms(lab)
    seen: dict[str, list[Matrix]] = {name: [] for name in ("raw", "trained", "unmasked", "masked")}
    pairs: list[Matrix] = []
    for number in range(updates):
        raw, private = [], []
        for voice in lab.voices:
            own = randomness.fork(f"update {number} of {voice.name}")
            material = voice.material()
            raw.append(lab.train(material, own, private=False))
            private.append(lab.train(material, own, private=True))
            step()
        noised = np.stack(
            [
                _noised(d, terms, randomness.fork(f"noise {number} {i}"))
                for i, d in enumerate(private)
            ]
        )
        # Masks cost little: more of them, so that chance is seen sharply.
        rounds = [_masked(noised, terms, seed + 1000 * number + i) for i in range(MASKED_ROUNDS)]
        plain = np.stack([_rounded(d, terms, randomness.fork(f"r {number} {i}"))
                          for i, d in enumerate(raw)])  # fmt: skip
        seen["raw"].append(np.stack([d.values for d in raw]).astype(np.float64))
        seen["trained"].append(np.stack([d.values for d in private]).astype(np.float64))
        seen["unmasked"].append(noised.astype(np.float64))
        seen["masked"] += [centred(m, terms.modulus_bits).astype(np.float64) for m in rounds]
        pairs.append(_share_one_mask(plain, noised, rounds[0], terms))
    found = {name: judge.name_all(name, rows, seed) for name, rows in seen.items()}
    return Identification(
        found["raw"], found["trained"], found["unmasked"], found["masked"],
        judge.name_pairs("reused mask, plain updates", pairs, seed), len(lab.voices),
    )  # fmt: skip


class _Judge:
    """Scores observations against candidates: the cosine with what sets each candidate apart."""

    def __init__(self, references: Matrix) -> None:
        self._references = references
        own = references - references.mean(axis=0)
        self._own = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)

    def name_all(self, seen: str, rounds: Sequence[Matrix], seed: int) -> Identified:
        """Judge rounds of observations, row i being sent by candidate i."""
        scores = [self._cosines(rows - rows.mean(axis=0)) for rows in rounds]
        return _judged(seen, scores, seed)

    def name_pairs(self, seen: str, rounds: Sequence[Matrix], seed: int) -> Identified:
        """Judge differences, row i being what i sent less what the next one sent."""
        n = len(self._own)
        scores = []
        for rows in rounds:
            # The attacker knows the other one of each pair: it is one of its own devices.
            known = np.roll(self._references, -1, axis=0)
            table = np.empty((n, n))
            for i, row in enumerate(rows):
                guesses = self._references - known[i]
                norms = np.maximum(np.linalg.norm(guesses, axis=1), 1e-12)
                table[i] = guesses @ row / norms / max(float(np.linalg.norm(row)), 1e-12)
            scores.append(table)
        return _judged(seen, scores, seed)

    def _cosines(self, rows: Matrix) -> Matrix:
        norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        cosines: Matrix = rows / norms @ self._own.T
        return cosines


def _judged(seen: str, rounds: Sequence[Matrix], seed: int) -> Identified:
    n = len(rounds[0])
    scores = np.concatenate([table.ravel() for table in rounds])
    same = np.tile(np.eye(n, dtype=bool).ravel(), len(rounds))
    owner = np.tile(np.repeat(np.arange(n), n), len(rounds))
    observation = np.repeat(np.arange(n * len(rounds)), n)
    hits = sum(int((table.argmax(axis=1) == np.arange(n)).sum()) for table in rounds)
    return Identified(
        seen, measure(equal_error_rate, scores, same, owner, observation, seed),
        share(hits, n * len(rounds)),
    )  # fmt: skip


def _reference(lab: Lab, voice: Voice, randomness: SimulatedRandomness) -> Matrix:
    """The update that a candidate would send, from recordings that the attacker has."""
    from chorister.client.train import TrainingMaterial

    known = TrainingMaterial(voice.public, voice.profile)
    task = lab.federation.training.model_copy(update={"expected_batch_size": 256})
    return lab.train(known, randomness, private=False, task=task).values.astype(np.float64)


def _terms(lab: Lab) -> RoundTerms:
    """The terms of a round with these voices as the cohort, as the server would plan it."""
    federation = lab.federation.model_copy(update={"name": FEDERATION})
    return plan_round(federation, "attack", 1, len(lab.voices), lab.start, "0" * 64, True)


def _noised(
    delta: AdapterDelta, terms: RoundTerms, randomness: SimulatedRandomness
) -> NDArray[np.int64]:
    quantised = quantise(clip(delta, terms.clip_norm), terms, _SEED, randomness.fork("rounding"))
    return add_noise(quantised, terms, randomness.fork("noise")).values


def _rounded(
    delta: AdapterDelta, terms: RoundTerms, randomness: SimulatedRandomness
) -> NDArray[np.int64]:
    return quantise(clip(delta, terms.clip_norm), terms, _SEED, randomness).values


class _Tap(Network):
    """What the server receives in the exchange of masked deltas."""

    def __init__(self, terms: RoundTerms) -> None:
        super().__init__()
        self._terms = terms
        self.masked: dict[str, NDArray[np.uint32]] = {}

    def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
        if stage == "mask":
            found = MaskedInput.from_bytes(message, self._terms.length, self._terms.modulus_bits)
            self.masked[peer] = found.delta.values
        return message


def _masked(noised: NDArray[np.int64], terms: RoundTerms, seed: int) -> NDArray[np.uint32]:
    """Run the whole protocol and return what the server was sent, one row a device."""
    rehearsal, tap = Rehearsal(terms, seed), _Tap(terms)
    names = list(rehearsal.devices)
    rehearsal.run(dict(zip(names, noised, strict=True)), tap)
    return np.stack([tap.masked[name] for name in names])


def _share_one_mask(
    plain: NDArray[np.int64], noised: NDArray[np.int64], masked: NDArray[np.uint32],
    terms: RoundTerms,
) -> Matrix:  # fmt: skip
    """Return differences of neighbours' masked plain updates, if each pair had used one mask.

    The masks are those of the protocol; that two devices use one of them is the planted fault.
    """
    bits = terms.modulus_bits
    masks = (masked - residues(noised, bits)) & np.uint32(2**bits - 1)
    first = residues(plain, bits) + masks
    second = residues(np.roll(plain, -1, axis=0), bits) + masks
    return centred((first - second) & np.uint32(2**bits - 1), bits).astype(np.float64)
