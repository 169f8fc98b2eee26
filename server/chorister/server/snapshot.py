"""How a federation stands, read from its server's folder and from nothing else."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from chorister.server.budget import FederationBudget
from chorister.server.plan import Plan, read_plan
from chorister.server.quality import Measurement, read_quality
from chorister.server.registry import AdapterVersion, Registry
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, anonymous, read_rounds
from chorister.server.server_folder import ServerFolder
from chorister.server.tls import certificate_end
from chorister.shared.privacy.limits import speaker_limit
from chorister.shared.settings import Federation

FRESH_S = 15  # a running server says how it is every two seconds


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A federation at one moment; nothing in it is about one person.

    Attributes:
        settings: of the federation.
        at_s: when, Unix time.
        running: whether a server is at work in the folder.
        online: devices connected; None while no server runs.
        members: devices admitted; None while no server runs.
        holds_up: why no round begins now.
        plan: which rounds are wanted.
        rounds: that are committed, oldest first.
        versions: of the shared adapter, oldest first.
        quality: what was measured of versions.
        epsilon: largest that any speaker was charged, reserved rounds included.
        charged: devices that anything was charged to.
        certificate_end_s: when the TLS certificate ends, Unix time.
        unfit: admissions that admit nobody: reason to how many. The running server's file
            `running.json` names them, by pseudonym.
    """

    settings: Federation
    at_s: int
    running: bool
    online: int | None
    members: int | None
    holds_up: str | None
    plan: Plan
    rounds: tuple[RoundRecord, ...]
    versions: tuple[AdapterVersion, ...]
    quality: tuple[Measurement, ...]
    epsilon: float
    charged: int
    certificate_end_s: int
    unfit: dict[str, int] = field(default_factory=dict)

    @property
    def epsilon_left(self) -> float:
        """What the limit leaves of the most charged speaker's budget."""
        return max(0.0, self.settings.speaker_privacy.epsilon_max - self.epsilon)

    @property
    def certificate_days(self) -> int:
        """Days that the TLS certificate still has."""
        return (self.certificate_end_s - self.at_s) // 86_400

    @property
    def finished(self) -> int:
        """Rounds that made a version."""
        return sum(record.status == "finished" for record in self.rounds)

    @property
    def refusals(self) -> dict[str, int]:
        """Reason to how often it was given, over all rounds."""
        counted: Counter[str] = Counter()
        for record in self.rounds:
            counted.update(record.refusals)
        return dict(counted.most_common())

    def to_plain(self) -> dict[str, Any]:
        """Return what `chorister server status --json` prints."""
        return {
            "federation": self.settings.name,
            "at_s": self.at_s,
            "running": self.running,
            "online": self.online,
            "members": self.members,
            "waiting_for": self.holds_up,
            "plan": asdict(self.plan),
            "rounds": [asdict(record) for record in self.rounds],
            "adapters": [asdict(version) for version in self.versions],
            "quality": [asdict(measured) for measured in self.quality],
            "epsilon_speaker": self.epsilon,
            "epsilon_limit": self.settings.speaker_privacy.epsilon_max,
            "epsilon_left": self.epsilon_left,
            "delta_dp": self.settings.speaker_privacy.delta_dp,
            "private": self.settings.private,
            "devices_charged": self.charged,
            "certificate_end_s": self.certificate_end_s,
            "refusals": self.refusals,
            "unfit_admissions": self.unfit,
        }


def take_snapshot(folder: ServerFolder) -> Snapshot:
    """Return how the federation of a folder stands.

    Raises:
        UsageError: there is no server in the folder.
        BadSettings, BadLedger, BadWeights: settings or state were altered.
    """
    from chorister.server.installed import read_json

    folder.server_settings()
    settings = folder.federation()
    now_s = int(time.time())
    told = read_json(folder.status_file)
    told_s = told.get("told_s")
    running = isinstance(told_s, int) and now_s - told_s <= FRESH_S
    epsilon, charged = 0.0, 0
    if folder.budget.exists():
        budget = FederationBudget(
            folder.budget, speaker=speaker_limit(settings.speaker_privacy), federation=settings.name
        )
        epsilon, charged = budget.epsilon_of_all(), len(budget.devices())
    unfit = told.get("unfit")
    return Snapshot(
        settings=settings,
        at_s=now_s,
        running=running,
        online=_whole(told.get("online")) if running else None,
        members=_whole(told.get("members")) if running else None,
        holds_up=_text(told.get("holds_up")) if running else "the server is not running",
        plan=read_plan(folder.plan_file),
        rounds=tuple(map(anonymous, read_rounds(folder.state / ROUNDS_FILE))),
        versions=Registry(folder.adapters).versions(),
        quality=read_quality(folder),
        epsilon=epsilon,
        charged=charged,
        certificate_end_s=int(certificate_end(folder.tls).timestamp()),
        unfit=dict(Counter(map(str, unfit.values()))) if isinstance(unfit, dict) else {},
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
