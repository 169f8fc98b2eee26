"""`chorister ui`: a page for this laptop alone, to enrol, listen, look and withdraw."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from chorister.client.home import add_vault_options, named_file, read_passphrase, vault_folder
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import UsageError
from chorister.shared.randomness import SystemRandomness

SUMMARY = "open a page on this laptop: enrol by microphone, listen, see the budget, withdraw"
_EXAMPLES = """examples:
  chorister ui
  chorister ui --vault DIR --no-browser          shows the link, opens no browser
  chorister ui --voice anna/voice.onnx           with further voices to listen to

The page is served at 127.0.0.1 and to this machine alone. The link that is shown lets one browser
in, once; then the next one is shown. The vault's passphrase is typed on the page, and the vault is
locked when the page was not used for a while. Ctrl-C ends it."""
_LONGEST_IDLE_MINUTES = 24 * 60.0


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    apply_output_options(options)
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UsageError(
            "The page is served by starlette and uvicorn.",
            "one of them is not installed",
            "pip install 'chorister[ui]'.",
        )
    from chorister.client.enrolment_checks import EnrolmentPolicy
    from chorister.client.web.guard import Sessions
    from chorister.client.web.serve import bind, serve
    from chorister.client.web.sounds import remove_leftovers
    from chorister.client.web.studio import Place, Studio

    folder = vault_folder(options)
    place = Place(
        folder=folder,
        voices=options.voices or folder.parent / "voices",
        files=tuple(options.voice),
        policy=EnrolmentPolicy()
        if options.policy is None
        else EnrolmentPolicy.load(options.policy),
        recogniser=options.recogniser,
        base=options.base,
        keyring=options.keyring,
        idle_s=options.idle_minutes * 60.0,
    )
    listening = bind(options.port)
    remove_leftovers()
    studio = Studio(place)
    passphrase = read_passphrase(named_file(options))
    if passphrase is not None and studio.state() == "locked":
        studio.open(passphrase)
    first = True

    def show(link: str) -> None:
        nonlocal first
        if options.json:
            print_json({"link": link})
        elif first:
            say(f"Open this link; it works once:\n\n    {link}\n\nCtrl-C ends the page.")
        else:
            say(f"Opened. Another window or browser: {link}")
        if first and not options.no_browser:
            webbrowser.open(link)
        first = False

    serve(studio, Sessions(SystemRandomness()), listening, show)
    say("The page has ended; the vault is locked.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chorister ui",
        description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="port (default: a free one)"
    )
    parser.add_argument("--no-browser", action="store_true", help="show the link, and open nothing")
    parser.add_argument(
        "--voices", type=Path, metavar="DIR",
        help="where new voice files go (default: voices/ beside the vault)",
    )  # fmt: skip
    parser.add_argument(
        "--voice", type=Path, action="append", default=[], metavar="FILE",
        help="a further voice file to listen to; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--idle-minutes", type=_minutes, default=15.0, metavar="M",
        help="lock the vault after so long without use (default 15)",
    )  # fmt: skip
    parser.add_argument("--recogniser", metavar="R", help="as of `chorister enrol`")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="limits of the checks (TOML)")
    parser.add_argument("--base", type=Path, metavar="FILE", help="another base model's weights")
    add_vault_options(parser, creates=True)
    add_output_options(parser)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return int(text)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0.0 < minutes <= _LONGEST_IDLE_MINUTES:
        raise argparse.ArgumentTypeError(f"more than 0 and at most {_LONGEST_IDLE_MINUTES:g}")
    return minutes
