"""From rounds that were measured to federations that were not: arithmetic, and nothing measured.

Everything here is a straight line through what `chorister server load` printed, or a formula of
docs/protocol.md. docs/scale.md says what is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chorister.shared.charts import Series, line_chart
from chorister.shared.errors import BadSettings
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.page import STYLE
from chorister.shared.privacy.calibration import plan_budget
from chorister.shared.privacy.speaker_level import largest_delta
from chorister.shared.randomness import SystemRandomness
from chorister.shared.secagg.planning import plan_cohort
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.shared.signing import SigningKey
from chorister.simulations.load_meter import DEVICES, SERVER_APP, SUPERLINK

WITHIN_S = 120.0
ROUNDS, EPSILON = 20, 4.0  # of every speaker; what a federation promises
# A connected device that nobody asks anything asks every 10 s and beats every 10 s.
IDLE_REQUESTS_PER_S = 0.2
# A device that only looks whether a round is on: connect, ask, disconnect.
CHECK_IN_REQUESTS = 3
# docs/protocol.md, section 13, and the adapter itself as float32.
BUNDLE_BYTES, REVEAL_BYTES, ROSTER_BYTES, VOTE_BYTES, SEALED_BYTES = 150, 40, 350, 70, 90


@dataclass(frozen=True, slots=True)
class Fit:
    """Straight lines through the origin, by least squares over the rounds that were measured.

    Attributes:
        link_s: processor seconds of the SuperLink for each device in a round.
        app_s: the same of the ServerApp.
        request_s: of the SuperLink for one request of a device.
        largest: devices of the largest round that was measured: beyond it is extrapolated.
    """

    link_s: float
    app_s: float
    request_s: float
    largest: int

    @property
    def devices_within(self) -> int:
        """Devices whose round takes one SuperLink two minutes of its one core."""
        return int(WITHIN_S / self.link_s)


@dataclass(frozen=True, slots=True)
class Paper:
    """A federation on paper.

    Attributes:
        enrolled: devices.
        dimension: d.
        delta: of the promised epsilon, the largest that so many speakers allow.
        cohort: devices in a round at which noise is 0.3 of the signal.
        neighbours: of each.
        up_bytes: of one device in a round.
        down_bytes: the same.
        round_mb: through the server in a round.
        round_min: minutes that one SuperLink is busy with a round.
        superlinks: that a round within two minutes would have to be spread over.
        rounds: until every device has been in 20.
        core_hours: of SuperLinks and ServerApps for all of these rounds.
        traffic_tb: of all of these rounds.
        idle_cores: that answer questions in vain if all devices are always connected.
        check_in_core_hours: a day, if each device looks once a day whether a round is on.
        admissions_s: processor seconds a minute that go into checking who is admitted.
    """

    enrolled: int
    dimension: int
    delta: float
    cohort: int
    neighbours: int
    up_bytes: int
    down_bytes: int
    round_mb: float
    round_min: float
    superlinks: int
    rounds: int
    core_hours: float
    traffic_tb: float
    idle_cores: float
    check_in_core_hours: float
    admissions_s: float


def fit(rounds: Sequence[Mapping[str, Any]]) -> Fit:
    """Return what the measured rounds have in common.

    Args:
        rounds: as `chorister server load --json` prints them.

    Raises:
        BadSettings: no round that finished.
    """
    done = [row for row in rounds if row["status"] == "finished"]
    if not done:
        raise BadSettings(
            "A line goes through rounds that were measured.", "none that finished",
            "Measure some: chorister server load --devices 10 25 50 --json",
        )  # fmt: skip
    squares = sum(row["devices"] ** 2 for row in done)

    def slope(part: str) -> float:
        return float(sum(row["devices"] * row["cpu_s"][part] for row in done) / squares)

    requests = sum(sum(row["requests"].values()) for row in done)
    link = sum(row["cpu_s"][SUPERLINK] for row in done)
    return Fit(slope(SUPERLINK), slope(SERVER_APP), link / requests,
               max(row["devices"] for row in done))  # fmt: skip


def bytes_of(cohort: int, dimension: int, neighbours: int, quorum: int) -> tuple[int, int]:
    """Return what one device sends and receives in a round, by docs/protocol.md, section 13.

    Args:
        cohort: devices.
        dimension: d, at 32 bits a value.
        neighbours: k.
        quorum: votes that every device is shown.
    """
    up = 4 * dimension + neighbours * (BUNDLE_BYTES + REVEAL_BYTES)
    down = 4 * dimension + cohort * ROSTER_BYTES + quorum * VOTE_BYTES + neighbours * SEALED_BYTES
    return up, down


def on_paper(
    enrolled: int, dimension: int, found: Fit, admission_s: float, gamma: float, dropout: float
) -> Paper:
    """Return what a federation of so many devices would need.

    Args:
        enrolled: devices.
        dimension: d.
        found: what was measured.
        admission_s: processor seconds that one admission takes to check.
        gamma: share of the cohort assumed corrupt.
        dropout: share that may vanish.

    Raises:
        BadSettings: nothing meets the goal.
    """
    delta = largest_delta(enrolled)
    goal = plan_budget(
        clients=100, rounds=ROUNDS, epsilon=EPSILON, delta=delta, dimension=dimension,
        gamma=gamma, dropout=dropout,
    )  # fmt: skip
    cohort = min(goal.cohort_to_learn, enrolled)
    if cohort > MAX_COHORT:
        raise BadSettings(
            f"A cohort has at most {MAX_COHORT} devices.", f"{cohort} are needed",
            "Ask for fewer values, fewer rounds or a larger epsilon.",
        )  # fmt: skip
    thresholds = plan_cohort(cohort, gamma, dropout).thresholds
    up, down = bytes_of(cohort, dimension, thresholds.neighbours, thresholds.vote_quorum)
    parts = enrolled * ROUNDS  # a device in a round
    link_s = cohort * found.link_s
    return Paper(
        enrolled=enrolled, dimension=dimension, delta=delta, cohort=cohort,
        neighbours=thresholds.neighbours, up_bytes=up, down_bytes=down,
        round_mb=cohort * (up + down) / 1e6, round_min=link_s / 60,
        superlinks=math.ceil(link_s / WITHIN_S), rounds=math.ceil(parts / cohort),
        core_hours=parts * (found.link_s + found.app_s) / 3600,
        traffic_tb=parts * (up + down) / 1e12,
        idle_cores=enrolled * IDLE_REQUESTS_PER_S * found.request_s,
        check_in_core_hours=enrolled * CHECK_IN_REQUESTS * found.request_s / 3600,
        admissions_s=enrolled * admission_s,
    )  # fmt: skip


def admission_s(repeats: int = 300) -> float:
    """Return the processor seconds that checking one admission takes here, its file not counted."""
    randomness = SystemRandomness()
    key = SigningKey.generate(randomness)
    node = NodeKey.generate(randomness).public_bytes()
    data = NodeAdmission.sign(
        key, "paper", "0" * 16, node, issued_s=0, not_after_s=2**31
    ).to_bytes()
    authority = key.verify_key()
    began = time.process_time()
    for _ in range(repeats):
        NodeAdmission.from_bytes(data).check(authority, "paper", 0)
    return (time.process_time() - began) / repeats


def drawing(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return a chart of processor time against devices, as a whole SVG file."""
    done = sorted((r for r in rounds if r["status"] == "finished"), key=lambda r: r["devices"])
    chart = line_chart(
        "Processor time of a round against the number of devices",
        [
            Series(name, [(row["devices"], row["cpu_s"][part]) for row in done], style)
            for name, part, style in (
                ("SuperLink", SUPERLINK, "a"), ("all devices together", DEVICES, "b"),
            )
        ],
        x_label="devices in the round", y_label="processor seconds", from_zero=True,
        reference=(WITHIN_S, "two minutes of one core"),
    )  # fmt: skip
    head, _, rest = str(chart).partition("</title>")
    return f"{head}</title><style>{STYLE}</style>{rest}\n"


