"""A vault that opens quickly, for every test that keeps something in one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PASSPHRASE = "correct horse"


@pytest.fixture
def quick_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Argon2id allows: these tests are not about its cost, and cut no power."""
    from chorister.client import vault_key

    monkeypatch.setattr(vault_key, "ARGON2", {"iterations": 1, "lanes": 1, "memory_kib": 8})
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def passphrase_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers for whoever would be asked, by the environment; the vault is tmp_path/vault."""
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("CHORISTER_PASSPHRASE_FILE", str(path))
    monkeypatch.setenv("CHORISTER_VAULT", str(tmp_path / "vault"))
    return path
