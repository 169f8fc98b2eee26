"""`chorister authority`: who enrols devices, by a key that is on no server.

Its folder holds `authority-key.pem`, for its owner only, and `authority.json` with the federation
and the address of the books.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from chorister.server.authority import Authority
from chorister.server.key_file import create_signing_key, read_signing_key
from chorister.server.revocations import RevocationList
from chorister.shared.cli import run_action
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.enrolment import PossessionProof
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import SystemRandomness

SUMMARY = "enrol devices into a federation, by a key apart from its server"
GROUP = "chorister.authority"
KEY_FILE = "authority-key.pem"
SETTINGS_FILE = "authority.json"
_DAY_S = 86_400
_MAX_FEDERATION = 64


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    purpose = "The enrolment authority: it says which devices exist, and knows nobody's name."
    return run_action(GROUP, "chorister authority", purpose, argv)


def init(argv: Sequence[str]) -> int:
    """Make a new authority: its key, and its books in SQLite or PostgreSQL."""
    parser = action_parser("init", "Make the key that devices pin, and empty books.")
    parser.add_argument("--federation", required=True, metavar="NAME")
    parser.add_argument(
        "--database", metavar="URL",
        help="postgresql+psycopg://USER@HOST/NAME (default: SQLite in the folder)",
    )  # fmt: skip
    options = parse_action(parser, argv)
    folder: Path = options.folder
    if not 1 <= len(options.federation) <= _MAX_FEDERATION:
        raise UsageError(
            f"A federation's name has 1 to {_MAX_FEDERATION} characters.",
            f"{len(options.federation)}", "Choose another.",
        )  # fmt: skip
    if (folder / SETTINGS_FILE).exists() or (folder / KEY_FILE).exists():
        raise UsageError(
            "A new authority needs a folder of its own.",
            f"one in '{folder}' already",
            "Choose another --folder.",
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = create_signing_key(folder / KEY_FILE, SystemRandomness())
        url = options.database or f"sqlite:///{folder.resolve() / 'authority.db'}"
        authority = Authority(url, key, options.federation)
        settings = {"federation": options.federation, "database": url}
        # Last: without it there is no authority, and the command can be given again.
        write_atomically(folder / SETTINGS_FILE, json.dumps(settings, indent=1).encode())
    except OSError as error:
        raise UsageError(
            "The authority's folder can be written.", f"{folder}: {error.strerror}",
            "Choose another --folder.",
        ) from None  # fmt: skip
    except UsageError:
        (folder / KEY_FILE).unlink(missing_ok=True)  # it has signed nothing
        raise
    public = authority.verify_key.raw.hex()
    if options.json:
        print_json({"federation": options.federation, "public_key": public, "folder": str(folder)})
    say(f"Authority of '{options.federation}' in {folder}")
    say(f"Public key: {public}")
    say(f"Keep {KEY_FILE} off every server, and a copy of it in a safe place.")
    return 0


def token(argv: Sequence[str]) -> int:
    """Make a token that enrols one device, once."""
    parser = action_parser(
        "token", "Print a token, to be given to one speaker by a way you both trust."
    )
    parser.add_argument("--hours", type=float, default=24.0, metavar="H", help="good for (24)")
    options = parse_action(parser, argv)
    made = open_authority(options.folder).token(
        SystemRandomness(), system_clock(), life_s=int(options.hours * 3600)
    )
    if options.json:
        print_json({"token": made.to_text(), "expires_s": made.expires_s})
    say(made.to_text())
    return 0


def approve(argv: Sequence[str]) -> int:
    """Answer a device's request with a certificate, which uses its token up."""
    parser = action_parser(
        "approve",
        "Check that a request's device holds its key and has an open token, and certify it. The "
        "same request gives the same answer again, where a crash left none. "
        "Compare the pseudonym that is printed with the one that the device's owner sees.",
    )
    parser.add_argument("request", type=Path, metavar="REQUEST")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the certificate")
    parser.add_argument("--days", type=int, default=365, metavar="N", help="good for (365)")
    parser.add_argument(
        "--node", type=Path, metavar="FILE",
        help="write the admission of the device's connection, which the server registers",
    )  # fmt: skip
    options = parse_action(parser, argv)
    try:
        proof = PossessionProof.from_bytes(options.request.read_bytes())
    except OSError as error:
        raise UsageError(
            "The request can be read.", f"{options.request}: {error.strerror}", "Check the path."
        ) from None
    if options.node is not None and not proof.node_key:
        raise UsageError(
            "A request names the key of its device's connection.", "one without",
            "Request membership again on the device; the token is not used up.",
        )  # fmt: skip
    if options.node is not None and options.node.resolve() == options.out.resolve():
        raise UsageError(
            "Certificate and admission are two files.", f"{options.out} for both",
            "Choose another name for one; the token is not used up.",
        )  # fmt: skip
    authority = open_authority(options.folder)
    answered = authority.answered(proof)
    if answered is None:
        places = [path for path in (options.out, options.node) if path is not None]
        _check_places(dict.fromkeys(places), "the token is not used up")
        now_s = system_clock()
        certificate = authority.issue(proof, now_s=now_s, life_s=options.days * _DAY_S)
        issued_s = now_s
    else:
        certificate, issued_s = answered
    files = {options.out: certificate.to_bytes()}
    if options.node is not None:
        admission = authority.admit_node(certificate, proof.node_key, issued_s)
        files[options.node] = admission.to_bytes()
    answers_again = "the same request gets the same answer again"
    _check_places(files, answers_again)
    for path, data in files.items():
        write_out(path, data, otherwise=answers_again)
    again = answered is not None
    if options.json:
        print_json(
            {
                "device": certificate.device_id, "not_after_s": certificate.not_after_s,
                "again": again,
            }
        )  # fmt: skip
    if again:
        say("This request was answered before; this is the same answer again.")
    say(f"Device {certificate.device_id}, until {_day(certificate.not_after_s)}: {options.out}")
    if options.node is not None:
        say(f"For the server, which lets its connection in: {options.node}")
    return 0


