"""What an app is opened with on its own machine: named by the environment, found by entry points.

The environment is set by whoever starts the app there; a peer has no say in it.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from chorister.shared.errors import UsageError


def find_opener(group: str, environment: str, what: str) -> Any:
    """Return the opener that this machine's environment names.

    Args:
        group: of entry points.
        environment: the variable that names one of them.
        what: what it opens, for the error.

    Raises:
        UsageError: the environment does not say, or names one that is not installed.
    """
    kind = os.environ.get(environment, "")
    known = {entry.name: entry for entry in entry_points(group=group)}
    if kind not in known:
        raise UsageError(
            f"The environment variable {environment} names a kind of {what}: {', '.join(known)}.",
            repr(kind),
            "Start the app with a command of Chorister, which sets it.",
        )
    return known[kind].load()
