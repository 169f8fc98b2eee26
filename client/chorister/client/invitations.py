"""Reading an invitation from a file or an address on the web, whatever is found there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from chorister.shared.errors import UsageError
from chorister.shared.invite import MAX_INVITE_BYTES, Invite

CONNECT_S = 10.0
WHOLE_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SCHEMES = ("https", "http")


def read_invite(source: str) -> Invite:
    """Return the invitation in a file or at an address; nothing is verified yet.

    Args:
        source: a path, or an address that begins with https://.

    Raises:
        UsageError: it cannot be read or fetched.
        BadMessage: it is no invitation, or of a newer version.
    """
    if urlsplit(source).scheme in _SCHEMES:
        return Invite.from_bytes(fetch(source))
    try:
        with Path(source).open("rb") as file:
            return Invite.from_bytes(file.read(MAX_INVITE_BYTES + 1))
    except OSError as error:
        raise UsageError(
            "The invitation can be read.", f"{source}: {error.strerror}",
            "Check the path, or give an address that begins with https://.",
        ) from None  # fmt: skip


def fetch(
    address: str, *, whole_s: float = WHOLE_S, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return what an address answers with, at most as much as an invitation may hold.

    No redirect is followed: whoever invited gave this address and no other. What comes back is
    signed, so TLS here protects who asks for it, and a token in it.

    Args:
        address: https; http only on this very machine.
        whole_s: how long all of it may take.
        clock: monotonic.

    Raises:
        UsageError: another scheme, no answer in time, another status, or too much.
    """
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            "An invitation is fetched over https.", f"{parts.scheme}://",
            "Ask for an address that begins with https://, or for the file.",
        )  # fmt: skip
    until, found = clock() + whole_s, bytearray()
    try:
        with httpx.stream(
            "GET", address, follow_redirects=False, timeout=CONNECT_S,
            headers={"accept-encoding": "identity"},
        ) as answer:  # fmt: skip
            if answer.status_code != httpx.codes.OK:
                raise _not_fetched(f"status {answer.status_code}")
            for chunk in answer.iter_raw():
                found += chunk
                if len(found) > MAX_INVITE_BYTES:
                    raise _not_fetched(f"more than {MAX_INVITE_BYTES} bytes")
                if clock() > until:
                    raise _not_fetched(f"no end after {whole_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = str(error).replace("\n", " ")[:120]
        raise _not_fetched(f"{type(error).__name__}: {reason}") from None
    return bytes(found)


def _not_fetched(found: str) -> UsageError:
    return UsageError(
        "An invitation's address answers with the invitation, within seconds.", found,
        "Check the address with whoever invited you, or ask for the file.",
    )  # fmt: skip
