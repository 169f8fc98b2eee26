"""A server's folder as `chorister server init` makes it, and its authority, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chorister.server.init_cli import init
from chorister.server.server_folder import ServerFolder
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import Certificate, SigningKey, VerifyKey

LIFE_S = 2**31 - 1


@dataclass
class Office:
    """A server and the authority that it pinned."""

    folder: ServerFolder
    authority: SigningKey

    def admission(
        self,
        not_after_s: int = LIFE_S,
        federation: str = "choir",
        *,
        device: VerifyKey | None = None,
        issued_s: int = 1,
    ) -> NodeAdmission:
        """An admission of a new device, or again of one that is known."""
        device = device or SigningKey.generate(SystemRandomness()).verify_key()
        Certificate.issue(self.authority, device, federation, not_after_s)
        node = NodeKey.generate(SystemRandomness()).public_bytes()
        return NodeAdmission.sign(
            self.authority, federation, device.name, node,
            issued_s=issued_s, not_after_s=not_after_s,
        )  # fmt: skip


def an_office(root: Path, **options: object) -> Office:
    """A new server below a folder."""
    authority = SigningKey.generate(SystemRandomness())
    arguments = {
        "folder": root / "server", "federation": "choir", "host": "127.0.0.1",
        "authority": authority.verify_key().raw.hex(), **options,
    }  # fmt: skip
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    assert init([*words, "--quiet"]) == 0
    return Office(ServerFolder(root / "server"), authority)
