"""What a run ran on."""

from __future__ import annotations

from importlib.metadata import version

from chorister.simulations import facts


def test_the_machine_and_the_versions_that_ran():
    found = facts.machine()
    assert found["versions"]["numpy"] == version("numpy")
    assert set(found["versions"]) == set(facts.PACKAGES)
    assert found["cores"] >= 1
    assert found["cpu"]


def test_a_package_that_is_not_installed_has_no_version():
    assert facts._version("no-such-package-anywhere") is None
