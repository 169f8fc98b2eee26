"""Two finished rounds on disk, sung once: ledgers and budgets to check, to spoil, to report on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.signing import SigningKey


@dataclass
class Files:
    """Two finished rounds: what the server and four devices wrote, in a folder to spoil."""

    root: Path
    names: list[str]
    keys: dict[str, SigningKey]
    kept: Checkpoint
    backup: Path

    @property
    def server(self) -> Path:
        return self.root / "server" / "ledger.jsonl"

    def of(self, name: str, what: str = "ledger.jsonl") -> Path:
        return next(p for p in self.root.glob(f"*/{what}") if name in p.read_text().splitlines()[0])

    @property
    def device(self) -> str:
        return self.names[0]

    def inspect(self, **choices):
        from chorister.server.inspection import find_ledgers, inspect

        return inspect(find_ledgers([self.root]), **choices)


@pytest.fixture(scope="session")
def sung(tmp_path_factory, choirs, make_model):
    from chorister.server.round import run_round
    from chorister.server.statement import state_terms

    root = tmp_path_factory.mktemp("sung")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        model = choirs.a_trainable_model(make_model())
        choir = choirs.Choir(root / "choir", model, choirs.PRIVATE)
        state_terms(choir.operator)
        run_round(choir, choir.operator, 1)
        shutil.copytree(choir.root, root / "backup")
        run_round(choir, choir.operator, 2)
        kept = choir.operator.ledger.checkpoint(choir.operator.signing_key)
        choir.operator.ledger.append("note", text="after the checkpoint that is kept elsewhere")
    keys = {name: device.signing_key for name, device in choir.devices.items()}
    keys["server"] = choir.operator.signing_key
    keys["authority"] = choir.authority
    return Files(choir.root, choir.names, keys, kept, root / "backup")


@pytest.fixture
def files(sung, tmp_path):
    root = tmp_path / "files"
    shutil.copytree(sung.root, root)
    return Files(root, sung.names, sung.keys, sung.kept, sung.backup)


@pytest.fixture(scope="session")
def offices():
    """The module deployed.py beside this file."""
    path = Path(__file__).with_name("deployed.py")
    spec = importlib.util.spec_from_file_location("deployed", path)
    module = sys.modules["deployed"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def office(offices, tmp_path):
    """A new server and its authority."""
    return offices.an_office(tmp_path)
