"""The operator's page, read-only, and the same figures for Prometheus; nothing about one person."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from chorister.server.snapshot import Snapshot
from chorister.shared.charts import Series, line_chart
from chorister.shared.page import STYLE

REFRESH_S = 10
RENEW_DAYS = 14
SHOWN_ROUNDS = 50
SHOWN_VERSIONS = 20


def render_page(snapshot: Snapshot) -> str:
    """Return the page as one HTML file without script."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"moment": _moment, "short": lambda digest: digest[:16]}
    template = files("chorister.server").joinpath("server_page.html").read_text(encoding="utf-8")
    tone, headline = _verdict(snapshot)
    return environment.from_string(template).render(
        s=snapshot, style=Markup(STYLE), tone=tone, headline=headline, refresh=REFRESH_S,  # noqa: S704 (our own stylesheet)
        rounds=snapshot.rounds[-SHOWN_ROUNDS:][::-1],
        versions=snapshot.versions[-SHOWN_VERSIONS:][::-1], charts=_charts(snapshot),
        measured={m.adapter: m for m in snapshot.quality},
    )  # fmt: skip


def _verdict(snapshot: Snapshot) -> tuple[str, str]:
    if not snapshot.running:
        return "bad", "The server is not running."
    if snapshot.certificate_days < RENEW_DAYS:
        return "bad", f"The TLS certificate ends in {snapshot.certificate_days} days: renew it."
    last = snapshot.rounds[-1] if snapshot.rounds else None
    if snapshot.settings.private and snapshot.epsilon_left <= 0.0:
        return "bad", "The privacy budget is used up; no round will begin."
    if last is not None and last.status == "aborted":
        return "mixed", f"Round {last.round} came to nothing: {last.reason}."
    if snapshot.holds_up == "too few devices":
        return "mixed", (
            f"Waiting for {snapshot.plan.least_devices} devices; {snapshot.online} are connected."
        )
    if snapshot.holds_up == "no rounds are wanted":
        return "good", f"All {len(snapshot.rounds)} rounds that were wanted are done."
    return "good", f"{snapshot.finished} rounds finished; {snapshot.online} devices are connected."


Legend = tuple[tuple[str, str], ...]


def _charts(snapshot: Snapshot) -> list[tuple[str, Legend, Markup]]:
    made: list[tuple[str, Legend, Markup]] = []
    survivors = [(float(r.round), float(r.survivors)) for r in snapshot.rounds]
    cohorts = [(float(r.round), float(r.cohort)) for r in snapshot.rounds]
    if survivors:
        made.append(
            (
                "Devices a round",
                (("b", "asked"), ("a", "in the sum")),
                line_chart(
                    "Devices a round",
                    [Series("asked", cohorts, "b"), Series("in the sum", survivors, "a")],
                    x_label="round", y_label="devices", from_zero=True,
                ),
            )
        )  # fmt: skip
    spent = [
        (float(r.round), r.epsilon_speaker) for r in snapshot.rounds
        if r.epsilon_speaker is not None
    ]  # fmt: skip
    if spent:
        limit = snapshot.settings.speaker_privacy.epsilon_max
        made.append(
            (
                "Privacy cost of the most charged speaker",
                (),
                line_chart(
                    "Epsilon after each round", [Series("epsilon", spent, "a")],
                    x_label="round", y_label="epsilon, speaker unit",
                    reference=(limit, "limit") if limit <= 4 * spent[-1][1] else None,
                    from_zero=True,
                ),
            )
        )  # fmt: skip
    for name in dict.fromkeys(m.name for m in snapshot.quality):
        place = {v.sha256: float(i) for i, v in enumerate(snapshot.versions)}
        points = sorted(
            {place[m.adapter]: m.value for m in snapshot.quality
             if m.name == name and m.adapter in place}.items()
        )  # fmt: skip
        if len(points) > 1:
            made.append(
                (
                    f"Measured on held-out speech: {name}",
                    (),
                    line_chart(name, [Series(name, points, "a")], x_label="version", y_label=name),
                )
            )
    return made


def render_metrics(snapshot: Snapshot) -> str:
    """Return the figures in Prometheus's text format (version 0.0.4); no label names a device."""
    last = snapshot.rounds[-1] if snapshot.rounds else None
    lines: list[str] = []

    def put(name: str, kind: str, about: str, *values: tuple[str, float]) -> None:
        lines.append(f"# HELP chorister_{name} {about}")
        lines.append(f"# TYPE chorister_{name} {kind}")
        lines.extend(f"chorister_{name}{labels} {value:.15g}" for labels, value in values)

    put("up", "gauge", "Whether the server is at work.", ("", float(snapshot.running)))
    for status in ("finished", "aborted"):
        count = sum(r.status == status for r in snapshot.rounds)
        put(f"rounds_{status}_total", "counter", f"Rounds that were {status}.", ("", count))
    put("rounds_wanted", "gauge", "Round to go on until.", ("", snapshot.plan.target))
    put(
        "certificate_not_after_seconds", "gauge", "When the TLS certificate ends, Unix time.",
        ("", snapshot.certificate_end_s),
    )  # fmt: skip
    if snapshot.online is not None and snapshot.members is not None:
        put("devices_online", "gauge", "Devices connected.", ("", snapshot.online))
        put("devices_admitted", "gauge", "Devices admitted.", ("", snapshot.members))
    put(
        "adapter_versions", "gauge", "Versions of the shared adapter.", ("", len(snapshot.versions))
    )
    if snapshot.settings.private:
        put(
            "epsilon_speaker",
            "gauge",
            "Epsilon of the most charged speaker.",
            ("", snapshot.epsilon),
        )
        limit = snapshot.settings.speaker_privacy.epsilon_max
        put("epsilon_speaker_limit", "gauge", "The server stops there.", ("", limit))
    if last is not None:
        put("last_round_cohort", "gauge", "Devices asked in the last round.", ("", last.cohort))
        put("last_round_survivors", "gauge", "Devices in its sum.", ("", last.survivors))
        put("last_round_seconds", "gauge", "How long it took.", ("", last.seconds))
        up, down = (sum(getattr(r, n) for r in snapshot.rounds) for n in ("bytes_up", "bytes_down"))
        put("bytes_received_total", "counter", "Protocol bytes from devices.", ("", up))
        put("bytes_sent_total", "counter", "Protocol bytes to devices.", ("", down))
    if snapshot.refusals:
        put(
            "refusals_total", "counter", "Refusals and drop-outs by reason.",
            *((f'{{reason="{_label(reason)}"}}', n) for reason, n in snapshot.refusals.items()),
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")[:80]


def _moment(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
