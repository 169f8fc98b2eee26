"""How a device is found: the environment of its own machine says, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chorister.client import device
from chorister.shared import openers
from chorister.shared.errors import UsageError


@pytest.fixture
def kinds(monkeypatch):
    entry = SimpleNamespace(name="laptop", load=lambda: "an opener")
    monkeypatch.setattr(openers, "entry_points", lambda group: [entry])


@pytest.mark.parametrize("kind", [None, "", "server", "LAPTOP"])
def test_an_unknown_kind_is_wrong_usage_with_the_known_ones(monkeypatch, kinds, kind):
    monkeypatch.delenv(device.ENVIRONMENT, raising=False)
    if kind is not None:
        monkeypatch.setenv(device.ENVIRONMENT, kind)
    with pytest.raises(UsageError, match=r"CHORISTER_DEVICE.*: laptop\."):
        device.find_opener()


def test_a_known_kind_is_loaded(monkeypatch, kinds):
    monkeypatch.setenv(device.ENVIRONMENT, "laptop")
    assert device.find_opener() == "an opener"


def test_a_device_is_known_by_its_pseudonym(choir):
    singers = choir()
    for name, one in singers.devices.items():
        assert one.device_id == name == one.signing_key.verify_key().name
