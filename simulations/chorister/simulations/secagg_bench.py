"""Secure aggregation against Flower's SecAgg+, both measured in one run on one machine.

Flower's side is Flower's own code, imported: the client's four stages as `secaggplus_mod` runs
them, and what `secaggplus_workflow` does to unmask. Chorister's side is one device and the
coordinator of a rehearsal, with everything that a device does: states are stored and read between
stages, and certificates and signatures, which SecAgg+ has none of, are verified without any cache.

Times are of the processor, so that a busy machine does not change the ratios. Flower's include its
threads; Chorister has one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from chorister.shared.privacy.discrete_gaussian import discrete_gaussian
from chorister.shared.secagg.masks import MaskedSum
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.secagg.wire import forget_verified
from chorister.simulations.secagg_rehearsal import (
    Network,
    Rehearsal,
    rehearsal_terms,
    uniform_deltas,
)

MODULUS = 2**32
_SETTINGS = {
    Key.CLIPPING_RANGE: 1.0, Key.TARGET_RANGE: 2**22, Key.MOD_RANGE: MODULUS, Key.MAX_WEIGHT: 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Processor seconds on both sides, and what follows from them.

    Attributes:
        dimension: d.
        neighbours: of the device; the cohort is one more.
        client_s: one device's work in a round, without noise.
        client_flower_s: the same of SecAgg+.
        mask_s: one mask, expanded and added.
        mask_flower_s: the same of SecAgg+.
        noise_s: sampling one device's noise.
        server_s: unmasking with a tenth of the devices dropped out.
        server_flower_s: the same of SecAgg+.
        upload_bytes: all messages of one device.
        upload_expansion: upload_bytes over d values of the modulus.
    """

    dimension: int
    neighbours: int
    client_s: float
    client_flower_s: float
    mask_s: float
    mask_flower_s: float
    noise_s: float
    server_s: float
    server_flower_s: float
    upload_bytes: int
    upload_expansion: float

    def to_plain(self) -> dict[str, float]:
        """Return figures and ratios for --json."""
        return {
            **asdict(self),
            "client_speedup_vs_flower": self.client_flower_s / self.client_s,
            "mask_speedup_vs_flower": self.mask_flower_s / self.mask_s,
            "server_speedup_vs_flower": self.server_flower_s / self.server_s,
        }


@dataclass(frozen=True, slots=True)
class CohortFigures:
    """What a round cost at one size of the cohort.

    Attributes:
        cohort: devices.
        neighbours: k that follows.
        device_s: mean processor seconds of one device; all share one cache of signatures.
        server_s: processor seconds of the server.
        round_s: the whole round in one process, by the clock.
        up_bytes: mean of a device.
        down_bytes: mean of a device.
        survivors: in the sum.
    """

    cohort: int
    neighbours: int
    device_s: float
    server_s: float
    round_s: float
    up_bytes: float
    down_bytes: float
    survivors: int


def compare(dimension: int, neighbours: int, repeats: int, step: Callable[[], None]) -> Comparison:
    """Return both sides' figures, each the median of several runs.

    Args:
        dimension: d.
        neighbours: of each device, at least 3.
        repeats: runs of each measurement.
        step: called after each of the 2 x repeats + 2 parts.
    """
    terms = rehearsal_terms(neighbours + 1, dimension, dropout=0.2)
    seed = os.urandom(32)
    mask_s = _median(lambda: MaskedSum(dimension).add_mask(seed), 5 * repeats)
    total = [np.zeros(dimension, dtype=np.int64)]

    def flower_mask() -> None:
        parameters_subtraction(total, pseudo_rand_gen(seed, MODULUS, [(dimension,)]))

    mask_flower_s = _median(flower_mask, 5 * repeats)
    noise = terms.client_variance
    noise_s = _median(
        lambda: discrete_gaussian(noise, dimension, _rehearsal(terms).randomness), repeats
    )
    step()
    ours, server, upload = [], [], 0
    for _ in range(repeats):
        client_s, server_s, upload = _one_round(terms)
        ours.append(client_s)
        server.append(server_s)
        step()
    theirs = []
    for _ in range(repeats):
        theirs.append(_flower_client(dimension, neighbours))
        step()
    # Once: it takes a minute, and the ratio is far from its limit.
    their_server = _flower_server(dimension, neighbours)
    step()
    return Comparison(
        dimension, neighbours, float(np.median(ours)), float(np.median(theirs)), mask_s,
        mask_flower_s, noise_s, float(np.median(server)), their_server, upload,
        upload / (dimension * terms.modulus_bits / 8),
    )  # fmt: skip


def cohort_figures(cohort: int, dimension: int, gamma: float, dropout: float) -> CohortFigures:
    """Return what one round costs for a cohort, with its drop-outs spread over all stages."""
    started = time.perf_counter()
    terms = rehearsal_terms(cohort, dimension, gamma=gamma, dropout=dropout)
    rehearsal = _rehearsal(terms)
    names = sorted(rehearsal.devices)
    gone = names[:: max(1, round(1 / dropout))] if dropout > 0 else []
    drops = {
        stage: set(gone[i::4]) for i, stage in enumerate(("share", "mask", "confirm", "reveal"))
    }
    deltas = uniform_deltas(terms, 0)
    aggregate = rehearsal.run(deltas, Network(drops))
    expected = sum(deltas[rehearsal.name_of(d)] for d in aggregate.survivors)
    if not np.array_equal(aggregate.values, expected):
        raise ArithmeticError("the sum of the rehearsal is not the sum of its survivors' deltas")
    figures = rehearsal.figures
    n = len(rehearsal.devices)
    return CohortFigures(
        cohort, rehearsal.coordinator.thresholds.neighbours, sum(figures.device_s.values()) / n,
        sum(figures.server_s.values()), time.perf_counter() - started,
        sum(figures.up_bytes.values()) / n, sum(figures.down_bytes.values()) / n,
        len(aggregate.survivors),
    )  # fmt: skip


