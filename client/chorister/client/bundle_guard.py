"""Which bundles a server may name: known ones without code, by their digest and nothing else.

A Flower SuperNode unpacks whatever bundle its server ships, reads its configuration, puts it first
on the path and imports what it names. Here nobody unpacks any: a digest is compared, and the app
that runs is the installed one, whatever a bundle says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from chorister.shared.errors import ProtocolViolation

MAX_BUNDLE_BYTES = 64 * 2**10  # ours has less than one; whoever sends more sends something else


class BadBundle(ProtocolViolation):
    """A bundle that this device does not know; nothing of it was unpacked, imported or run."""


@dataclass(frozen=True, slots=True)
class BundleGuard:
    """Compares digests.

    Attributes:
        allowed: SHA-256 of the bundles in the invitation, which the authority signed.
    """

    allowed: Collection[str]

    def check_name(self, named: str) -> None:
        """Return if the digest that a server names for a run is allowed.

        Raises:
            BadBundle: it is not.
        """
        if named not in self.allowed:
            raise BadBundle(
                "A server names a bundle without code that the invitation lists.",
                f"one with digest {named[:64]!r}",
                "Nothing of it was fetched or run. Ask the operator why it is sent; a new version "
                "of Chorister comes with a new invitation.",
            )

    def check(self, named: str, content: bytes) -> None:
        """Return if a bundle is the allowed one that was named; its bytes are hashed, not read.

        Raises:
            BadBundle: another digest, or too large to be one.
        """
        self.check_name(named)
        found = hashlib.sha256(content).hexdigest()
        if len(content) > MAX_BUNDLE_BYTES or found != named:
            raise BadBundle(
                f"The bundle of a run has the digest that is named, {named[:12]}.",
                f"{len(content)} bytes with digest {found}",
                "Nothing of it was unpacked or run. Ask the operator why it is sent.",
            )
