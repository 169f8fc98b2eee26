"""Signed reports: JSON, HTML and PDF, each with an Ed25519 signature that is checked offline.

The JSON is `{"report": ..., "key": ..., "signature": ...}`. HTML and PDF end with one comment line
that holds key and signature of all bytes before it, which browsers and readers do not show.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorister.server.attack_record import read_attacks
from chorister.server.report_record import AuditReport, parse_report
from chorister.shared.errors import BadLedger, BadSignature, UsageError
from chorister.shared.signing import SigningKey, VerifyKey

LABEL = "chorister/1 audit report"
MOST_BYTES = 256 * 2**20
_HTML = ("\n<!-- ", " -->\n")
_PDF = ("\n% ", "\n")
_SEAL = re.compile(
    rb"\n(?:<!-- |% )chorister-audit-report ([0-9a-f]{64}) ([0-9a-f]{128})(?: -->)?\n\Z"
)


@dataclass(frozen=True, slots=True)
class SealedReport:
    """A report file whose signature holds.

    Attributes:
        key: who signed it.
        report: what it says; None for a page, whose text is for people, and for attacks.
    """

    key: VerifyKey
    report: AuditReport | None


def seal_json(report: AuditReport, key: SigningKey) -> bytes:
    """Return the signed JSON file."""
    plain = report.model_dump(mode="json")
    signed = {
        "report": plain,
        "key": key.verify_key().raw.hex(),
        "signature": key.sign(LABEL, _digest(_canonical(plain))).hex(),
    }
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def seal_page(page: bytes, key: SigningKey, *, pdf: bool = False) -> bytes:
    """Return a page with its signature as a last line.

    Args:
        page: HTML or PDF.
        key: signs it.
        pdf: which of the two.
    """
    before, after = _PDF if pdf else _HTML
    signature = key.sign(LABEL, _digest(page)).hex()
    line = f"chorister-audit-report {key.verify_key().raw.hex()} {signature}"
    return page + f"{before}{line}{after}".encode()


def looks_like_report(path: Path) -> bool:
    """Return whether a file begins like a report or measured attacks, and is checked as one."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    pages = head.startswith((b"<!doctype html", b"%pdf-"))
    return pages or b'"report"' in head or b'"attacks"' in head


def check_report(path: Path) -> SealedReport:
    """Return who signed a report, if nothing in it was altered since.

    Raises:
        BadLedger: there is no signature, or it does not hold.
        UsageError: the file is too large, or signed JSON that does not fit the schema.
    """
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(
            f"A report has at most {MOST_BYTES} bytes.", f"{path.stat().st_size} bytes",
            "Check the path.",
        )  # fmt: skip
    data = path.read_bytes()
    found = _SEAL.search(data[-400:])
    if found is not None:
        page = data[: len(data) - (found.end() - found.start())]
        return SealedReport(_check(path, found[1].decode(), found[2].decode(), page), None)
    try:
        signed: Any = json.loads(data)
        if isinstance(signed, dict) and "attacks" in signed:
            return SealedReport(read_attacks(path).signer, None)
        plain, key, signature = (signed[name] for name in ("report", "key", "signature"))
        body = _canonical(plain)
    except (ValueError, KeyError, TypeError):
        raise BadLedger(
            "A report carries its signature.", f"none in {path.name}: it was cut off or taken away",
            "Get the report from whoever signed it.",
        ) from None  # fmt: skip
    verified = _check(path, str(key), str(signature), body)
    return SealedReport(verified, parse_report(plain))


def _check(path: Path, key: str, signature: str, body: bytes) -> VerifyKey:
    try:
        public = VerifyKey(bytes.fromhex(key))
        public.verify(LABEL, _digest(body), bytes.fromhex(signature))
    except (ValueError, BadSignature):
        raise BadLedger(
            "A report is as it was signed.",
            f"{path.name}, altered since, or signed by another key than it names",
            "Get the report from whoever signed it.",
        ) from None
    return public


def _canonical(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
