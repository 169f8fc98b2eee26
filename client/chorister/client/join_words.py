"""What an invitation asks, in plain words: read by a speaker before anything is agreed to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from textwrap import fill

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chorister.client.agreement import Agreement
from chorister.client.consent import ConsentRecord
from chorister.shared.console import printable
from chorister.shared.invite import Invite, is_loopback
from chorister.shared.privacy.events import SEGMENT_MECHANISM, SPEAKER_MECHANISM, PrivacyEvent
from chorister.shared.privacy.figures import label_of
from chorister.shared.privacy.segment_level import segment_figure
from chorister.shared.privacy.speaker_level import speaker_figure

UNKNOWN = "not said"
WIDTH = 96


def invitation_text(
    agreed: Agreement, consent: ConsentRecord | None, segments: int, others: Sequence[str] = ()
) -> str:
    """Return whom a device would join, what it would be asked, and what that would cost.

    Args:
        agreed: the invitation with the owner's own limits.
        consent: of the speaker.
        segments: how many training segments the vault holds, at least 1.
        others: federations that the same voice is in already.
    """
    invite, terms = agreed.invite, agreed.invite.terms
    who, acceptance = terms.accountability, agreed.acceptance()
    values = invite.release.spec.size
    lines = [
        f"You are invited to join '{invite.federation}'.",
        "",
        "Who asks",
        _line("answers for it", ", ".join(x for x in (who.controller, who.contact) if x)),
        _line("for what", who.purpose),
        _line("legal basis", who.legal_basis),
        _line("its authority", f"{invite.authority.name} (compare it with whoever invited you)"),
        _line("its server", f"{invite.server}, {_certificate(invite)}"),
        _line("answer until", _day(invite.expires_s)),
        "",
        "What this device will be asked",
        _paragraph(
            f"Up to {terms.rounds} rounds. In each it trains {terms.training.local_steps} steps on "
            f"your {segments} segments of speech, about {terms.training.expected_batch_size} a "
            f"step, and sends {values} numbers, with noise added and masked. Only sums over at "
            f"least {acceptance.least_cohort} devices can be read, {acceptance.least_honest} of "
            "them honest."
        ),
        _paragraph(
            "The server asks; this device answers when it may: on mains power, idle, in the hours "
            "that you set."
        ),
        "",
        "What it can cost you (epsilon: how much anybody may learn; smaller is less)",
        *_costs(agreed, segments),
        "",
        "What stays here, always",
        _paragraph(
            "Recordings, what was said, the numbers that describe your voice, your personal voice, "
            "and why this device refused something."
        ),
        "What others see",
        _paragraph(
            "That this device takes part, under a pseudonym, and when. What trains is the program "
            "that is installed here; nothing that the server sends is run."
        ),
        _paragraph(
            "You can stop at any time: `chorister join --pause`, or `chorister consent withdraw`."
        ),
    ]
    if others:
        names = ", ".join(f"'{name}'" for name in others)
        lines += [
            "",
            fill(
                f"Note: this voice is in {names} already. Each federation has a budget of its own, "
                "and what they may learn adds up for whoever sees several.", WIDTH,
            ),
        ]  # fmt: skip
    if consent is not None and who.controller and consent.controller != who.controller:
        lines += [
            "",
            f"Note: your consent names '{consent.controller}', the invitation '{who.controller}'.",
        ]
    return printable("\n".join(lines))


def _paragraph(text: str) -> str:
    return fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _costs(agreed: Agreement, segments: int) -> list[str]:
    terms, rounds = agreed.invite.terms, agreed.invite.terms.rounds
    speaker, segment = terms.speaker_privacy, terms.segment_privacy
    all_rounds = PrivacyEvent(SPEAKER_MECHANISM, speaker.noise_multiplier, 1.0, rounds)
    rate = min(1.0, terms.training.expected_batch_size / segments)
    steps = rounds * terms.training.local_steps
    all_steps = PrivacyEvent(SEGMENT_MECHANISM, segment.noise_multiplier, rate, steps)
    return [
        _cost(
            "all that you give", speaker_figure((all_rounds,), speaker.delta_dp).epsilon,
            agreed.speaker_limit().epsilon_max, speaker.delta_dp, rounds,
        ),
        _cost(
            "one segment of it", segment_figure((all_steps,), segment.delta_dp).epsilon,
            agreed.segment_limit().epsilon_max, segment.delta_dp, rounds,
        ),
        _paragraph(
            "The two are never added. Where a limit is reached, this device takes part no more."
        ),
    ]  # fmt: skip


def _cost(what: str, epsilon: float, most: float, delta: float, rounds: int) -> str:
    label = label_of(min(epsilon, most))
    warning = "" if label is None else f" ({label})"
    figure = f"{epsilon:.2f}" if math.isfinite(epsilon) else "unbounded"
    stop = "" if epsilon <= most else "; it stops at the limit, before all rounds"
    return _line(
        what,
        f"epsilon {figure} after {rounds} rounds at delta {delta:g}, limit {most:g}{warning}{stop}",
    )


def _certificate(invite: Invite) -> str:
    if not invite.root_certificate:
        return "on this machine, WITHOUT encryption: for tests alone"
    found = x509.load_pem_x509_certificates(invite.root_certificate.encode())[0]
    digest = hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
    own = " (on this machine)" if is_loopback(invite.server) else ""
    return f"known by the certificate {digest[:16]}{own}"


def _line(name: str, value: str) -> str:
    return fill(
        f"{name:<18} {value or UNKNOWN}", WIDTH, initial_indent="  ", subsequent_indent=" " * 21
    )


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
