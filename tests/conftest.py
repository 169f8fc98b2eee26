"""What all tests share."""

import argparse
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from chorister.shared.console import apply_output_options

# How long an example takes depends on what else the machine does.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Ends what --quiet or --json of a command set for the rest of its process."""
    yield
    apply_output_options(argparse.Namespace(quiet=False, json=False))
