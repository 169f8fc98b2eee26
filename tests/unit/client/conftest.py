"""A vault that opens quickly, for every test that keeps something in one."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chorister.shared.voice.model import VoiceModel

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


@pytest.fixture(scope="session")
def member(choirs: ModuleType) -> ModuleType:
    """The module members.py beside this file."""
    path = Path(__file__).with_name("members.py")
    spec = importlib.util.spec_from_file_location("members", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["members"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def members(
    tmp_path: Path,
    member: ModuleType,
    material: Callable[..., object],
    trainable_model: VoiceModel,
    quick_vault: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., object]]:
    """Makes so many installed devices that joined one federation, and their server."""
    from chorister.client import installed
    from chorister.shared.voice.adapters import SharedAdapterSpec, attach_shared

    @cache
    def load_model(spec: SharedAdapterSpec, wanted: object) -> VoiceModel:
        attach_shared(trainable_model, spec)
        return trainable_model.requires_grad_(False).eval()

    monkeypatch.setattr(installed, "load_model", load_model)

    def make(singers: int = 4, **changed: object) -> object:
        clock, homes, invite = member.Clock(), [], member.an_invite(**changed)
        for i in range(singers):
            home = member.a_home(tmp_path / f"vault-{i}", material, clock, seed=i)
            member.join(home, invite)
            homes.append(home)
        return member.Members(tmp_path, homes, clock, invite.release.spec)

    yield make
    installed.forget()