def _rehearsal(terms: RoundTerms) -> Rehearsal:
    return Rehearsal(terms, 0)


def _median(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        action()
        times.append(time.thread_time() - started)
    return float(np.median(times))


def _one_round(terms: RoundTerms) -> tuple[float, float, int]:
    """Return one device's seconds, the server's seconds of unmasking, and the device's upload."""
    rehearsal = _rehearsal(terms)
    measured, spent = "device-0000", [0.0]

    class Alone(Network):
        """Forgets what verified before the measured device works."""

        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if peer == measured:
                forget_verified()
            spent[0] -= sum(rehearsal.figures.device_s.values()) if peer == measured else 0.0
            return super().down(stage, peer, message)

        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            spent[0] += sum(rehearsal.figures.device_s.values()) if peer == measured else 0.0
            return super().up(stage, peer, message)

    names = sorted(rehearsal.devices)
    # A tenth is gone when masked deltas arrive; its masking keys have to be reconstructed.
    rehearsal.run(uniform_deltas(terms, 0), Alone({"mask": set(names[1::10])}))
    return spent[0], rehearsal.figures.server_s["reveal"], rehearsal.figures.up_bytes[measured]


def _flower_client(dimension: int, neighbours: int) -> float:
    """Return the seconds of one SecAgg+ client in its four stages."""
    n, threshold = neighbours + 1, n_threshold(neighbours)
    state = SecAggPlusState()
    state.nid = 1
    configs: Any = {
        Key.SAMPLE_NUMBER: n, Key.SHARE_NUMBER: n, Key.THRESHOLD: threshold, **_SETTINGS,
    }  # fmt: skip
    parameters = ndarrays_to_parameters([np.random.default_rng(0).normal(size=dimension)])
    started = time.process_time()
    keys: Any = _setup(state, configs)
    spent = time.process_time() - started

    pairs = {nid: (generate_key_pairs(), generate_key_pairs()) for nid in range(2, n + 1)}
    everyone: Any = {
        str(nid): (public_key_to_bytes(first[1]), public_key_to_bytes(second[1]))
        for nid, (first, second) in pairs.items()
    }
    everyone["1"] = (keys[Key.PUBLIC_KEY_1], keys[Key.PUBLIC_KEY_2])
    started = time.process_time()
    _share_keys(state, everyone)
    spent += time.process_time() - started

    # Neighbours' shares are of the right size; nothing here depends on their values.
    seed_share = create_shares(os.urandom(32), threshold, n)[0]
    key_share = create_shares(private_key_to_bytes(pairs[2][0][0]), threshold, n)[0]
    letters = []
    for nid, (_, second) in pairs.items():
        agreed = generate_shared_key(second[0], bytes_to_public_key(keys[Key.PUBLIC_KEY_2]))
        plaintext = share_keys_plaintext_concat(nid, 1, seed_share, key_share)
        letters.append(encrypt(agreed, plaintext))
    inbox: Any = {Key.CIPHERTEXT_LIST: letters, Key.SOURCE_LIST: list(pairs)}
    gone = list(pairs)[::10]
    request: Any = {
        Key.ACTIVE_NODE_ID_LIST: [1, *(nid for nid in pairs if nid not in gone)],
        Key.DEAD_NODE_ID_LIST: gone,
    }
    started = time.process_time()
    _collect_masked_vectors(state, inbox, 1, parameters)
    _unmask(state, request)
    return spent + time.process_time() - started


def _flower_server(dimension: int, neighbours: int) -> float:
    """Return the seconds that SecAgg+'s workflow unmasks with a tenth dropped out."""
    n, threshold = neighbours + 1, n_threshold(neighbours)
    gone = max(1, n // 10)
    pairs = [generate_key_pairs() for _ in range(n)]
    public = [public_key_to_bytes(pair[1]) for pair in pairs]
    alive = n - gone
    # What the workflow collects: the shares of every survivor's seed and every drop-out's key.
    seeds = [create_shares(os.urandom(32), threshold, n)[:alive]] * alive
    keys = [create_shares(private_key_to_bytes(pairs[0][0]), threshold, n)[:alive]] * gone
    vector = [np.zeros(dimension, dtype=np.int64)]
    shapes: list[tuple[int, ...]] = [(dimension,)]
    started = time.process_time()
    for shares in seeds:
        seed = combine_shares(shares)
        vector = parameters_subtraction(vector, pseudo_rand_gen(seed, MODULUS, shapes))
    for shares in keys:
        secret = combine_shares(shares)
        for peer in range(gone, n):
            agreed = generate_shared_key(
                bytes_to_private_key(secret), bytes_to_public_key(public[peer])
            )
            vector = parameters_subtraction(vector, pseudo_rand_gen(agreed, MODULUS, shapes))
    return time.process_time() - started


def n_threshold(neighbours: int) -> int:
    """Return the threshold that Chorister derives for the same graph, for a fair comparison."""
    return (neighbours + 1) // 2 + 1
