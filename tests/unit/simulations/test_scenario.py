"""Scenario files: wrong ones are named before anything starts; packaged ones are all right."""

from __future__ import annotations

import pytest

from chorister.shared.errors import BadSettings
from chorister.simulations.scenario import Scenario, packaged_scenarios, read_scenario


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("client = 3", "Did you mean 'clients'?"),
        ("[droput]\nmasked = 0.1", "Did you mean 'dropout'?"),
        ("[dropout]\nmaskd = 0.1", "Did you mean 'masked'?"),
        ("[federation.training]\nlearning_rat = 1.0", "Did you mean 'learning_rate'?"),
        ("shift = 'cathedral'", "'shift'"), ("clients = -1", "'clients'"),
        ("clients = '3'", "'clients'"), ("clients = 3.5", "'clients'"),
        ("seed = -1", "'seed'"), ("held_out_share = 0.0", "'held_out_share'"),
        ("held_out_share = 1.0", "'held_out_share'"), ("[dropout]\nshare = 1.0", "'dropout.share'"),
        ("[adapter]\nrank = 9", "'adapter.rank'"), ("baselines = ['none']", "'baselines.0'"),
        ("speakers = 'anna'", "'speakers'"), ("speakers = [1]", "'speakers.0'"),
        ("engine = 'flower'", "'engine'"), ("[federation]\nrounds = 0", "'federation.rounds'"),
        ("federation = 3", "'federation'"), ("dropout = [0.1]", "'dropout'"),
        ("xyzzy = 1", "Known keys: adapter, baselines,"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("overrides", [{}, {"federation.rounds": 2, "dropout.share": 0.5}])
def test_what_is_wrong_is_named(written, text, said, overrides):
    if text.startswith(("[federation]\nrounds", "[dropout]\nshare")) and overrides:
        pytest.skip("the override repairs it")
    with pytest.raises(BadSettings) as caught:
        read_scenario(written(text), overrides)
    assert said in str(caught.value)
    assert "mine.toml" in caught.value.rule
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", ["nothing", "demo.tml", ""])
def test_an_unknown_name_lists_the_packaged(name):
    if not name:
        assert read_scenario(name, {}) == read_scenario("default", {})
        return
    with pytest.raises(BadSettings, match=r"Packaged scenarios: .*default, demo"):
        read_scenario(name, {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadSettings, match="No such file"):
        read_scenario(str(tmp_path / "none.toml"), {})


@pytest.mark.parametrize("name", packaged_scenarios())
def test_packaged_scenarios_are_read_and_come_back_from_json(name):
    scenario = read_scenario(name, {})
    assert scenario.description
    assert Scenario.parse(scenario.model_dump(mode="json"), "world.json") == scenario


def test_overrides_win_over_the_file(written):
    path = written("seed = 3\n[federation]\nrounds = 5\n")
    scenario = read_scenario(
        path, {"seed": 4, "federation.rounds": 6, "federation.training.local_steps": 2}
    )
    assert (scenario.seed, scenario.federation.rounds) == (4, 6)
    assert scenario.federation.training.local_steps == 2


def test_an_override_out_of_range_is_refused():
    with pytest.raises(BadSettings, match=r"'federation\.rounds'"):
        read_scenario(None, {"federation.rounds": 0})
