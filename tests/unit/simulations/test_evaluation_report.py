"""Tables of an evaluation: cells, headings, gates and what is left out."""

from __future__ import annotations

from chorister.simulations.evaluation_tables import cell, format_table, heading, table


def interval(mean: float | None, speakers: int = 3) -> dict[str, float | int | None]:
    return {"mean": mean, "low": mean, "high": mean, "speakers": speakers}


def test_cells() -> None:
    assert cell(None) == ""
    assert cell(interval(None)) == ""
    assert cell(interval(0.5)) == "0.500 [0.500, 0.500]"
    assert cell(interval(0.5, speakers=1)) == "0.500"
    assert cell({"mean": 1.0, "low": None, "high": None, "speakers": 2}) == "1.000"


def test_headings_name_the_judge() -> None:
    assert heading("similarity (ge2e)") == "similarity, ge2e"
    assert heading("similarity (gmm-ubm)") == "GMM-UBM LLR, nepers"
    assert heading("residual (own encoder)") == "to the source, own encoder"
    assert heading("per") == "PER"
    assert heading("something new") == "something new"


def test_a_table_leaves_out_what_nobody_has() -> None:
    rows = {"a": {"per": interval(0.1)}, "b": {"wer": interval(0.2)}, "c": {}}
    lines = table("system", rows, {"per": "PER", "wer": "WER", "rtf": "RTF"})
    assert lines == [
        "| system | PER | WER |",
        "|---|---|---|",
        "| a | 0.100 [0.100, 0.100] |  |",
        "| b |  | 0.200 [0.200, 0.200] |",
    ]


def test_a_report_without_anything_measured_is_a_line_and_its_notes() -> None:
    report = {
        "pairs": [],
        "voices": ["a", "b"],
        "candidates": ["a", "b"],
        "judges": ["ge2e"],
        "main_judge": "ge2e",
        "systems": {},
        "gain": {},
        "directions": {},
        "conditions": {},
        "targets": {},
        "worst_decile": {},
        "gates": {"zero-shot": {"files": 2, "passed_all": 1, "failed": {"voicing": 1}}},
        "notes": ["something to know"],
    }
    text = format_table(report)
    assert "| zero-shot | 2 | 1 | 1 |" in text
    assert text.endswith("Note: something to know")
    assert "Whose voice" not in text
