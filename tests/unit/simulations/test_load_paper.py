"""Lines through measured rounds, and what follows from them on paper."""

from __future__ import annotations

import json

import pytest

from chorister.shared.errors import BadSettings, UsageError
from chorister.simulations import load_cli, load_paper
from chorister.simulations.load_paper import Fit


def a_round(devices, link_s, app_s=0.1, status="finished"):
    return {
        "devices": devices, "status": status, "requests": {"pull-messages": 50 * devices},
        "cpu_s": {"superlink": link_s, "server_app": app_s, "devices": 2 * link_s},
    }  # fmt: skip


def test_the_line_goes_through_the_origin_and_large_rounds_weigh_more():
    found = load_paper.fit([a_round(10, 5.0, 1.0), a_round(100, 100.0, 10.0)])
    assert found.link_s == pytest.approx((10 * 5 + 100 * 100) / (10**2 + 100**2))
    assert found.app_s == pytest.approx(0.1)
    assert found.request_s == pytest.approx(105.0 / (50 * 110))
    assert found.largest == 100
    assert Fit(0.5, 0.0, 0.0, 1).devices_within == 240


def test_rounds_that_were_aborted_are_not_measured():
    assert load_paper.fit([a_round(10, 5.0), a_round(400, 9.0, status="aborted")]).largest == 10
    with pytest.raises(BadSettings):
        load_paper.fit([a_round(400, 9.0, status="aborted")])


def test_bytes_are_those_that_a_rehearsal_measures():
    """The formula of docs/protocol.md against the protocol itself; the adapter is not in it."""
    from chorister.simulations.secagg_bench import cohort_figures

    figures = cohort_figures(60, 8000, 0.05, 0.0)
    from chorister.shared.secagg.planning import plan_cohort

    quorum = plan_cohort(60, 0.05, 0.0).thresholds.vote_quorum
    up, down = load_paper.bytes_of(60, 8000, figures.neighbours, quorum)
    assert up == pytest.approx(figures.up_bytes, rel=0.05)
    assert down - 4 * 8000 == pytest.approx(figures.down_bytes, rel=0.1)


def test_what_a_federation_needs_follows_from_what_was_measured():
    found = Fit(link_s=0.5, app_s=0.1, request_s=0.01, largest=50)
    paper = load_paper.on_paper(10_000, 8000, found, 0.0002, 0.05, 0.1)
    assert paper.delta == pytest.approx(10_000**-1.1)
    assert paper.round_min == pytest.approx(paper.cohort * 0.5 / 60)
    assert paper.superlinks == -(-paper.cohort // 240)
    assert paper.rounds == -(-10_000 * 20 // paper.cohort)
    assert paper.core_hours == pytest.approx(10_000 * 20 * 0.6 / 3600)
    assert paper.idle_cores == pytest.approx(10_000 * 0.2 * 0.01)
    assert paper.admissions_s == pytest.approx(2.0)
    smaller = load_paper.on_paper(10_000, 480, found, 0.0002, 0.05, 0.1)
    assert smaller.cohort == pytest.approx(paper.cohort * (480 / 8000) ** 0.5, rel=0.01)


def test_a_small_federation_is_one_cohort_and_one_that_is_too_large_is_refused():
    found = Fit(0.5, 0.1, 0.01, 50)
    assert load_paper.on_paper(200, 8000, found, 0.0, 0.05, 0.1).cohort == 200
    with pytest.raises(BadSettings):
        load_paper.on_paper(1_000_000, 100_000, found, 0.0, 0.05, 0.1)


def test_an_admission_takes_some_time_to_check():
    assert 1e-6 < load_paper.admission_s(20) < 1.0


def test_the_command_draws_and_says_what_was_measured(tmp_path, capsys):
    measured = tmp_path / "load.json"
    rounds = [a_round(10, 5.0), a_round(50, 25.0)]
    measured.write_text(json.dumps({"rounds": rounds, "gamma": 0.05, "dropout": 0.1}))
    chart = tmp_path / "load.svg"
    assert load_cli.load(["--from", str(measured), "--chart", str(chart), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]["largest"] == 50
    assert [p["enrolled"] for p in found["paper"]] == [10_000, 10_000, 1_000_000, 1_000_000]
    text = chart.read_text()
    assert "processor seconds" in text
    assert "devices in the round" in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rounds": [], "gamma": 0}', "{'"])
def test_a_file_that_is_no_measurement_is_refused(tmp_path, text):
    path = tmp_path / "load.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        load_cli.load(["--from", str(path)])
    with pytest.raises(UsageError):
        load_cli.load(["--from", str(tmp_path / "none")])
