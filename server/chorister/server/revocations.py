"""The authority's list of revoked devices, signed: how a server that is apart from it hears."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSignature, UsageError
from chorister.shared.signing import SigningKey, VerifyKey

LABEL = "chorister/1 revoked devices"
_KINDS = {"federation": str, "issued_s": int, "devices": list, "signature": bytes}


@dataclass(frozen=True, slots=True)
class RevocationList:
    """Who may take part in nothing, at one moment.

    Attributes:
        federation: of the authority.
        issued_s: Unix time; a newer list replaces an older one.
        devices: pseudonyms, sorted.
        signature: by the authority, over the other fields.
    """

    federation: str
    issued_s: int
    devices: tuple[str, ...]
    signature: bytes

    @classmethod
    def sign(
        cls, key: SigningKey, federation: str, devices: Iterable[str], issued_s: int
    ) -> RevocationList:
        """Return a signed list."""
        unsigned = cls(federation, issued_s, tuple(sorted(devices)), b"")
        return replace(unsigned, signature=key.sign(LABEL, unsigned._body()))

    def check(self, authority: VerifyKey, federation: str) -> None:
        """Return if the authority signed this for the federation.

        Raises:
            BadSignature: it did not.
        """
        authority.verify(LABEL, self._body(), self.signature)
        if self.federation != federation:
            raise BadSignature(
                f"A list of revoked devices is of the federation '{federation}'.",
                f"one of '{self.federation}'",
                "Ask this federation's authority for its list.",
            )

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            {
                "federation": self.federation,
                "issued_s": self.issued_s,
                "devices": list(self.devices),
                "signature": self.signature,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> RevocationList:
        """Return the list in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        plain = codec.fields(codec.decode(data), _KINDS, "A list of revoked devices")
        if not all(isinstance(device, str) for device in plain["devices"]):
            raise BadMessage("A list of revoked devices names them.", "something else", "Drop it.")
        return cls(
            plain["federation"], plain["issued_s"], tuple(plain["devices"]), plain["signature"]
        )

    def _body(self) -> bytes:
        return codec.encode(
            {
                "federation": self.federation,
                "issued_s": self.issued_s,
                "devices": list(self.devices),
            }
        )


def read_revocations(path: Path, authority: VerifyKey, federation: str) -> frozenset[str]:
    """Return the revoked devices in the authority's file.

    Args:
        path: of the file, which the operator brings from the authority.
        authority: the pinned key.
        federation: the federation's name.

    Raises:
        UsageError: there is no such file: then no round begins.
        BadMessage, BadSignature: it is not the authority's list for this federation.
    """
    try:
        found = RevocationList.from_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(
            "The authority's list of revoked devices can be read.",
            f"{path}: {error.strerror}",
            "Ask the authority for it: chorister authority revoked --out FILE.",
        ) from None
    found.check(authority, federation)
    return frozenset(found.devices)
