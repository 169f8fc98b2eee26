"""`chorister server status`, `dashboard`, `admit`, `quality` and `bundle`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chorister.server.members import admit as admit_device
from chorister.server.members import take_revocations
from chorister.server.quality import note_quality
from chorister.server.server_options import parse_server, server_parser
from chorister.server.snapshot import Snapshot, take_snapshot
from chorister.shared.bundle import BUNDLE_SHA256, make_bundle
from chorister.shared.console import print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock

WATCH_S = 2.0
SHOWN = 10
MAX_FILE_BYTES = 2**20


def status(argv: Sequence[str]) -> int:
    """Show rounds, devices, budget left and adapter versions."""
    parser = server_parser(
        "status", "How the federation stands; nothing in it is about one person."
    )
    parser.add_argument("--watch", action="store_true", help="again every 2 s, until Ctrl-C")
    parser.add_argument(
        "--running", action="store_true", help="exit status 1 if the server is not running"
    )
    options, folder = parse_server(parser, argv)
    while True:
        found = take_snapshot(folder)
        if options.json:
            print_json(found.to_plain())
        if options.watch and not options.json:
            say("\x1b[2J\x1b[H")
        _print(found)
        if not options.watch:
            return 1 if options.running and not found.running else 0
        time.sleep(WATCH_S)


def dashboard(argv: Sequence[str]) -> int:
    """Serve the page and metrics of a server that is not running; a running one serves its own."""
    parser = server_parser("dashboard", "Serve the read-only page on 127.0.0.1 until Ctrl-C.")
    parser.add_argument("--port", type=int, metavar="N", help="(default: as server.toml says)")
    options, folder = parse_server(parser, argv)
    machine = folder.server_settings()
    from chorister.server.page_server import PageServer

    port = options.port or machine.page_port
    say(f"Page: http://127.0.0.1:{port}/")
    PageServer(folder, port).serve_here()
    return 0


def admit(argv: Sequence[str]) -> int:
    """Let devices in that the authority approved, and shut out those that it revoked."""
    parser = server_parser(
        "admit",
        "Take in what the enrolment authority signed. A running server follows within seconds.",
        "examples:\n"
        "  chorister server admit device.node          from chorister authority approve --node\n"
        "  chorister server admit --revoked list.bin   from chorister authority revoke --out",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="ADMISSION")
    parser.add_argument("--revoked", type=Path, metavar="FILE", help="list of revoked devices")
    options, folder = parse_server(parser, argv)
    machine, settings = folder.server_settings(), folder.federation()
    if not options.files and options.revoked is None:
        raise UsageError("Something is taken in.", "no file", "Name an admission, or --revoked.")
    devices, revoked = [], None
    if options.revoked is not None:
        found = take_revocations(
            folder, _read(options.revoked), machine.authority_key, settings.name
        )
        revoked = len(found.devices)
        say(f"{revoked} devices are revoked.")
    for path in options.files:
        admission = admit_device(folder, _read(path), settings.name, system_clock())
        devices.append(admission.device_id)
        say(f"Device {admission.device_id} may connect until {_day(admission.not_after_s)}.")
    if options.json:
        print_json({"admitted": devices, "revoked": revoked})
    return 0


def quality(argv: Sequence[str]) -> int:
    """Note a figure that was measured of a shared adapter on held-out speech."""
    parser = server_parser(
        "quality", "A server has no speech: what it shows was measured elsewhere and noted here."
    )
    parser.add_argument("adapter", metavar="DIGEST", help="of the version, 8 digits or more")
    parser.add_argument("name", metavar="NAME", help="of the figure, with its unit")
    parser.add_argument("value", type=float, metavar="VALUE")
    options, folder = parse_server(parser, argv)
    folder.server_settings()
    digest = note_quality(folder, options.adapter, options.name, options.value, system_clock())
    if options.json:
        print_json({"adapter": digest, "name": options.name, "value": options.value})
    say(f"{options.name} = {options.value:g} for adapter {digest[:16]}")
    return 0


def bundle(argv: Sequence[str]) -> int:
    """Print the digest of the code-free bundle, and write it for whoever wants to look inside."""
    parser = server_parser("bundle", "The one bundle that devices accept; it holds no code.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it (a ZIP archive)")
    options, _ = parse_server(parser, argv)
    if options.out is not None:
        try:
            write_atomically(options.out, make_bundle(), mode=0o644)
        except OSError as error:
            raise UsageError(
                "The bundle is written to a file in a folder that exists.",
                f"{options.out}: {error.strerror or error}",
                "Name another file, or create the folder.",
            ) from error
    if options.json:
        print_json({"sha256": BUNDLE_SHA256})
    say(BUNDLE_SHA256)
    return 0


def _print(found: Snapshot) -> None:
    state = "running" if found.running else "not running"
    say(f"Federation '{found.settings.name}', server {state}")
    if found.online is not None:
        say(f"  devices   {found.online} connected, {found.members} admitted")
    say(f"  rounds    {found.finished} finished of {len(found.rounds)}, until {found.plan.target}")
    if found.holds_up:
        say(f"  waiting   {found.holds_up}")
    if found.settings.private:
        privacy = found.settings.speaker_privacy
        say(
            f"  budget    epsilon {found.epsilon_left:.2f} left of {privacy.epsilon_max:g} "
            f"at delta {privacy.delta_dp:g}, most charged of {found.charged} speakers"
        )
    say(f"  TLS       certificate for {found.certificate_days} more days")
    newest = found.versions[-1].sha256[:16] if found.versions else "none"
    say(f"  adapter   version {len(found.versions) - 1}, {newest}")
    for measured in found.quality[-1:]:
        say(f"  quality   {measured.name}: {measured.value:g} of {measured.adapter[:16]}")
    for reason, count in found.refusals.items():
        say(f"  refused   {reason}: {count}")
    for reason, count in found.unfit.items():
        say(f"  unfit     {count} admissions: {reason} (running.json names them)")
    if found.rounds:
        say("  round  outcome   asked  in the sum  seconds")
    for record in found.rounds[-SHOWN:]:
        say(
            f"  {record.round:>5}  {record.status:<8}  {record.cohort:>5}  {record.survivors:>10}"
            f"  {record.seconds:>7.0f}{'  ' + record.reason if record.reason else ''}"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise UsageError(
            "The authority's file can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
