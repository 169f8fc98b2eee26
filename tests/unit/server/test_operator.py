"""How the operator's side is found."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chorister.server import operator
from chorister.shared import openers
from chorister.shared.errors import UsageError


@pytest.fixture
def kinds(monkeypatch):
    entry = SimpleNamespace(name="desk", load=lambda: lambda: "an operator")
    monkeypatch.setattr(openers, "entry_points", lambda group: [entry])


@pytest.mark.parametrize("kind", [None, "", "laptop"])
def test_an_unknown_kind_is_wrong_usage_with_the_known_ones(monkeypatch, kinds, kind):
    monkeypatch.delenv(operator.ENVIRONMENT, raising=False)
    if kind is not None:
        monkeypatch.setenv(operator.ENVIRONMENT, kind)
    with pytest.raises(UsageError, match=r"CHORISTER_OPERATOR.*: desk\."):
        operator.open_operator()


def test_a_known_kind_is_opened(monkeypatch, kinds):
    monkeypatch.setenv(operator.ENVIRONMENT, "desk")
    assert operator.open_operator() == "an operator"
