"""The server's memory of rounds: whole lines only, in order, and the optimiser's state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chorister.server.rounds import (
    RoundRecord,
    append_round,
    load_optimiser,
    read_rounds,
    save_optimiser,
)
from chorister.server.update import OptimiserState
from chorister.shared import files
from chorister.shared.errors import BadLedger

ONE = RoundRecord(
    round=1, status="finished", reason=None, cohort=4, answered={"query.share": 4},
    drop_outs={"query.share": 0}, refusals={}, survivors=4, adapter_sha256="a" * 64, min_honest=3,
    noise_multiplier=1.25, epsilon_speaker=2.5, bytes_up=10, bytes_down=20, seconds=0.5,
)  # fmt: skip
TWO = replace(ONE, round=2, status="aborted", reason='said "no"\nand left', min_honest=None)


def test_rounds_come_back_as_they_went(tmp_path):
    path = tmp_path / "rounds.jsonl"
    assert read_rounds(path) == []
    append_round(path, ONE)
    append_round(path, TWO)
    assert read_rounds(path) == [ONE, TWO]
    assert len(path.read_text().splitlines()) == 2


def test_a_crash_while_a_line_is_written_leaves_the_rounds_before(tmp_path, monkeypatch):
    path = tmp_path / "rounds.jsonl"
    append_round(path, ONE)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            append_round(path, TWO)
    assert read_rounds(path) == [ONE]
    assert [p.name for p in tmp_path.iterdir()] == ["rounds.jsonl"]
    append_round(path, TWO)
    assert read_rounds(path) == [ONE, TWO]


@pytest.mark.parametrize(
    "text",
    ['{"round": 1}\n', "[]\n", "null\n", "x\n", "\n", '{"round": 1, "sta'],
)
def test_what_is_no_round_is_refused(tmp_path, text):
    path = tmp_path / "rounds.jsonl"
    path.write_text(text)
    with pytest.raises(BadLedger, match="one line a round"):
        read_rounds(path)


def test_a_missing_or_doubled_round_is_refused(tmp_path):
    path = tmp_path / "rounds.jsonl"
    append_round(path, ONE)
    line = path.read_text()
    for text in (line * 2, line.replace('"round": 1', '"round": 2')):
        path.write_text(text)
        with pytest.raises(BadLedger):
            read_rounds(path)


def test_the_optimiser_belongs_to_the_version_that_it_made(tmp_path):
    state = OptimiserState(np.arange(3.0), np.ones(3))
    save_optimiser(tmp_path, "a" * 64, state)
    found = load_optimiser(tmp_path, "a" * 64, 3)
    assert np.array_equal(found.first, state.first)
    assert np.array_equal(found.second, state.second)
    fresh = load_optimiser(tmp_path, "b" * 64, 3)
    assert not fresh.first.any()


@pytest.mark.parametrize("clip_norm", [None, 0.45241870901797976, 1e-6])
def test_the_clip_is_kept_with_its_version_to_the_last_bit(tmp_path, clip_norm):
    save_optimiser(tmp_path, "a" * 64, OptimiserState(np.zeros(2), np.ones(2), clip_norm))
    assert load_optimiser(tmp_path, "a" * 64, 2).clip_norm == clip_norm
    assert load_optimiser(tmp_path, "b" * 64, 2).clip_norm is None
