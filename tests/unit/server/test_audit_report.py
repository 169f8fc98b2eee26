"""The report: what it says of real ledgers, that it is signed, offline, and follows its schema."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chorister.server import audit_report, audit_verify
from chorister.server.attack_record import (
    Attacks,
    SealedAttacks,
    attacks_schema,
    find_attacks,
    read_attacks,
    seal_attacks,
)
from chorister.server.inspection import find_ledgers
from chorister.server.key_file import create_signing_key, read_signing_key, read_verify_key
from chorister.server.report_builder import build_report
from chorister.server.report_file import check_report, seal_json, seal_page
from chorister.server.report_page import render
from chorister.server.report_record import parse_report, schema
from chorister.server.report_words import summarise
from chorister.shared.console import apply_output_options
from chorister.shared.errors import BadLedger, UsageError
from chorister.shared.privacy.figures import NO_GUARANTEE
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import SystemRandomness
from chorister.shared.settings import Accountability
from chorister.shared.signing import SigningKey

ROOT = Path(__file__).parents[3]
KEY = SigningKey(bytes(range(32)))
NOW = 1_800_000_100
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
ATTACKS = {
    "format": 2, "chorister": "0.1.0", "simulated": True, "made_at_s": NOW,
    "command": "chorister audit attack --quick", "scale": "quick", "seed": 7,
    "data": "8 voices", "settings": [["segment noise", "1"]], "base_sha256": "b" * 64,
    "took_s": 90.0, "limits": ["Failing proves nothing."],
    "pictures": [{"title": "Inversion: truth", "png": PNG, "duration_s": 1.28, "bands": 80}],
    "attacks": [
        {
            "name": "Speaker identification", "question": "Who sent this <update>?",
            "adversary": "is the server.",
            "figure_name": "equal error rate", "figure": 0.49, "interval": [0.45, 0.53],
            "confidence": 0.95, "chance": 0.5, "trials": 400,
            "positive_control": {"name": "unmasked", "figure": 0.02, "interval": [0.01, 0.04]},
            "beside": [{"name": "without noise", "figure": 0.021, "interval": None}],
            "notes": ["Forty canaries."],
        }
    ],
}  # fmt: skip


def sealed_attacks(**changes) -> bytes:
    return seal_attacks(Attacks.model_validate_json(json.dumps({**ATTACKS, **changes})), KEY)


@pytest.fixture(scope="module")
def report(sung):
    return build_report(
        find_ledgers([sung.root]), attacks=SealedAttacks.model_validate_json(sealed_attacks()),
        responsible=Accountability(purpose="Tests", controller="Nobody"), recording_segments=3,
        now_s=NOW,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def talkative():
    yield
    apply_output_options(type("O", (), {"quiet": False, "json": False})())


def test_it_says_the_unit_and_both_accountants_of_each_figure(report):
    assert [f.unit for f in report.figures] == ["segment", "speaker"]
    for figure in report.figures:
        assert len(figure.accountants) == 2
        assert figure.epsilon == max(a.epsilon for a in figure.accountants)
        assert figure.relation
        assert figure.sampling
        assert figure.delta == 1e-3
    segment, speaker = report.figures
    assert segment.group.size == 3
    assert segment.group.epsilon is None or segment.group.epsilon > 3 * segment.epsilon
    assert speaker.devices == 4
    assert "the server's count" in speaker.source


def test_rounds_have_the_noise_with_the_survivors_as_they_were(report):
    assert [r.status for r in report.rounds] == ["finished", "finished"]
    for r in report.rounds:
        assert (r.asked, r.admitted, r.survivors) == (4, 4, 4)
        assert r.noise_in_sum > r.noise_promised
    one, two = (r.epsilon_speaker for r in report.rounds)
    assert 0 < one < two == report.figures[1].epsilon
    assert "4" in report.dropouts or "100%" in report.dropouts


def test_simulated_extrapolated_and_measured_are_kept_apart(report):
    assert report.simulated
    assert not report.randomness.private
    assert "simulated" in report.undermine[0]
    assert {e.what for e in report.extrapolated} == {
        "one more round like the last", "as many rounds again",
    }  # fmt: skip
    more = [e.epsilon for e in report.extrapolated if e.unit == "speaker"]
    assert min(more) > report.figures[1].epsilon
    assert report.attacks.attacks[0].positive_control.figure == 0.02


def test_it_names_who_answers_consents_and_digests_of_code_base_and_adapters(report):
    assert report.responsible.controller == "Nobody"
    assert len(report.consents) == 4
    assert all(c.uses for c in report.consents)
    names = [name for name, _ in report.digests]
    assert names[:3] == [
        "Code of the server", "Base model", "Shared adapter before the first round",
    ]  # fmt: skip
    assert len(names) == 5
    assert len(report.ledgers) == 10
    assert report.registry["privacy_unit"] == "one speaker"


def test_it_holds_no_secret_no_path_and_no_segment_count(report, sung):
    text = report.model_dump_json()
    assert str(sung.root) not in text
    for key in sung.keys.values():
        assert key.secret_bytes().hex() not in text
    assert '"segments"' not in text


def test_what_was_altered_is_in_the_report_first(files):
    lines = files.server.read_bytes().splitlines(keepends=True)
    files.server.write_bytes(b"".join(lines[:3] + lines[4:]))
    found = build_report(
        find_ledgers([files.root]), attacks=None, responsible=None, recording_segments=8
    )
    assert not found.sound
    assert found.problems
    page = render(found, KEY.verify_key())
    assert "do not sign this" in page
    assert page.index("Contradictions") < page.index("1. What is protected")
    assert "CONTRADICT EACH OTHER" in found.summary


def test_without_a_sound_ledger_there_is_no_report(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="at least one ledger"):
        build_report([tmp_path / "x.jsonl"], attacks=None, responsible=None, recording_segments=8)


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [v for k, v in attrs if k in ("src", "href", "action", "data", "poster")]


def test_the_page_is_one_offline_file_without_script(report):
    page = render(report, KEY.verify_key())
    parser = _Links()
    parser.feed(page)
    assert [link[:22] for link in parser.found] == ["data:image/png;base64,"]  # a spectrogram
    assert not parser.tags & {"script", "link", "img", "iframe", "object"}
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "Who sent this &lt;update&gt;?" in page
    # The unit stands before any epsilon, as NIST SP 800-226 asks.
    assert page.index("1. What is protected") < page.index("2. Epsilon and delta")


def test_json_and_schema_go_together(report):
    shown = json.loads((ROOT / "docs" / "audit.schema.json").read_text())
    assert shown == schema()
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(report.model_dump(mode="json"), shown)
    assert parse_report(report.model_dump(mode="json")) == report
    with pytest.raises(UsageError, match=r"audit\.schema\.json"):
        parse_report({**report.model_dump(mode="json"), "figures": 3})


@pytest.mark.parametrize("kind", ["json", "html", "pdf"])
def test_any_changed_byte_of_a_sealed_report_is_found(report, tmp_path, kind):
    sealed = {
        "json": lambda: seal_json(report, KEY),
        "html": lambda: seal_page(render(report, KEY.verify_key()).encode(), KEY),
        "pdf": lambda: seal_page(b"%PDF-1.7 any bytes\n%%EOF\n", KEY, pdf=True),
    }[kind]()
    path = tmp_path / "report"
    path.write_bytes(sealed)
    assert check_report(path).key == KEY.verify_key()
    for at in {0, len(sealed) // 3, len(sealed) // 2, len(sealed) - 150, len(sealed) - 60}:
        altered = bytearray(sealed)
        altered[at] = altered[at] ^ 1 if altered[at] not in (10, 32) else 65
        path.write_bytes(bytes(altered))
        with pytest.raises((BadLedger, UsageError)):
            check_report(path)
    path.write_bytes(sealed[:-100])
    with pytest.raises(BadLedger, match="signature"):
        check_report(path)


def test_a_report_signed_anew_by_a_stranger_needs_the_named_key(report, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_bytes(seal_json(report, SigningKey(bytes(32))))
    assert audit_verify.main([str(path)]) == 0
    assert audit_verify.main([str(path), "--key", KEY.verify_key().raw.hex()]) == 1
    assert "named with --key" in capsys.readouterr().out


def test_the_command_writes_page_and_data_signed_by_one_key(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "about.toml").write_text('controller = "The choir"\n')
    (tmp_path / "attacks.json").write_bytes(sealed_attacks())
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    arguments = [
        "--ledger", str(files.root), "--out", str(page), "--json", str(data), "--about",
        str(tmp_path / "about.toml"), "--attacks", str(tmp_path / "attacks.json"),
    ]  # fmt: skip
    assert audit_report.main(arguments) == 0
    said = capsys.readouterr().out
    assert "A new key was made" in said
    assert check_report(data).report.responsible.controller == "The choir"
    assert check_report(page).key == check_report(data).key
    assert audit_report.main(arguments) == 0
    assert "A new key" not in capsys.readouterr().out
    assert check_report(page).key.name in said


def test_wrong_usage_writes_nothing(files, tmp_path):
    with pytest.raises(UsageError, match="written somewhere"):
        audit_report.main(["--ledger", str(files.root)])


def test_attacks_as_they_were_signed_are_in_the_page(report):
    page = render(report, KEY.verify_key())
    assert report.attacks_signed_by == KEY.verify_key().raw.hex()
    assert report.attacks_signed_by in page
    assert "without noise" in page
    assert "Failing proves nothing." in page
    assert "bounds a leak from below" in page
    assert page.count("data:image/png;base64,") == 1
    assert "mel band" in page
    # They were measured on no base that the server states, and the report says so.
    assert any("another base model" in line for line in report.limits)


def test_attacks_in_a_run_folder_are_found(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find_attacks([files.root, files.server]) is None
    (files.root / "attacks").mkdir()
    (files.root / "attacks" / "attacks.json").write_bytes(sealed_attacks())
    page = tmp_path / "report.html"
    assert audit_report.main(["--ledger", str(files.root), "--out", str(page)]) == 0
    assert "Who sent this" in page.read_text()
    (files.root / "attacks.json").write_bytes(sealed_attacks())
    with pytest.raises(UsageError, match="--attacks"):
        find_attacks([files.root])


def _changed(change) -> bytes:
    plain = json.loads(sealed_attacks())
    change(plain)
    return json.dumps(plain).encode()


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        (_changed(lambda p: p["attacks"]["attacks"][0].update(figure=0.5)), BadLedger, "altered"),
        (_changed(lambda p: p["attacks"]["attacks"].clear()), BadLedger, "altered"),
        (_changed(lambda p: p.update(key="0" * 64)), BadLedger, "altered"),
        (_changed(lambda p: p.update(signature="0" * 128)), BadLedger, "altered"),
        (_changed(lambda p: p.pop("signature")), UsageError, "signature"),
        (_changed(lambda p: p["attacks"].update(format=3)), UsageError, "format"),
        (_changed(lambda p: p["attacks"].update(format=1)), UsageError, "format"),
        (_changed(lambda p: p["attacks"].update(more=1)), UsageError, "more"),
        (_changed(lambda p: p["attacks"]["attacks"][0].update(figure=float("nan"))), UsageError,
         "figure"),
        (_changed(lambda p: p["attacks"]["attacks"][0].update(figure=float("inf"))), UsageError,
         "figure"),
        (_changed(lambda p: p["attacks"]["attacks"][0].update(trials="many")), UsageError,
         "trials"),
        (_changed(lambda p: p["attacks"]["pictures"][0].update(png="PHN2Zz4=")), UsageError, "png"),
        (json.dumps(ATTACKS).encode(), UsageError, "attacks"),
        (b"", UsageError, "the file"),
        (b"\xff\xfe", UsageError, "the file"),
        (b"[" * 100_000, UsageError, "the file"),
    ],
)  # fmt: skip
def test_attacks_that_were_altered_or_are_none_are_refused(tmp_path, data, error, what):
    path = tmp_path / "attacks.json"
    path.write_bytes(data)
    with pytest.raises(error, match=what):
        read_attacks(path)


def test_signed_attacks_are_verified_like_a_report(tmp_path, capsys):
    path = tmp_path / "attacks.json"
    path.write_bytes(sealed_attacks())
    key = KEY.verify_key().raw.hex()
    assert audit_verify.main([str(path), "--key", key]) == 0
    assert key in capsys.readouterr().out
    path.write_bytes(sealed_attacks().replace(b'"seed": 7', b'"seed": 8'))
    assert audit_verify.main([str(path)]) == 1
    assert "altered since" in capsys.readouterr().out


def test_a_missing_file_of_attacks_and_one_too_large_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="can be read"):
        read_attacks(tmp_path / "none.json")
    monkeypatch.setattr("chorister.server.attack_record.MOST_BYTES", 100)
    (tmp_path / "attacks.json").write_bytes(sealed_attacks())
    with pytest.raises(UsageError, match="at most 100 bytes"):
        read_attacks(tmp_path / "attacks.json")


def test_the_schema_of_attacks_is_the_published_one():
    shown = json.loads((ROOT / "docs" / "attacks.schema.json").read_text())
    assert shown == attacks_schema()
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads(sealed_attacks()), shown)


def test_keys_in_files_are_for_their_owner_and_of_the_right_kind(tmp_path):
    path = tmp_path / "key.pem"
    key = create_signing_key(path, SystemRandomness())
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_signing_key(path).verify_key() == key.verify_key()
    assert read_verify_key(str(path)) == key.verify_key()
    assert read_verify_key(key.verify_key().raw.hex()) == key.verify_key()
    path.chmod(0o644)
    with pytest.raises(UsageError, match="owner only"):
        read_signing_key(path)
    path.chmod(0o600)
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="Ed25519"):
        read_signing_key(path)
    for text in ("", "ab", "zz" * 32, str(tmp_path / "none")):
        with pytest.raises(UsageError, match="public key"):
            read_verify_key(text)


def test_the_summary_warns_where_a_figure_means_nothing(report):
    weak = report.figures[1].model_copy(update={"epsilon": 30.0, "label": NO_GUARANTEE})
    said = summarise("f", [weak], report.rounds, devices=4, simulated=False, sound=True,
                     withdrawn=1, purpose="")  # fmt: skip
    assert NO_GUARANTEE in said.replace("no meaningful guarantee", NO_GUARANTEE)
    assert "1 speaker withdrew" in said
    none = summarise("f", [], [], devices=0, simulated=False, sound=True, withdrawn=0, purpose="")
    assert "nothing bounds" in none


@pytest.mark.slow
def test_the_pdf_is_drawn(report, tmp_path):
    pytest.importorskip("weasyprint")
    from chorister.server.report_page import print_pdf

    pdf = print_pdf(render(report, KEY.verify_key()))
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert len(pdf) > 20_000  # text and two drawings


def test_entries_without_their_fields_are_a_contradiction_and_no_crash(tmp_path):
    ledger = LedgerFile(tmp_path / "ledger.jsonl", owner="server", federation="old")
    ledger.append("round", round="r/1", action="started", cohort=["a"], terms="0" * 64)
    ledger.append("survivors", round="r/1", survivors=["a"])
    found = build_report(
        [ledger.path], attacks=None, responsible=None, recording_segments=8, now_s=NOW
    )
    assert not found.sound
    assert any("2 entries lack the fields" in line for line in found.limits)
    assert "no meaningful" not in render(found, KEY.verify_key())


def test_a_personal_adapter_is_no_entry_without_its_round(tmp_path):
    ledger = LedgerFile(tmp_path / "ledger.jsonl", owner="ab" * 8, federation="none")
    ledger.append(
        "budget", step="spend", round="personal adapter 01", randomness="system",
        charges={"segment": {"mechanism": "gaussian, personal adapter"}},
    )  # fmt: skip
    found = build_report(
        [ledger.path], attacks=None, responsible=None, recording_segments=8, now_s=NOW
    )
    assert not any("lack the fields" in line for line in found.limits)
    assert found.sound
