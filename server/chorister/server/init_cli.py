"""`chorister server init`: the folder of a new server, with keys, certificates and settings."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from typing import get_args

from chorister.server import tls
from chorister.server.installed import make_state
from chorister.server.key_file import create_signing_key, read_verify_key
from chorister.server.server_folder import ServerFolder, ServerSettings
from chorister.server.server_options import parse_server, server_parser
from chorister.server.settings_text import federation_text, server_text
from chorister.shared.bundle import BUNDLE_SHA256
from chorister.shared.console import print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Federation
from chorister.shared.voice.adapter_spec import SharedPlacement

EXAMPLES = """examples:
  chorister server init --federation choir --authority AUTHORITY_KEY --host choir.example.org
      AUTHORITY_KEY is what `chorister authority init` printed, or a file with it
  chorister server init --federation lab --authority KEY --host 192.168.1.20 --port 9092
      in a local network, by address
  chorister server init --renew-certificate --host choir.example.org
      a new certificate by the same TLS authority; devices notice nothing"""


def init(argv: Sequence[str]) -> int:
    """Make a new server: settings, its keys and TLS certificate, and an adapter to start from."""
    options, folder = _parse(argv)
    if options.renew_certificate:
        folder.server_settings()
        tls.make_server_certificate(folder.tls, options.host, system_clock())
        end = f"{tls.certificate_end(folder.tls):%Y-%m-%d}"
        say(f"New certificate for {', '.join(options.host)}, until {end}.")
        say("It is used from the next `chorister server start` on.")
        return 0
    if options.federation is None or options.authority is None:
        raise UsageError(
            "A new server is given --federation NAME and --authority KEY.", "one of them missing",
            "The key is what `chorister authority init` printed.",
        )  # fmt: skip
    if folder.root.exists() and any(folder.root.iterdir()):
        raise UsageError(
            "A new server needs a folder of its own.", f"something in '{folder.root}' already",
            "Choose another --folder, or start the server that is there.",
        )  # fmt: skip
    address = f"{_bracketed(options.host[0])}:{options.port}"
    authority = read_verify_key(options.authority).raw.hex()
    run = f"{options.federation[:40]}-{SystemRandomness().bytes(4).hex()}"
    server = server_text(
        authority=authority, run=run, rank=options.adapter_rank,
        placement=options.adapter_placement, listen_host=options.listen, port=options.port,
        local_port=options.local_port, page_port=options.page_port, address=address,
    )  # fmt: skip
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_settings(folder, options.federation, server)
        machine, settings = folder.server_settings(), folder.federation()
        signing = create_signing_key(folder.signing_key, SystemRandomness())
        now_s = system_clock()
        tls.make_certificate_authority(folder.tls, settings.name, now_s)
        tls.make_server_certificate(folder.tls, options.host, now_s)
        folder.members.mkdir(mode=0o700)
        make_state(folder, settings, machine.adapter_spec)
    except OSError as error:
        raise UsageError(
            "The server's folder can be written.", f"{folder.root}: {error.strerror}",
            "Choose another --folder.",
        ) from None  # fmt: skip
    public = signing.verify_key().raw.hex()
    if options.json:
        print_json(
            {
                "federation": settings.name, "folder": str(folder.root), "address": address,
                "server_key": public, "bundle": BUNDLE_SHA256,
                "root_certificate": str(folder.tls / tls.CA_FILE),
            }
        )  # fmt: skip
    say(f"Server of '{settings.name}' in {folder.root}; devices will dial {address}.")
    say(f"Settings to look through: {folder.federation_file} and {folder.server_file}")
    say(f"Its key, for `chorister audit verify --key`: {public}")
    say(f"For the authority's invitation: {folder.federation_file}, {folder.tls / tls.CA_FILE},")
    say(f"  adapter rank {machine.adapter_rank}, placement {machine.adapter_placement},")
    say(f"  bundle {BUNDLE_SHA256}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, ServerFolder]:
    parser = server_parser(
        "init", "Make the folder of a new server. Nothing of the enrolment authority is in it.",
        EXAMPLES,
    )  # fmt: skip
    add = parser.add_argument
    add("--federation", metavar="NAME", help="1 to 64 characters, as the authority has it")
    add("--authority", metavar="KEY", help="its public key, 64 hexadecimal digits or a file")
    add(
        "--host", action="append", required=True, metavar="NAME",
        help="name or address that devices dial; repeatable, the first is in invitations",
    )  # fmt: skip
    add("--port", type=int, default=9092, metavar="N", help="that devices dial (9092)")
    add("--listen", default="0.0.0.0", metavar="ADDRESS",  # noqa: S104 (it is a server)
        help="address to listen on (0.0.0.0: all)")  # fmt: skip
    add("--local-port", type=int, default=9093, metavar="N",
        help="of Flower's other APIs, on 127.0.0.1 (9093)")  # fmt: skip
    add("--page-port", type=int, default=9094, metavar="N",
        help="of page and metrics, on 127.0.0.1 (9094)")  # fmt: skip
    add("--adapter-rank", type=int, default=2, metavar="N", help="of the shared adapter (2)")
    add("--adapter-placement", choices=get_args(SharedPlacement), default="both",
        help="which envelopes the shared adapter shifts (both)")  # fmt: skip
    add("--renew-certificate", action="store_true", help="only make a new TLS certificate")
    return parse_server(parser, argv)


def _write_settings(folder: ServerFolder, federation: str, server: str) -> None:
    """Write both files once they are known to be valid."""
    text = federation_text(federation)
    Federation.parse(tomllib.loads(text), "federation.toml")
    ServerSettings.parse(tomllib.loads(server), "server.toml")
    for path, content in ((folder.federation_file, text), (folder.server_file, server)):
        write_atomically(path, content.encode(), mode=0o644)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
