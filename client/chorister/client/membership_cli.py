"""`chorister membership`: this device's place in federations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chorister.client import home
from chorister.client.membership import accept_certificate, memberships, request_membership
from chorister.shared.cli import run_action
from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.enrolment import EnrolmentToken
from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically
from chorister.shared.signing import Certificate

SUMMARY = "ask a federation's authority for this device's certificate"
GROUP = "chorister.membership"


def main(argv: Sequence[str]) -> int:
    """Run one action and return its exit status."""
    purpose = "This device's place in federations; it is known there by a pseudonym."
    return run_action(GROUP, "chorister membership", purpose, argv)


def request(argv: Sequence[str]) -> int:
    """Answer an authority's token: pin its key, and write a request for it."""
    parser = _parser("request", "Prove to a federation's authority that this device holds its key.")
    parser.add_argument("token", metavar="TOKEN", help="the line that the authority gave you")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the request")
    options = _parse(parser, argv)
    token = EnrolmentToken.from_text(options.token)
    mine = home.open_from(options)
    proof = request_membership(mine, token)
    try:
        write_atomically(options.out, proof.to_bytes(), mode=0o644)
    except OSError as error:
        raise UsageError(
            "The request can be written.", f"{options.out}: {error.strerror}", "Choose another."
        ) from None
    pseudonym, authority = mine.device.name, token.authority.name
    if options.json:
        print_json(
            {"device": pseudonym, "federation": token.federation, "authority": authority}
        )  # fmt: skip
    say(f"This device is {pseudonym} in '{token.federation}', whose authority is {authority}.")
    say(f"Send {options.out} to the authority, and read the pseudonym out to it.")
    return 0


def accept(argv: Sequence[str]) -> int:
    """Keep the certificate that the authority answered with."""
    parser = _parser("accept", "Check a certificate against the pinned authority, and keep it.")
    parser.add_argument("certificate", type=Path, metavar="CERTIFICATE")
    options = _parse(parser, argv)
    try:
        data = options.certificate.read_bytes()
    except OSError as error:
        raise UsageError(
            "The certificate can be read.", f"{options.certificate}: {error.strerror}",
            "Check the path.",
        ) from None  # fmt: skip
    certificate = Certificate.from_bytes(data)
    joined = accept_certificate(home.open_from(options), certificate)
    if options.json:
        print_json({"federation": joined.federation, "not_after_s": certificate.not_after_s})
    say(f"Member of '{joined.federation}' until {_day(certificate.not_after_s)}.")
    return 0


def show(argv: Sequence[str]) -> int:
    """List the federations that this device asked to join."""
    options = _parse(_parser("show", "Federations, their authorities, certificates."), argv)
    mine = home.open_from(options)
    found = memberships(mine)
    if options.json:
        print_json(
            {
                "device": mine.device.name,
                "federations": [
                    {
                        "name": each.federation,
                        "authority": each.authority.raw.hex(),
                        "not_after_s": each.certificate and each.certificate.not_after_s,
                    }
                    for each in found
                ],
            }
        )
    say(f"This device is {mine.device.name}.")
    for each in found:
        state = "not approved yet"
        if each.certificate is not None:
            state = f"until {_day(each.certificate.not_after_s)}"
        say(f"  {each.federation}: {state}; authority {each.authority.name}")
    return 0


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")


def _parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"chorister membership {action}", description=description)
    home.add_vault_options(parser)
    add_output_options(parser)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_args(argv)
    apply_output_options(options)
    return options
