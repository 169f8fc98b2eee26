"""The vectors that the package ships, and what checking them catches."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from chorister.simulations.secagg_cli import main
from chorister.simulations.secagg_vectors import FILE, check, load, make


def test_the_vectors_hold() -> None:
    checked, failures = check(load())
    assert failures == []
    assert checked > 100


def test_the_copy_for_other_implementations_is_the_same() -> None:
    copy_ = Path(__file__).with_name("secagg.json")
    assert copy_.read_bytes() == FILE.read_bytes()
    assert json.loads(copy_.read_text()) == make()


@pytest.mark.parametrize("group", ["sharing", "keys", "masks", "packing", "rotation"])
def test_a_changed_vector_is_caught(group: str) -> None:
    vectors = copy.deepcopy(load())
    for name, value in vectors[group].items():
        changed = copy.deepcopy(vectors)
        changed[group][name] = value + 1 if isinstance(value, int) else value[:-1]
        assert len(check(changed)[1]) >= 1, name
        break


def test_an_accepted_bad_message_is_caught() -> None:
    vectors = load()
    name, data = vectors["round"]["messages"][0]
    vectors["refused"] = [[name, data, "nothing at all"]]
    assert check(vectors)[1] == [f"refused: {name} with nothing at all was accepted"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 0
    assert "0 failed" in capsys.readouterr().out
    assert main(["selftest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"] == []
