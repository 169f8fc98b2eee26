import copy
import json
import math
from pathlib import Path

import pytest

from chorister.shared.errors import UsageError
from chorister.simulations.run_record import read_run, schema, write_run

ROOT = Path(__file__).parents[3]
RUN = json.loads((ROOT / "tests" / "vectors" / "run_synthetic.json").read_text())


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.pop("seed"),
        lambda run: run.update(extra=1),
        lambda run: run["rounds"][0].update(status="maybe"),
        lambda run: run["rounds"][0].pop("held_out_loss"),
        lambda run: run["rounds"][0].update(clip_fraction=0.4),
        lambda run: run["evaluation"]["speakers"][0].update(loss_after="low"),
        lambda run: run.update(base_sha256="abc"),
        lambda run: run["budgets"][0].update(delta=0),
        lambda run: run["data"]["speakers"][0].update(role="listener"),
    ],
)
def test_a_record_that_does_not_fit_is_neither_written_nor_read(tmp_path, change):
    run = copy.deepcopy(RUN)
    change(run)
    path = tmp_path / "run.json"
    with pytest.raises(ValueError, match="does not fit its schema"):
        write_run(path, run)
    assert not path.exists()
    path.write_text(json.dumps(run))
    with pytest.raises(UsageError, match="follows its schema"):
        read_run(path)


def test_the_error_names_the_place(tmp_path):
    run = copy.deepcopy(RUN)
    run["rounds"][1]["seconds"] = "long"
    with pytest.raises(ValueError, match=r"\$\.rounds\[1\]\.seconds"):
        write_run(tmp_path / "run.json", run)


def test_an_unbounded_epsilon_is_written_as_null(tmp_path):
    run = copy.deepcopy(RUN)
    run["budgets"][0]["epsilon"] = math.inf
    run["budgets"][0]["accountants"][0]["epsilon"] = math.nan
    write_run(tmp_path / "run.json", run)
    budget = read_run(tmp_path / "run.json")["budgets"][0]
    assert budget["epsilon"] is None
    assert budget["accountants"][0]["epsilon"] is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format_version": 2}'])
def test_what_is_no_record_of_this_format_is_refused(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(UsageError):
        read_run(path)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has a run\.json"):
        read_run(tmp_path / "run.json")


def test_the_schema_in_the_package_is_the_one_in_the_docs():
    assert json.loads((ROOT / "docs" / "run.schema.json").read_text()) == schema()
