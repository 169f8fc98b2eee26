"""Back to the last shared adapter that a device had no part in."""

from __future__ import annotations

from dataclasses import dataclass

from chorister.server.operator import Operator
from chorister.server.registry import AdapterVersion
from chorister.shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class Rollback:
    """What going back means.

    Attributes:
        kept: the newest version from now on.
        dropped: versions that are listed no more, oldest first; their files stay.
        with_device: how many of those hold the device's own delta; the others were trained from
            one that does.
    """

    kept: AdapterVersion
    dropped: tuple[AdapterVersion, ...]
    with_device: int

    @property
    def contributions(self) -> int:
        """Deltas of all devices in the dropped versions: what is to be trained again."""
        return sum(version.survivors for version in self.dropped)


def plan_rollback(operator: Operator, device_id: str) -> Rollback:
    """Return what a rollback before a device would do; nothing is changed.

    Raises:
        UsageError: the device is in no version, or already in the first.
    """
    versions = operator.registry.versions()
    own = set(operator.withdrawals.versions_with(device_id))
    first = next((i for i, version in enumerate(versions) if version.sha256 in own), None)
    if first is None:
        raise UsageError(
            "A rollback goes back before a device that is in a version.",
            f"'{device_id}', in none of {len(versions)}",
            "There is nothing to take back; see `chorister server withdrawals`.",
        )
    if first == 0:
        raise UsageError(
            "A rollback keeps at least the first version.",
            f"'{device_id}' is in that",
            "Start a new federation from the base.",
        )
    dropped = versions[first:]
    return Rollback(versions[first - 1], dropped, sum(v.sha256 in own for v in dropped))


def roll_back(operator: Operator, device_id: str) -> Rollback:
    """Go back to the last version before a device, and note it in the ledger.

    Budgets stay spent: what the dropped versions told was told.

    Raises:
        UsageError: as `plan_rollback`.
    """
    plan = plan_rollback(operator, device_id)
    operator.ledger.append(
        "note",
        action="rollback",
        device=device_id,
        adapter=plan.kept.sha256,
        dropped=[version.sha256 for version in plan.dropped],
    )
    operator.registry.truncate(plan.kept.sha256)
    return plan
