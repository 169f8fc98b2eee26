"""Licences of an installation, over distributions that are made up for the test."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from chorister.shared.errors import UsageError
from chorister.simulations.licences import as_markdown, collect, licence_of


def install(site: Path, name: str, *lines: str) -> PathDistribution:
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    text = "\n".join(("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0+cpu", *lines, ""))
    (folder / "METADATA").write_text(text)
    return PathDistribution(folder)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_is_not_installed() -> None:
    with pytest.raises(UsageError, match="choir-of-nowhere is not installed"):
        collect("choir-of-nowhere")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("License-Expression: MIT", "License: other"), "MIT"),
        (("License: BSD 3-Clause",), "BSD 3-Clause"),
        (("License: UNKNOWN", "Classifier: License :: OSI Approved :: ISC License"), "ISC License"),
        ((f"License: {'Permission is granted ' * 9}",), "not stated by the package"),
        (
            (
                "Classifier: License :: A",
                "Classifier: License :: B",
            ),
            "A or B",
        ),
        ((), "not stated by the package"),
    ],
)
def test_what_a_package_says(tmp_path: Path, lines: tuple[str, ...], expected: str) -> None:
    assert licence_of(install(tmp_path, "x-some-package", *lines)) == expected


def test_the_synthesiser_is_known_to_be_gpl(tmp_path: Path) -> None:
    assert licence_of(install(tmp_path, "espeakng-loader")).startswith("GPL-3.0")


def test_extras_are_followed_all_the_way_down(site: Path) -> None:
    install(
        site,
        "x-root",
        "Requires-Dist: x-core>=1",
        "Requires-Dist: x-missing",
        'Requires-Dist: x-other-os; sys_platform == "amiga"',
        'Requires-Dist: x-voice[fast]; extra == "client"',
        'Requires-Dist: x-root[client]; extra == "dev"',
        'Requires-Dist: x-tool; extra == "dev"',
    )
    install(site, "x-core", "License-Expression: MIT", "Requires-Dist: X_Deep")
    install(site, "x-deep", "License-Expression: MPL-2.0", "Requires-Dist: x-core")
    install(site, "x-voice", 'Requires-Dist: x-speed; extra == "fast"', "License: LGPL-2.1")
    install(site, "x-speed", "License: BSD")
    install(site, "x-tool", "License: ISC")
    install(site, "x-other-os", "License: ISC")
    found = collect("x-root")
    brought = {name: extra for name, (_, extra) in found.items()}
    assert brought == {
        "x-core": "",
        "x-deep": "",
        "x-voice": "client",
        "x-speed": "client",
        "x-tool": "dev",
    }
    page = as_markdown(found)
    assert "| x-speed | 1.0 | BSD | client |" in page
    assert "- x-deep (everything): MPL-2.0" in page and "- x-voice (client): LGPL-2.1" in page
    assert "- x-core" not in page