def lines(found: Fit, papers: Sequence[Paper]) -> list[str]:
    """Return the projection for a person, one line a figure."""
    out = [
        f"SuperLink            {found.link_s:.3f} processor seconds a device and round, "
        f"{1e3 * found.request_s:.1f} ms a request",
        f"ServerApp            {found.app_s:.4f} processor seconds a device and round",
        f"within two minutes   {found.devices_within} devices for one SuperLink "
        f"({found.largest} were measured)",
        "",
        f"on paper: epsilon {EPSILON:g}, {ROUNDS} rounds a speaker, noise 0.3 of the signal",
    ]
    titles = {
        "enrolled": "devices enrolled", "dimension": "values (d)", "delta": "delta",
        "cohort": "cohort", "neighbours": "neighbours of each", "up_bytes": "bytes up a device",
        "down_bytes": "bytes down a device", "round_mb": "MB through the server a round",
        "round_min": "minutes a round, one SuperLink", "superlinks": "SuperLinks for two minutes",
        "rounds": "rounds until all had 20", "core_hours": "core hours of all these rounds",
        "traffic_tb": "TB of all these rounds", "idle_cores": "cores if all stay connected",
        "check_in_core_hours": "core hours a day, daily look",
        "admissions_s": "seconds a minute, admissions",
    }  # fmt: skip
    plain = [asdict(paper) for paper in papers]
    for field, title in titles.items():
        cells = "".join(f"{_figure(row[field]):>13}" for row in plain)
        out.append(f"{title:<32}{cells}")
    return out


def _figure(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}".replace(",", " ")
