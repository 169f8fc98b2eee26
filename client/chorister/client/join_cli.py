"""`chorister join`: agree to an invitation, and take part from then on."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chorister.client import home
from chorister.client.daemon import is_paused, pause
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import BadSignature, UsageError
from chorister.shared.files import write_atomically
from chorister.shared.signing import Certificate

# Torch, Opacus and Flower are loaded where a device takes part: the rest answers at once.
if TYPE_CHECKING:
    from chorister.client.agreement import Agreement, OwnerLimits
    from chorister.client.conditions import JoinSettings
    from chorister.client.home import Home
    from chorister.shared.invite import Invite

SUMMARY = "join a federation by its invitation, and take part on this machine"
SETTINGS_FILE = "join.toml"
_YES = "yes"
_EXAMPLES = """examples:
  chorister join --invite invitation                  see what is asked, agree, get a request
  chorister join --certificate certificate            keep the authority's answer, and take part
  chorister join                                      take part again, until Ctrl-C
  chorister join --hours 22:00-07:00 --threads 2      at night, on two cores
  chorister join --any-power --even-if-busy           whenever the server asks
  chorister join --pause        chorister join --resume
  chorister join --install-unit                       as a service of your own (systemd)

A device trains only on mains power, while nobody uses it, in the hours that you set. The same
settings may stand in the vault's folder, in join.toml (on_mains, idle, busy_share, hours, device,
threads, memory_gib, niceness). It runs the installed program and nothing that a server sends."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(argv)
    apply_output_options(options)
    folder = home.vault_folder(options)
    if options.pause or options.resume:
        return _pause(folder, paused=options.pause)
    if options.install_unit or options.remove_unit:
        from chorister.client.join_unit import install_unit, remove_unit

        return remove_unit() if options.remove_unit else install_unit(folder, options)
    settings = read_settings(folder, options)
    if options.invite:
        ready = _agree(options)
        if ready is None:
            return 0
        federation: str | None = ready
    elif options.certificate:
        federation = _accept(options)
    else:
        federation = options.federation
    return _take_part(options, settings, federation)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister join", description="Join a federation, and take part in its rounds.",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--invite", metavar="FILE|URL", help="the invitation that you were given")
    what.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the authority's answer to your request"
    )
    what.add_argument("--pause", action="store_true", help="take part no more until --resume")
    what.add_argument("--resume", action="store_true", help="take part again")
    what.add_argument(
        "--install-unit", action="store_true",
        help="write and start a systemd user unit that runs `chorister join` with these options",
    )  # fmt: skip
    what.add_argument("--remove-unit", action="store_true", help="stop and remove that unit")
    add("--federation", metavar="NAME", help="which, where this vault joined several")
    add("--yes", action="store_true", help="agree without being asked, having read it before")
    add(
        "--authority", metavar="NAME",
        help="refuse an invitation of any other authority than the one of this name",
    )  # fmt: skip
    add("--request", type=Path, metavar="FILE", help="where the request is written (./request)")
    limits = parser.add_argument_group("your own limits, beyond what the invitation promises")
    limits.add_argument("--least-cohort", type=int, metavar="N", help="fewest devices in a round")
    limits.add_argument("--least-noise", type=float, metavar="Z", help="speaker-level noise")
    limits.add_argument(
        "--speaker-epsilon", type=float, metavar="E", help="most that all you give may cost"
    )
    limits.add_argument(
        "--segment-epsilon", type=float, metavar="E", help="most that one segment may cost"
    )
    when = parser.add_argument_group("when and how it trains")
    when.add_argument("--any-power", action="store_true", help="on its battery too")
    when.add_argument("--even-if-busy", action="store_true", help="while the machine is used too")
    when.add_argument("--hours", metavar="HH:MM-HH:MM", help="in these hours only (local time)")
    when.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="to compute on")
    when.add_argument("--threads", type=int, metavar="N", help="of the training (half the cores)")
    when.add_argument("--memory", type=float, metavar="GIB", help="most memory for its data")
    when.add_argument(
        "--for", dest="for_s", type=float, metavar="S", help="end by itself after S seconds"
    )
    home.add_vault_options(parser)
    add_output_options(parser)
    return parser


