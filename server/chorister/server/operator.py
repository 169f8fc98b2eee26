"""What the server app needs of the machine that it runs on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from chorister.server.budget import FederationBudget
from chorister.server.registry import Registry
from chorister.server.rounds import RoundRecord
from chorister.shared.errors import UsageError
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import Randomness
from chorister.shared.settings import Federation
from chorister.shared.signing import SigningKey, VerifyKey

GROUP = "chorister.operators"
ENVIRONMENT = "CHORISTER_OPERATOR"


@dataclass(frozen=True, slots=True)
class Operator:
    """The server's own side of a federation.

    Attributes:
        settings: what the operator decided.
        run: name of this run, part of every round id.
        signing_key: signs the ledger's checkpoints.
        authority: the enrolment authority's public key.
        revoked: returns the devices that the authority revoked.
        registry: versions of the shared adapter; its first is there.
        budget: what each device's speaker has given.
        ledger: the server's.
        randomness: of the cohort's choice.
        simulated: whether all randomness of this run is simulated.
        folder: for `rounds.jsonl` and the optimiser's state.
        now_s: Unix time.
        on_round: called with a round's record just before it is committed.
    """

    settings: Federation
    run: str
    signing_key: SigningKey
    authority: VerifyKey
    revoked: Callable[[], frozenset[str]]
    registry: Registry
    budget: FederationBudget
    ledger: LedgerFile
    randomness: Randomness
    simulated: bool
    folder: Path
    now_s: Callable[[], int]
    on_round: Callable[[RoundRecord], None]


def open_operator() -> Operator:
    """Return the operator's side on this machine.

    Raises:
        UsageError: the environment does not say which, or names one that is not installed.
    """
    kind = os.environ.get(ENVIRONMENT, "")
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in known:
        raise UsageError(
            f"The environment variable {ENVIRONMENT} names a kind of operator: {', '.join(known)}.",
            repr(kind),
            "Start the app with a command of Chorister, which sets it.",
        )
    operator: Operator = known[kind].load()()
    return operator