def list_(argv: Sequence[str]) -> int:
    """List devices and open tokens."""
    options = parse_action(
        action_parser("list", "Devices by pseudonym, and how many tokens are open."), argv
    )
    authority, now_s = open_authority(options.folder), system_clock()
    devices = authority.devices()
    open_tokens = sum(t.used_s is None and t.expires_s >= now_s for t in authority.tokens())
    if options.json:
        print_json({"devices": [asdict(d) for d in devices], "open_tokens": open_tokens})
    for device in devices:
        state = f"until {_day(device.not_after_s)}"
        if device.revoked_s is not None:
            state = f"revoked on {_day(device.revoked_s)}"
        elif device.not_after_s < now_s:
            state = f"ended on {_day(device.not_after_s)}"
        say(f"{device.device_id}  {state}")
    say(f"{len(devices)} devices, {open_tokens} open tokens")
    return 0


def revoke(argv: Sequence[str]) -> int:
    """End a device's membership for good, and write the signed list for the server."""
    parser = action_parser(
        "revoke", "A revoked device is admitted to no round; it cannot come back."
    )
    parser.add_argument("device", metavar="DEVICE", help="its pseudonym")
    _add_list_file(parser)
    options = parse_action(parser, argv)
    authority = open_authority(options.folder)
    authority.revoke(options.device, now_s=system_clock())
    return _write_list(options, authority)


def revoked(argv: Sequence[str]) -> int:
    """Write the signed list of revoked devices, for the server."""
    parser = action_parser("revoked", "The list that a server asks before every round.")
    _add_list_file(parser)
    options = parse_action(parser, argv)
    return _write_list(options, open_authority(options.folder))


def _check_places(files: Mapping[Path, bytes | None], otherwise: str) -> None:
    """Return if each file can be made, or is there with the content that it is to have."""
    for path, data in files.items():
        if not path.parent.is_dir() or (path.exists() and not _holds(path, data)):
            raise UsageError(
                "Certificate and admission are written to new files in a folder that exists.",
                str(path), f"Choose another name; {otherwise}.",
            )  # fmt: skip


def _holds(path: Path, data: bytes | None) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:  # a folder, or not for this user
        return False


def write_out(path: Path, data: bytes, *, otherwise: str, mode: int = 0o644) -> None:
    """Write a file that the authority gives out.

    Args:
        path: where.
        data: the whole content.
        otherwise: what stands, and what to do, where it cannot be written.
        mode: permission bits.

    Raises:
        UsageError: it cannot be written there.
    """
    try:
        write_atomically(path, data, mode=mode)
    except OSError as error:
        raise UsageError(
            "--out names a file that can be written.", f"{path}: {error.strerror}",
            f"Choose another name; {otherwise}.",
        ) from None  # fmt: skip


def default_folder() -> Path:
    """Return where the authority lies unless a command says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "chorister" / "authority"


def open_authority(folder: Path) -> Authority:
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_bytes())
        federation, url = str(settings["federation"]), str(settings["database"])
    except FileNotFoundError:
        raise UsageError(
            "An authority is made by `chorister authority init`.", f"none in '{folder}'",
            "Make one, or name its --folder.",
        ) from None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{SETTINGS_FILE} names federation and database.", "something else",
            "Restore it from a backup.",
        ) from None  # fmt: skip
    return Authority(url, read_signing_key(folder / KEY_FILE), federation)


def _write_list(options: argparse.Namespace, authority: Authority) -> int:
    devices = authority.revoked()
    key = read_signing_key(options.folder / KEY_FILE)
    signed = RevocationList.sign(key, authority.federation, devices, system_clock())
    write_out(
        options.out, signed.to_bytes(),
        otherwise="the books are as they are to be: chorister authority revoked writes the list",
    )  # fmt: skip
    if options.json:
        print_json({"revoked": sorted(devices), "file": str(options.out)})
    say(f"{len(devices)} revoked; give the server {options.out}")
    return 0


def _add_list_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the signed list")


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")


def action_parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"chorister authority {action}", description=description)
    parser.add_argument(
        "--folder", type=Path, default=default_folder(), metavar="DIR",
        help="the authority's (default: ~/.local/share/chorister/authority)",
    )  # fmt: skip
    add_output_options(parser)
    return parser


def parse_action(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options
