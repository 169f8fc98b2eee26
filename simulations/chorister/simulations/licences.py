"""Licences of what an installation brings, as Markdown: python -m chorister.simulations.licences

The packages are those that the installed distribution asks for, extra by extra and all the way
down; the licences are what their own metadata says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from types import MappingProxyType
from typing import TYPE_CHECKING

from chorister.shared.errors import UsageError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "chorister"
# In the order in which a package is attributed: it is listed under the first that brings it.
EXTRAS = ("", "server", "client", "simulation", "embedded", "training", "harvest", "dev")

# What a wheel carries besides its own code, or where its metadata is silent.
_KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "espeakng-loader": "GPL-3.0-or-later (espeak-ng's library and data; see adr/0003)",
        "soundfile": "BSD-3-Clause; carries libsndfile, LGPL-2.1-or-later",
        "soxr": "LGPL-2.1-or-later",
    }
)
_CLASSIFIER = "License :: "
_COPYLEFT = re.compile(r"\b(A|L)?GPL|MPL|Mozilla|EPL|EUPL|CDDL")
_LONGEST_NAME = 60


def collect(root: str = DISTRIBUTION) -> dict[str, tuple[Distribution, str]]:
    """Walk from a distribution through its extras to everything that is installed for it.

    Args:
        root: name of an installed distribution.

    Returns:
        by canonical name: the distribution and the first extra of `EXTRAS` that brings it. A
        requirement that is not installed (another platform, another extra) is left out.

    Raises:
        UsageError: `root` is not installed.
    """
    from packaging.utils import canonicalize_name

    try:
        distribution(root)
    except PackageNotFoundError as error:
        raise UsageError(
            "Licences are listed of an installed distribution.",
            f"{root} is not installed",
            "Run make install-dev first.",
        ) from error
    found: dict[str, tuple[Distribution, str]] = {}
    seen: set[tuple[str, str]] = set()
    for extra in EXTRAS:
        queue = [(canonicalize_name(root), extra)]
        while queue:
            name, wanted = queue.pop()
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                package = distribution(name)
            except PackageNotFoundError:
                continue
            found.setdefault(name, (package, extra))
            for requirement in _requirements(package, wanted):
                below = canonicalize_name(requirement.name)
                queue += [(below, one) for one in ("", *sorted(requirement.extras))]
    found.pop(canonicalize_name(root), None)
    return found


def licence_of(package: Distribution) -> str:
    """What a package says of its licence: SPDX expression, short field, or classifiers."""
    data = package.metadata
    name = data["Name"].lower()
    if name in _KNOWN:
        return _KNOWN[name]
    if "License-Expression" in data:
        return data["License-Expression"]
    field = " ".join(data["License"].split()) if "License" in data else ""
    if 0 < len(field) <= _LONGEST_NAME and field != "UNKNOWN":
        return field
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in data.get_all("Classifier") or ()
        if line.startswith(_CLASSIFIER)
    ]
    return " or ".join(classifiers) or "not stated by the package"


def as_markdown(packages: Mapping[str, tuple[Distribution, str]]) -> str:
    """Return the page docs/licences.md."""
    rows = []
    marked = []
    for name in sorted(packages):
        package, extra = packages[name]
        licence = licence_of(package)
        version = package.version.partition("+")[0]
        rows.append(f"| {name} | {version} | {licence} | {extra or 'everything'} |")
        if _COPYLEFT.search(licence):
            marked.append(f"- {name} ({extra or 'everything'}): {licence}")
    lines = [
        "# Licences of what is installed",
        "",
        "Chorister itself is under Apache-2.0. It contains none of the packages below; pip",
        "installs them beside it. `make licences` writes this list from the packages' own",
        "metadata, with the versions that were installed then.",
        "",
        "Not simply permissive, and why that is no obstacle: each is a separate package, loaded at",
        "run time and replaceable; espeak-ng is optional and runs in a process of its own",
        "([adr/0003](adr/0003-embedded-corpus.md)).",
        "",
        *marked,
        "",
        "| package | version | licence | brought by |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def _requirements(package: Distribution, extra: str) -> list[Requirement]:
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in package.requires or ()]
    return [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": extra})]


def main() -> int:
    """Print the page on standard output."""
    sys.stdout.write(as_markdown(collect()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
