"""A consent to read and to print: one page that needs nothing but itself.

The signed record is the JSON beside it. Neither holds the speaker's name: both lie outside the
vault, and whoever finds them learns that somebody consented, and not who.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from chorister.client.consent_record import CheckFigure, ConsentRecord
from chorister.shared.files import write_atomically

FILE = "receipt-consent"
PURPOSE_TEXTS = {
    "training": "train a voice model on this device, and take part in a federation's rounds",
    "conversion": "convert other speech into this voice",
    "speech": "make new speech in this voice",
    "plain_export": "write a plain voice file, which nobody can call back",
}
_RIGHTS = (
    "You can withdraw as easily as you gave it: {withdrawal}.",
    "Withdrawing destroys the keys of the recordings, of what was made of them and of sealed voice "
    "files. It does not undo what was done before, and it does not reach plain voice files.",
    "What a federation's shared adapter has learnt stays in it; your privacy budget bounds how "
    "much that can be. “chorister consent withdraw” says the figure.",
    "You can see what is kept with “chorister consent show” and “chorister vault verify”.",
)


def write_receipt(folder: Path, record: ConsentRecord, sentence: str | None) -> Path:
    """Write the page and the signed record beside it, and return the page's path.

    Args:
        folder: where to.
        record: the consent.
        sentence: what was said, the name left out; None where nothing was.

    Raises:
        OSError: it could not be written.
    """
    text = json.dumps(record.to_plain(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{FILE}.json", text.encode())
    page = folder / f"{FILE}.html"
    write_atomically(page, to_html(record, sentence).encode())
    return page


def facts(record: ConsentRecord) -> tuple[tuple[str, str], ...]:
    """Return what a record says, as pairs of a question and its answer for a person."""
    return (
        ("Who may use it", record.controller),
        ("What for", "; ".join(PURPOSE_TEXTS[purpose] for purpose in record.purposes)),
        ("What it is", "recordings of a voice: biometric data, specially protected"),
        ("Where it is kept", record.storage),
        ("How long it is kept", record.retention),
        ("Given", _date(record.given_s)),
        ("Ends", _date(record.expires_s)),
        ("Whose law", record.jurisdiction),
        ("How to withdraw", record.withdrawal),
        ("This device", record.subject),
    )


def rights(withdrawal: str) -> tuple[str, ...]:
    """Return what the speaker can do, in sentences.

    Args:
        withdrawal: how to withdraw, as the record says it.
    """
    return tuple(right.format(withdrawal=withdrawal) for right in _RIGHTS)


def to_html(record: ConsentRecord, sentence: str | None) -> str:
    """Return the page.

    Args:
        record: the consent.
        sentence: what was said, the name left out; None where nothing was.
    """
    spoken = record.statement
    parts = [
        "<dl>"
        + "".join(f"<dt>{_t(name)}</dt><dd>{_t(value)}</dd>" for name, value in facts(record))
        + "</dl>",
        "<h2>What was said</h2>",
    ]  # fmt: skip
    if sentence is None or spoken is None:
        parts.append("<p>Nothing: this consent was given without a spoken statement.</p>")
    else:
        lang = escape(spoken.locale, quote=True)
        parts.append(f'<blockquote lang="{lang}">{_t(sentence)}</blockquote>')
        parts.append(f"<p>{_t(_words(record))}</p>")
        parts += ["<h2>What was checked</h2>", _table(spoken.checks)]
    parts += [
        "<h2>Your rights</h2>",
        "<ul>" + "".join(f"<li>{_t(right)}</li>" for right in rights(record.withdrawal)) + "</ul>",
        "<h2>Checking this page</h2>",
        f"<p>The signed record is <code>{FILE}.json</code> beside this page: a document after "
        "ISO/IEC TS 27560:2023, signed with this device's Ed25519 key. Its "
        f"digest is <code>{_t(record.sha256)}</code>, the signature "
        f"<code>{_t(record.signature.hex())}</code>. Neither holds your name: "
        "that is in the vault, in what you said.</p>",
    ]  # fmt: skip
    return _PAGE.replace("BODY", "\n".join(parts))


def _words(record: ConsentRecord) -> str:
    spoken = record.statement
    if spoken is not None and spoken.words_checked:
        return f"The digits and key words were heard by {spoken.recogniser}, on this device."
    return "The words were not checked: no recogniser for this language was at hand."


def _table(checks: tuple[CheckFigure, ...]) -> str:
    rows = "".join(
        f"<tr><td>{_t(one.name)}</td><td>{_t(_value(one.figure, one.unit))}</td>"
        f"<td>{_t(_value(one.limit, one.unit))}</td><td>{'passed' if one.passed else 'failed'}</td>"
        "</tr>"
        for one in checks
    )
    return (
        "<table><thead><tr><th>Check</th><th>Found</th><th>Limit</th><th>Result</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _value(figure: float, unit: str) -> str:
    return f"{figure:g} {unit}".strip()


def _date(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%d %B %Y, %H:%M UTC")


def _t(value: object) -> str:
    return escape(str(value))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Consent to the use of a voice</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{color-scheme:light}
body,code,table{font:16px/1.5 system-ui,sans-serif}
body{max-width:44rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.15rem;margin:1.8rem 0 .4rem}
dl{display:grid;grid-template-columns:11rem 1fr;gap:.35rem 1rem;margin:0}
dt{color:#555}dd{margin:0}dd,code{overflow-wrap:anywhere}
blockquote{margin:.5rem 0;padding:.2rem 0 .2rem 1rem;border-left:3px solid #777}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .5rem .25rem 0;border-bottom:1px solid #bbb}
td:nth-child(2),td:nth-child(3),th:nth-child(2),th:nth-child(3){text-align:right}
td:last-child,th:last-child{padding-left:1rem;padding-right:0}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.6rem}}
@media print{body{margin:0;max-width:none}h2{break-after:avoid}tr,li{break-inside:avoid}}
</style></head><body><h1>Consent to the use of a voice</h1>
BODY
</body></html>
"""
