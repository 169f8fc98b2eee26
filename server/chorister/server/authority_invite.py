"""`chorister authority invite`: the signed file with which a device joins."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from chorister.server.authority_cli import action_parser, open_authority, parse_action, write_out
from chorister.shared.bundle import BUNDLE_SHA256
from chorister.shared.console import print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.invite import Invite
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Federation, read_toml
from chorister.shared.voice.adapter_spec import SharedAdapterSpec, SharedPlacement
from chorister.shared.voice.base_digest import BASE_SHA256

_DAY_S = 86_400
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TABLE = "federation"


def invite(argv: Sequence[str]) -> int:
    """Sign an invitation: server, model and all that a device will be asked."""
    parser = action_parser(
        "invite",
        "Sign what a device has to know to join. With --token it is for one speaker, and secret; "
        "without, everybody may have it, and needs a token beside it.",
    )
    _add_options(parser)
    options = parse_action(parser, argv)
    authority, now_s = open_authority(options.folder), system_clock()
    if options.days < 1 or options.out.exists() or not options.out.parent.is_dir():
        raise UsageError(
            "An invitation lasts a day or more, and is written to a new file.",
            f"{options.days} days, {options.out}", "Correct --days or --out.",
        )  # fmt: skip
    terms = read_terms(options.settings)
    spec = SharedAdapterSpec(options.adapter_rank, options.adapter_placement)
    expires_s = now_s + options.days * _DAY_S
    unsigned = Invite(
        federation=terms.name,
        authority=authority.verify_key,
        server=options.server,
        root_certificate=_read(options.root_certificate).decode("ascii", errors="replace")
        if options.root_certificate
        else "",
        release=authority.release(options.base, spec, now_s),
        bundles=tuple(_digest(name) for name in options.bundle or (BUNDLE_SHA256,)),
        least_cohort=options.least_cohort,
        least_honest=options.least_honest,
        terms=terms,
        issued_s=now_s,
        expires_s=expires_s,
        token=None,
    )
    signed = authority.invite(unsigned)
    if options.token:  # only once all the rest is known to be good: it is in the books then
        token = authority.token(SystemRandomness(), now_s, life_s=expires_s - now_s)
        signed = authority.invite(replace(unsigned, token=token))
    write_out(
        options.out, signed.to_bytes(), otherwise="an open token of it ends with its days",
        mode=0o600 if options.token else 0o644,
    )  # fmt: skip
    if options.json:
        print_json(
            {
                "federation": terms.name, "authority": signed.authority.raw.hex(),
                "server": signed.server, "expires_s": expires_s, "token": options.token,
                "file": str(options.out),
            }
        )  # fmt: skip
    say(f"Invitation to '{terms.name}' at {signed.server}, for {options.days} days: {options.out}")
    say(f"Whoever gets it compares the authority's name with you: {signed.authority.name}")
    return 0


def read_terms(path: Path) -> Federation:
    """Return a federation's settings: a TOML file of them, or one with a table of them.

    Raises:
        BadSettings: it cannot be read, or holds something else.
    """
    values = read_toml(path)
    table = values.get(_TABLE)
    return Federation.parse(table if isinstance(table, dict) else values, str(path))


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", help="of the server's Fleet API")
    add(
        "--root-certificate", type=Path, metavar="PEM",
        help="what signed the server's TLS certificate; only a server on this machine, for a "
        "test, may do without",
    )  # fmt: skip
    add(
        "--settings", type=Path, required=True, metavar="TOML",
        help="the federation's settings: rounds, training, privacy, limits",
    )  # fmt: skip
    add(
        "--bundle", action="append", metavar="FAB",
        help="a bundle that the server may name, as a file or by its SHA-256; may be repeated "
        "(default: the code-free one of this version)",
    )  # fmt: skip
    add("--base", default=BASE_SHA256, metavar="SHA256", help="of the base model (the shipped one)")
    add("--adapter-rank", type=int, default=2, metavar="N", help="of the shared adapter (2)")
    add("--adapter-placement", choices=get_args(SharedPlacement), default="both",
        help="which envelopes the shared adapter shifts (both)")  # fmt: skip
    add("--least-cohort", type=int, default=2, metavar="N", help="fewest devices in a round (2)")
    add("--least-honest", type=int, default=2, metavar="N",
        help="fewest honest devices that a sum covers (2)")  # fmt: skip
    add("--days", type=int, default=14, metavar="N", help="good for (14)")
    add("--token", action="store_true", help="for one speaker: with a token that enrols one device")
    add("--out", type=Path, required=True, metavar="FILE", help="the invitation")


def _digest(name: str) -> str:
    """Return a bundle's digest: of the file of that name, or the digits themselves."""
    return name if _DIGEST.fullmatch(name) else hashlib.sha256(_read(Path(name))).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            "The file can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None