def read_settings(folder: Path, options: argparse.Namespace) -> JoinSettings:
    """Return how this device takes part: the vault's join.toml, and options that come before it.

    Raises:
        BadSettings: a value out of range, or an unknown key.
    """
    from chorister.client.conditions import JoinSettings
    from chorister.shared.settings import read_toml

    path = folder / SETTINGS_FILE
    values = read_toml(path) if path.exists() else {}
    given = {
        "on_mains": False if options.any_power else None,
        "idle": False if options.even_if_busy else None,
        "hours": options.hours,
        "device": options.device,
        "threads": options.threads,
        "memory_gib": options.memory,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    return JoinSettings.parse(values, str(path) if path.exists() else "the command line")


def _agree(options: argparse.Namespace) -> str | None:
    """Show an invitation, ask, keep it; return the federation if this device is its member now."""
    from chorister.client.agreement import Agreement, agree, agreements, check_base
    from chorister.client.installed import load_material
    from chorister.client.invitations import read_invite
    from chorister.client.join_words import invitation_text
    from chorister.client.membership import membership

    invite = read_invite(options.invite)
    mine = home.open_from(options)
    invite.check(mine.now_s())
    _check_authority(invite, options.authority)
    check_base(invite)
    mine.permit("training")
    segments = len(load_material(mine).segments)
    limits = _limits(options)
    others = [a.federation for a in agreements(mine) if a.federation != invite.federation]
    say(invitation_text(Agreement(invite, limits), mine.consent, segments, others))
    if not options.yes:
        if options.json or options.quiet:
            raise UsageError(
                "Somebody reads what is asked before it is agreed to.", "--json or --quiet",
                "Read it without them, then add --yes.",
            )  # fmt: skip
        say("")
        answer = home.ask_openly(f"Type {_YES} to join '{invite.federation}': ")
        if answer.strip().lower() != _YES:
            say("Nothing was agreed to, and nothing was stored.")
            return None
    agree(mine, invite, limits)
    member = membership(mine, invite.federation)
    if member is not None and member.certificate is not None:
        say(f"Agreed; this device is a member of '{invite.federation}' already.")
        return invite.federation
    _request(options, mine, invite)
    return None


def _request(options: argparse.Namespace, mine: Home, invite: Invite) -> None:
    from chorister.client.membership import request_membership

    if invite.token is None:
        say("")
        say("Agreed. The invitation holds no token for you: ask the authority for one, then")
        say("  chorister membership request TOKEN --out request")
        if options.json:
            print_json({"federation": invite.federation, "request": None})
        return
    path = options.request or Path("request")
    if path.exists():
        raise UsageError(
            "The request is written to a new file.", str(path), "Choose another: --request FILE."
        )
    try:
        write_atomically(path, request_membership(mine, invite.token).to_bytes(), mode=0o644)
    except OSError as error:
        raise UsageError(
            "The request can be written.", f"{path}: {error.strerror}", "Choose another --request."
        ) from None
    if options.json:
        print_json(
            {
                "federation": invite.federation, "device": mine.device.name,
                "authority": invite.authority.name, "request": str(path),
            }
        )  # fmt: skip
    say("")
    say(f"Agreed. This device is {mine.device.name} in '{invite.federation}'.")
    say(f"Send {path} to the authority, and read that name out to it. When its answer is here:")
    say("  chorister join --certificate FILE")


def _accept(options: argparse.Namespace) -> str:
    from chorister.client.membership import accept_certificate

    try:
        certificate = Certificate.from_bytes(options.certificate.read_bytes())
    except OSError as error:
        raise UsageError(
            "The certificate can be read.", f"{options.certificate}: {error.strerror}",
            "Check the path.",
        ) from None  # fmt: skip
    joined = accept_certificate(home.open_from(options), certificate)
    say(f"Member of '{joined.federation}'.")
    return joined.federation


def _take_part(options: argparse.Namespace, settings: JoinSettings, federation: str | None) -> int:
    from chorister.client.agreement import agreements

    mine = home.open_from(options)
    agreed = _choose(agreements(mine), federation)
    _prepare_environment(settings)
    from chorister.client.take_part import take_part

    why = take_part(mine, agreed, settings, for_s=options.for_s)
    if options.json:
        print_json({"federation": agreed.federation, "ended": why})
    say(f"Ended{': ' + why if why else ''}.")
    return 0


def _prepare_environment(settings: JoinSettings) -> None:
    """Set what libraries read when they are first loaded."""
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads or ""))
    if not os.environ["OMP_NUM_THREADS"]:
        del os.environ["OMP_NUM_THREADS"]
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    for noisy in ("flwr", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _choose(found: tuple[Agreement, ...], federation: str | None) -> Agreement:
    chosen = [a for a in found if federation in (None, a.federation)]
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise UsageError(
            "A device takes part in a federation that its owner agreed to.",
            f"no agreement with '{federation}'" if federation else "none in this vault",
            "Run: chorister join --invite FILE",
        )
    names = ", ".join(f"'{a.federation}'" for a in chosen)
    raise UsageError("One federation is named where there are several.", names, "--federation NAME")


def _check_authority(invite: Invite, wanted: str | None) -> None:
    if wanted is not None and wanted not in (invite.authority.name, invite.authority.raw.hex()):
        raise BadSignature(
            f"The invitation is of the authority {wanted}.", invite.authority.name,
            "Ask whoever invited you; nothing was agreed to.",
        )  # fmt: skip


def _limits(options: argparse.Namespace) -> OwnerLimits:
    from chorister.client.agreement import OwnerLimits

    given = {
        "least_cohort": options.least_cohort,
        "least_noise_multiplier": options.least_noise,
        "speaker_epsilon_max": options.speaker_epsilon,
        "segment_epsilon_max": options.segment_epsilon,
    }
    values = {name: value for name, value in given.items() if value is not None}
    return OwnerLimits.parse(values, "the command line")


def _pause(folder: Path, *, paused: bool) -> int:
    if not home.exists(folder):
        raise UsageError("There is a vault to pause.", f"none in '{folder}'", "Name its --vault.")
    changed = pause(folder, paused=paused)
    state = "paused until `chorister join --resume`" if is_paused(folder) else "not paused"
    say(f"This device is {state}{'' if changed else ', as before'}.")
    return 0
