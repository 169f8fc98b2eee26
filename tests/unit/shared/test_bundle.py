"""The one bundle that devices run: no code in it, the same bytes everywhere, a published digest."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from chorister.shared.bundle import BUNDLE_SHA256, CLIENT_APP, bundle_digest, make_bundle


def test_its_digest_is_the_published_constant() -> None:
    assert bundle_digest(make_bundle()) == BUNDLE_SHA256


def test_another_byte_is_another_bundle() -> None:
    assert bundle_digest(make_bundle() + b"\x00") != BUNDLE_SHA256


def test_it_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(make_bundle())) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        assert "dependencies" not in archive.read("pyproject.toml").decode()


def test_flower_takes_it_and_finds_the_installed_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.cli.config_utils import get_fab_config
    from flwr.cli.install import install_from_fab

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    folder = install_from_fab(make_bundle(), skip_prompt=True)
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]
    app = get_fab_config(make_bundle())["tool"]["flwr"]["app"]
    assert app["components"]["clientapp"] == CLIENT_APP
    assert re.fullmatch(r"chorister\.\w+\.app:app", CLIENT_APP)
