"""The command: a table, a JSON object, a drawing, and wrong goals."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from chorister.server.audit_plan import main
from chorister.shared.console import apply_output_options
from chorister.shared.errors import BadSettings

GOAL = ["--clients", "40", "--rounds", "4", "--epsilon", "4", "--delta", "1e-5"]


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


def test_it_prints_noise_signal_and_least_cohort(capsys):
    assert main(GOAL) == 0
    said = capsys.readouterr().out
    for part in ("noise multiplier", "signal to noise", "least cohort", "<- the goal"):
        assert part in said
    assert "too small a cohort" in said


def test_a_goal_that_means_nothing_says_so(capsys):
    assert main([*GOAL[:5], "30", *GOAL[6:]]) == 0
    assert "no meaningful guarantee" in capsys.readouterr().out


def test_the_json_object_has_the_curve_and_the_drawing_is_svg(capsys, tmp_path):
    path = tmp_path / "epsilon.svg"
    assert main([*GOAL, "--json", "--plot", str(path)]) == 0
    said = json.loads(capsys.readouterr().out)
    curve = {row["round"]: row["epsilon"] for row in said["epsilon_by_round"]}
    assert curve[4] == pytest.approx(said["reached"]) == pytest.approx(4.0, rel=1e-3)
    assert curve[6] > curve[4]
    assert ET.fromstring(path.read_text()).tag.endswith("svg")  # noqa: S314 (our own)


def test_a_wrong_goal_writes_nothing(tmp_path):
    path = tmp_path / "epsilon.svg"
    with pytest.raises(BadSettings):
        main([*GOAL[:6], "--delta", "0", "--plot", str(path)])
    assert not path.exists()
