"""`chorister consent show|renew|narrow|withdraw`: what a speaker does with a consent once given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from chorister.client import consent, home
from chorister.client.consent import PURPOSES, ConsentRecord, Purpose
from chorister.client.home import Home
from chorister.client.remains import read_remains
from chorister.client.sealed import VOICE_KIND, carry_over, exported, exported_from
from chorister.client.vault import WITHDRAWN_FILE, Vault, check_in_use, destroy, read_marker
from chorister.client.vault_key import KEY_FILE
from chorister.client.withdraw import withdraw_vault
from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    complain,
    print_json,
    say,
)
from chorister.shared.errors import ConsentRefused
from chorister.shared.privacy.ledger_file import system_clock

_DAY_S = 86_400
_RECEIPT = "receipt-withdrawal.json"


def show(argv: Sequence[str]) -> int:
    """Show what was allowed, to whom and until when, and which voice files there are."""
    options = _parse(
        _parser("show", "What this vault's speaker allowed; nothing is changed."), argv
    )
    folder = home.vault_folder(options)
    marker = read_marker(folder, WITHDRAWN_FILE)
    if marker is not None:
        return _show_withdrawn(options, folder, marker)
    mine = home.open_from(options)
    record = given(mine)
    now_s = mine.now_s()
    files = exported(mine)
    state = "valid" if record.given_s <= now_s < record.expires_s else "ended"
    if options.json:
        plain: dict[str, Any] = {
            "state": state,
            "consent": record.to_plain(),
            "sha256": record.sha256,
            "voices": [{"path": f.path, "plain": f.plain, "expires_s": f.expires_s} for f in files],
        }
        print_json(plain)
    say(f"Consent {record.sha256[:16]} of {record.subject}: {state}")
    say(f"  to         {record.controller}")
    say(f"  for        {', '.join(record.purposes)}")
    say(f"  given      {_day(record.given_s)}")
    say(f"  ends       {_day(record.expires_s)}")
    for made in files:
        say(f"  voice file {made.path} ({'plain, cannot be recalled' if made.plain else 'sealed'})")
    say("Withdraw it at any time: chorister consent withdraw")
    return 0


def renew(argv: Sequence[str]) -> int:
    """Let the consent end later, for the same purposes; its sealed voices go on with it."""
    parser = _parser("renew", "Sign the same consent again, with a later end.")
    parser.add_argument(
        "--days", type=int, default=365, metavar="N", help="how long from now (default 365)"
    )
    options = _parse(parser, argv)
    return _tell(renew_for(home.open_from(options), options.days), "renewed", options)


def narrow(argv: Sequence[str]) -> int:
    """Allow fewer purposes from now on."""
    parser = _parser("narrow", "Sign a consent to fewer purposes; the end stays.")
    parser.add_argument(
        "--purpose", required=True, metavar="P,P", help=f"what stays allowed: {', '.join(PURPOSES)}"
    )
    options = _parse(parser, argv)
    purposes = [part.strip() for part in options.purpose.split(",") if part.strip()]
    return _tell(narrow_to(home.open_from(options), purposes), "narrowed", options)


def withdraw(argv: Sequence[str]) -> int:
    """End the consent: destroy recordings, adapter, keys and voice files; leave a receipt."""
    parser = _parser(
        "withdraw",
        "Destroy what this vault holds and delete the voice files that it lists. Servers are told. "
        "It cannot be taken back; nobody asks for a reason.",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask whether it is meant")
    options = _parse(parser, argv)
    folder = home.vault_folder(options)
    if (folder / WITHDRAWN_FILE).exists() and not (folder / KEY_FILE).exists():
        destroy(folder)  # what an interrupted withdrawal left
        say(f"Withdrawn before. {folder / _RECEIPT}")
        return 0
    vault = home.open_vault_from(options)
    if not options.yes and not _is_meant(vault):
        say("Nothing was done.")
        return 1
    done = withdraw_vault(vault)
    if options.json:
        print_json(
            {
                "receipt": str(done.receipt),
                "items_destroyed": done.items,
                "files": [{"path": path, "outcome": outcome} for path, outcome in done.files],
                "notices": [str(path) for path in done.notices],
                "rounds": done.rounds,
                "unread": list(done.unread),
            }
        )
    say(f"Withdrawn. The vault's key and its {done.items} items are destroyed.")
    for path, outcome in done.files:
        say(f"  {path}: {outcome}")
    for notice in done.notices:
        say(f"  the server is told when it next asks this device, or by this file: {notice}")
    for what in done.unread:
        complain(f"{what}. The voice is destroyed all the same; the receipt says so.")
    rounds = f"{done.rounds} rounds" + (" that can still be read" if done.unread else "")
    say(f"Took part in {rounds}; the receipt says what that leaves and what bounds it.")
    say(f"Receipt: {done.receipt} and {done.receipt.with_suffix('.html').name}")
    return 0


def _show_withdrawn(options: argparse.Namespace, folder: Path, marker: dict[str, object]) -> int:
    at_s = marker.get("at_s")
    receipt = folder / _RECEIPT
    if options.json:
        print_json({"state": "withdrawn", "at_s": at_s, "receipt": str(receipt)})
    when = _day(at_s) if isinstance(at_s, int) else "an unknown time"
    say(f"Withdrawn on {when}.")
    if (folder / KEY_FILE).exists():
        say("It was interrupted: run `chorister consent withdraw` to finish it.")
    else:
        say(f"Receipt: {receipt}")
    return 0


def renew_for(mine: Home, days: int) -> Home:
    """Return the home whose consent ends so many days from now, for the same purposes.

    Raises:
        ConsentRefused: there is no consent, or it was withdrawn.
        UsageError: it would end no later than it does.
        VaultError: the vault was moved.
    """
    now_s = mine.now_s()
    record = consent.renew(given(mine), mine.key, given_s=now_s, expires_s=now_s + days * _DAY_S)
    return _keep(mine, record, "renewed")


def narrow_to(mine: Home, purposes: Sequence[str]) -> Home:
    """Return the home whose consent is for these purposes alone; its end stays.

    Raises:
        ConsentRefused: there is no consent, or it was withdrawn.
        UsageError: not fewer purposes than before, or one that it did not have.
        VaultError: the vault was moved.
    """
    wanted = cast("Sequence[Purpose]", purposes)
    record = consent.narrow(given(mine), mine.key, purposes=wanted, now_s=mine.now_s())
    return _keep(mine, record, "narrowed")


def _keep(mine: Home, record: ConsentRecord, action: str) -> Home:
    check_in_use(mine.folder)
    carry_over(mine)  # what an interrupted change before this one left
    kept = mine.keep_consent(record, action)
    carry_over(kept)
    return kept


def _tell(mine: Home, action: str, options: argparse.Namespace) -> int:
    record = given(mine)
    if options.json:
        print_json({"consent": record.to_plain(), "sha256": record.sha256, "action": action})
    say(
        f"Consent {action}: {', '.join(record.purposes)} until {_day(record.expires_s)} "
        f"({record.sha256[:16]})"
    )
    return 0


def given(mine: Home) -> ConsentRecord:
    """Return the consent that the speaker gave.

    Raises:
        ConsentRefused: none.
    """
    if mine.consent is None:
        raise ConsentRefused(
            "A vault has a consent once its speaker gave one.", "none", "Run `chorister enrol`."
        )
    return mine.consent


def _is_meant(vault: Vault) -> bool:
    remains = read_remains(vault, system_clock)
    complain(f"this destroys {len(remains.items)} items of {vault.folder}, and deletes:")
    for made in remains.contents(VOICE_KIND, exported_from, "a voice file that will not be found"):
        complain(f"  {made.path}")
    for what in remains.unread:
        complain(f"{what}; that keeps nothing alive")
    return home.ask_openly("Type 'withdraw' to go on: ").strip() == "withdraw"


def _day(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"  # somebody wrote another number into the file


def _parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"chorister consent {action}", description=description)
    home.add_vault_options(parser)
    add_output_options(parser)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options
