"""What a server says of itself in its ledger whenever it starts: settings, software, randomness."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import chorister
from chorister.server.operator import Operator
from chorister.shared.voice.base_digest import BASE_SHA256

STATEMENT = "statement"
"""The field of a note that holds it."""


def state_terms(operator: Operator) -> None:
    """Put the settings that this server runs by into its ledger, for reports and for devices."""
    operator.ledger.append(
        "note",
        statement={
            "settings": operator.settings.model_dump(mode="json"),
            "run": operator.run,
            "simulated": operator.simulated,
            "randomness": operator.randomness.statement,
            "authority": operator.authority.raw.hex(),
            "chorister": version("chorister"),
            "code_sha256": code_digest(),
            "base_sha256": BASE_SHA256,
        },
    )


def code_digest() -> str:
    """Return the SHA-256 over names and contents of all installed modules of Chorister."""
    found = hashlib.sha256(b"chorister/1 code")
    modules = {
        str(file.relative_to(root)): file
        for root in map(Path, chorister.__path__)
        for file in root.rglob("*.py")
    }
    for name, file in sorted(modules.items()):
        found.update(name.encode() + b"\x00" + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
