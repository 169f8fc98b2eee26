"""What the server app needs of the machine that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chorister.server.budget import FederationBudget
from chorister.server.registry import Registry
from chorister.server.rounds import ROUNDS_FILE, RoundRecord
from chorister.server.withdrawals import Withdrawals
from chorister.shared import openers
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import Randomness
from chorister.shared.settings import Federation
from chorister.shared.signing import SigningKey, VerifyKey

GROUP = "chorister.operators"
ENVIRONMENT = "CHORISTER_OPERATOR"


def always(number: int, devices: Callable[[], int]) -> bool:
    """Begin every round at once, as a simulation does."""
    return True


def unheard(event: str, fields: Mapping[str, object]) -> None:
    """Tell nobody what happens in a round, as a simulation does."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The server's own side of a federation.

    Attributes:
        settings: what the operator decided.
        run: name of this run, part of every round id.
        signing_key: signs the ledger's checkpoints.
        authority: the enrolment authority's public key.
        revoked: returns the devices that the authority revoked.
        withdrawals: of speakers.
        registry: versions of the shared adapter; its first is there.
        budget: what each device's speaker has given.
        ledger: the server's.
        randomness: of the cohort's choice.
        simulated: whether all randomness of this run is simulated.
        folder: for `rounds.jsonl` and the optimiser's state.
        now_s: Unix time.
        on_round: called with a round's record just before it is committed.
        may_begin: asked before each round, with its number and a function that counts the devices
            that are connected; False ends this process's part. It may wait.
        note: told what happens, for logs: an event's name and counts, never a payload.
    """

    settings: Federation
    run: str
    signing_key: SigningKey
    authority: VerifyKey
    revoked: Callable[[], frozenset[str]]
    withdrawals: Withdrawals
    registry: Registry
    budget: FederationBudget
    ledger: LedgerFile
    randomness: Randomness
    simulated: bool
    folder: Path
    now_s: Callable[[], int]
    on_round: Callable[[RoundRecord], None]
    may_begin: Callable[[int, Callable[[], int]], bool] = always
    note: Callable[[str, Mapping[str, object]], None] = unheard

    @property
    def rounds_path(self) -> Path:
        """Where the committed rounds are listed."""
        return self.folder / ROUNDS_FILE


def open_operator() -> Operator:
    """Return the operator's side on this machine.

    Raises:
        UsageError: the environment does not say which, or names one that is not installed.
    """
    operator: Operator = openers.find_opener(GROUP, ENVIRONMENT, "operator")()
    return operator
