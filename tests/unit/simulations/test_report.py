import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chorister.shared.errors import BadAudio, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.signing import SigningKey
from chorister.simulations.report import write_report

RUN = json.loads((Path(__file__).parents[2] / "vectors" / "run_synthetic.json").read_text())
VOID = {"meta", "img", "br", "hr", "circle", "line", "rect", "polyline"}


class Page(HTMLParser):
    """The page's tags in balance, its text and everything that it would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags, self.said = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.said))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "samples").mkdir()
    rng = np.random.default_rng(0)
    for sample in RUN["samples"]:
        for name in sample["files"].values():
            if name is not None:
                soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(4000), 16_000)
    ledger = LedgerFile(tmp_path / "ledger.jsonl", owner="server", federation="choir")
    for device in ("a", "b"):
        ledger.append("admission", round="1", device=device)
    ledger.append("round", round="1")
    ledger.checkpoint(SigningKey(bytes(32)))
    return tmp_path


def rendered(folder, **changes):
    (folder / "run.json").write_text(json.dumps({**copy.deepcopy(RUN), **changes}))
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_the_page_needs_no_network_and_runs_no_script(folder):
    page = rendered(folder)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    style = (folder / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_it_says_first_what_it_came_to_and_then_everything_else(folder):
    text = rendered(folder).text
    order = [
        "The noise exceeds the learning: the cohort is too small.",
        "Simulated randomness, not private",
        "Warnings",
        "What happened",
        "Round by round",
        "Listen",
        "Personalised voices",
        "Privacy budgets",
        "The price of privacy",
        "Voices",
        "Ledger",
        "How to repeat it",
        "Settings",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for part in (
        "no meaningful guarantee", "add or remove one segment", "PLD 13.1", "privacy.clip_norm",
        "Embedded corpus", "2 because it is silent", RUN["shared_adapter_sha256"], RUN["command"],
        "This sentence was never spoken by anyone.", "2 admissions in all, nothing was refused",
        "their chain is unbroken",
    ):  # fmt: skip
        assert part in text


def test_names_from_data_cannot_break_out_of_the_page(folder):
    nasty = "<img src=x onerror=alert(1)>\"'&"
    run = copy.deepcopy(RUN)
    for speaker in run["data"]["speakers"]:
        speaker["speaker"] = nasty
    for row in run["evaluation"]["speakers"] + run["evaluation"]["clients"]:
        row["speaker"] = nasty
    run["samples"][0].update(source=nasty, target=nasty, transcript=nasty)
    run["settings"] = {nasty: nasty}
    run["data"]["skipped"] = [{"name": nasty, "reason": nasty}]
    run.update(warnings=[nasty], command=nasty)
    page = rendered(folder, **run)
    assert page.tags.count("img") == sum(
        name is not None for sample in RUN["samples"] for name in sample["files"].values()
    )
    assert nasty in page.text


def test_a_run_by_the_systems_generator_has_no_notice(folder):
    randomness = {"private": True, "statement": "operating system generator"}
    assert "not private" not in rendered(folder, randomness=randomness).text


def test_a_run_in_which_nothing_worked_still_has_a_report(folder):
    empty = {"speakers": None, "clients": None}
    bare = {
        "rounds": [
            {**RUN["rounds"][0], "status": "aborted", "reason": "Too few survivors.",
             "adapter_sha256": None, "held_out_loss": empty, "noise_to_signal": None,
             "clip_norm": None, "bytes_up": None}
        ],
        "initial_held_out_loss": empty,
        "evaluation": {
            "speakers": [], "clients": [], "paired_test": None, "paired_test_clients": None,
        },
        "personalised": [], "budgets": [], "baselines": [], "samples": [], "warnings": [],
        "resumed": [], "voice": None, "cohort_advice": None, "finished_s": None,
    }  # fmt: skip
    text = rendered(folder, **bare).text
    assert "No round was finished" in text
    assert "aborted: Too few survivors." in text
    assert "Listen" not in text
    assert "The price of privacy" not in text


def test_without_privacy_no_budget_is_pretended(folder):
    rounds = [{**r, "noise_to_signal": None, "noise_multiplier": None} for r in RUN["rounds"]]
    text = rendered(folder, private=False, budgets=[], rounds=rounds).text
    assert "Privacy was switched off" in text
    assert "Noise in the sum" not in text


def test_many_voices_are_folded_away(folder):
    run = copy.deepcopy(RUN)
    one = run["data"]["speakers"][0]
    run["data"]["speakers"] = [{**one, "speaker": f"synthetic-{i}"} for i in range(100)]
    run["evaluation"]["clients"] = [
        {"speaker": f"synthetic-{i}", "loss_before": 1.0, "loss_after": 0.9} for i in range(100)
    ]
    page = rendered(folder, **run)
    assert "details" in page.tags
    assert "100 voices in the choir" in page.text


def test_a_ledger_that_was_altered_is_called_so(folder):
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"device":"a"', b'"device":"c"'))
    assert "does not verify" in rendered(folder).text
    path.unlink()
    assert "has no ledger" in rendered(folder).text


def test_a_missing_sample_or_record_is_an_error_and_leaves_the_old_page(folder):
    rendered(folder)
    before = (folder / "report.html").read_bytes()
    (folder / RUN["samples"][0]["files"]["source"]).unlink()
    with pytest.raises(BadAudio):
        write_report(folder)
    (folder / "run.json").unlink()
    with pytest.raises(UsageError):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
