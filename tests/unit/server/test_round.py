"""One round on the server: who is asked, what aborts it, what is written down."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from chorister.server import round as round_module
from chorister.server.round import run_round
from chorister.server.rounds import load_optimiser
from chorister.server.update import OptimiserState
from chorister.shared import codec
from chorister.shared.exchanges import Application
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.settings import Aggregation


def ledger(singers, kind=None):
    lines = [json.loads(line) for line in read_lines(singers.operator.ledger.path)]
    return [e["fields"] for e in lines if kind in (None, e["kind"])]


def bookings(singers):
    path = singers.operator.folder / "budget.jsonl"
    lines = [json.loads(line) for line in read_lines(path)]
    return [e["fields"]["step"] for e in lines if e["kind"] == "budget"]


def tampered(singers, stage, change):
    """Let a change be made to what devices answer in a stage."""
    singers.up = lambda e, d, m: change(d, m) if e == stage else m


def test_a_finished_round_is_counted_stage_by_stage(choir):
    singers = choir(private=True)
    first = singers.operator.registry.latest().sha256
    record = run_round(singers, singers.operator, 1)
    assert record.status == "finished"
    assert record.answered == dict.fromkeys((ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL), 4)
    assert record.drop_outs == dict.fromkeys((ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL), 0)
    assert record.refusals == {}
    assert record.adapter_sha256 not in ("", first)
    assert record.noise_multiplier >= singers.federation.speaker_privacy.noise_multiplier
    assert record.epsilon_speaker == 1
    assert record.bytes_up > 4 * 320 * 4
    assert bookings(singers) == ["reserve", "spend"]
    assert [e["action"] for e in ledger(singers, "round")] == ["started", "finished"]
    assert ledger(singers, "survivors")[0]["survivors"] == singers.names
    assert len(ledger(singers, "admission")) == 4


@pytest.mark.parametrize("stage", [ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL])
def test_too_few_survivors_abort_and_change_nothing(choir, stage):
    singers = choir(private=True)
    first = singers.operator.registry.latest()
    singers.gone = {stage: set(singers.names[:3])}
    record = run_round(singers, singers.operator, 1)
    assert record.status == "aborted"
    assert record.reason
    assert record.survivors == 0
    assert record.adapter_sha256 == first.sha256
    assert singers.operator.registry.versions() == (first,)
    assert record.drop_outs[stage] == 3
    # Spent for ever once training was asked for; given back where it never was.
    late = stage in (CONTRIBUTE, CONFIRM, REVEAL)
    assert bookings(singers) == ["reserve", "spend" if late else "release"]
    for name in singers.names:
        assert singers.operator.budget.epsilon(name) == late
    assert ledger(singers, "round")[-1]["action"] == "aborted"


def test_the_round_after_an_aborted_one_goes_on_from_the_same_adapter(choir):
    singers = choir(private=True)
    first = singers.operator.registry.latest()
    singers.gone = {CONTRIBUTE: set(singers.names[:3])}
    run_round(singers, singers.operator, 1)
    singers.gone = {}
    record = run_round(singers, singers.operator, 2)
    assert record.status == "finished"
    assert singers.operator.registry.latest().parent == first.sha256
    assert record.epsilon_speaker == 2


GARBAGE = [b"", b"\xff", b"\x81" * 400 + b"\x00", codec.encode({"advertisement": b""})]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_garbage_application_is_refused_and_in_the_ledger(choir, garbage):
    singers = choir()
    liar = singers.names[2]
    tampered(singers, ADVERTISE, lambda d, m: garbage if d == liar else m)
    singers.gone = {SHARE: set(singers.names)}  # the rest of the round is not looked at
    record = run_round(singers, singers.operator, 1)
    assert record.refusals["admission"] == 1
    (refusal,) = ledger(singers, "refusal")
    assert refusal["device"] == liar
    assert refusal["reason"]
    assert len(ledger(singers, "admission")) == 3


@pytest.mark.parametrize("stage", [SHARE, CONTRIBUTE, CONFIRM, REVEAL])
def test_garbage_from_one_device_costs_that_device(choir, stage):
    singers = choir(singers=5)
    liar = singers.names[2]
    tampered(singers, stage, lambda d, m: b"\x81" * 400 + b"\x00" if d == liar else m)
    record = run_round(singers, singers.operator, 1)
    assert record.status == "finished"
    assert record.survivors == (4 if stage in (SHARE, CONTRIBUTE) else 5)
    assert record.refusals == {"protocol": 1}
    assert [r["device"] for r in ledger(singers, "refusal")] == [liar]


def test_another_devices_application_admits_nobody_and_harms_nobody(choir):
    singers = choir()
    liar, victim = singers.names[0], singers.names[1]
    seen = {}

    def copy(device, message):
        seen[device] = message
        return None if device == liar else message

    tampered(singers, ADVERTISE, copy)
    true = singers.exchange

    def exchange(name, round_id, requests):
        answers, reasons = true(name, round_id, requests)
        if name == ADVERTISE:
            answers = {liar: seen[victim], **answers}
        return answers, reasons

    singers.exchange = exchange
    record = run_round(singers, singers.operator, 1)
    assert record.status == "finished"
    assert record.survivors == 3
    assert sorted(e["device"] for e in ledger(singers, "admission")) == singers.names[1:]
    assert ledger(singers, "refusal")[0]["reason"] == "another device's application"


@pytest.mark.parametrize("of", ["another round", "another device"])
def test_a_token_that_does_not_fit_is_refused(choir, of):
    singers = choir()
    tokens = {}

    def swap(device, message):
        application = Application.from_bytes(message)
        first = tokens.setdefault("first", application.consent_token)
        if of == "another round":
            plain = codec.decode(application.consent_token)
            plain["round_id"] = "run/7"
            return replace(application, consent_token=codec.encode(plain)).to_bytes()
        return replace(application, consent_token=first).to_bytes()

    tampered(singers, ADVERTISE, swap)
    record = run_round(singers, singers.operator, 1)
    assert record.status == "aborted"
    assert record.refusals["admission"] == (4 if of == "another round" else 3)
    assert len(ledger(singers, "refusal")) == record.refusals["admission"]


def test_a_revoked_device_is_not_asked(choir):
    singers = choir(singers=5)
    revoked = frozenset(singers.names[:1])
    operator = replace(singers.operator, revoked=lambda: revoked)
    record = run_round(singers, operator, 1)
    assert record.cohort == 4
    assert not any(device in revoked for _, device in singers.heard)


def test_an_exhausted_federation_asks_nobody(choir):
    singers = choir(private=True, most_rounds=1)
    assert run_round(singers, singers.operator, 1).status == "finished"
    singers.heard.clear()
    record = run_round(singers, singers.operator, 2)
    assert (record.status, record.cohort) == ("aborted", 0)
    assert record.reason == "0 of 4"
    assert record.refusals == {"budget": 4}
    assert record.epsilon_speaker == 1
    assert not singers.heard


def test_a_round_that_was_interrupted_is_not_run_again_under_its_name(choir, monkeypatch):
    # A server that died during round 1 is started again: the devices' masks of it are spent.
    singers = choir(private=True)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(round_module, "next_adapter", kill)
        with pytest.raises(KeyboardInterrupt):
            run_round(singers, singers.operator, 1)
    singers.heard.clear()
    record = run_round(singers, singers.operator, 1)
    assert record.status == "aborted"
    assert "reserved once" in record.reason
    assert not singers.heard
    assert run_round(singers, singers.operator, 2).status == "finished"


@pytest.mark.parametrize("present", [0, 1])
def test_fewer_than_two_devices_are_no_cohort(choir, present):
    singers = choir()
    singers.names = singers.names[:present]
    record = run_round(singers, singers.operator, 1)
    assert (record.status, record.reason) == ("aborted", f"{present} available")


def test_an_update_that_is_not_finite_leaves_the_adapter(choir, monkeypatch):
    singers = choir()
    first = singers.operator.registry.latest().sha256
    monkeypatch.setattr(round_module, "mean_delta", lambda *_: np.full(320, np.nan))
    record = run_round(singers, singers.operator, 1)
    assert record.status == "aborted"
    assert "finite: False" in record.reason
    assert record.adapter_sha256 == first


def test_fedadam_remembers_over_an_aborted_round(choir):
    settings = Aggregation(optimiser="fedadam", server_learning_rate=0.01)
    singers = choir()
    singers.federation = singers.federation.model_copy(update={"aggregation": settings})
    operator = singers.operator
    one = run_round(singers, operator, 1)
    kept = load_optimiser(operator.folder, one.adapter_sha256, 320)
    assert not np.array_equal(kept.first, OptimiserState.initial(320).first)
    singers.gone = {SHARE: set(singers.names)}
    two = run_round(singers, operator, 2)
    assert two.adapter_sha256 == one.adapter_sha256
    singers.gone = {}
    three = run_round(singers, operator, 3)
    after = load_optimiser(operator.folder, three.adapter_sha256, 320)
    # beta_1 of what round 1 left is in it.
    delta = (after.first - 0.9 * kept.first) / 0.1
    second = 0.99 * kept.second + 0.01 * delta**2
    np.testing.assert_allclose(after.second, second, rtol=1e-9)


def test_a_defect_is_not_hidden_as_an_aborted_round(choir, monkeypatch):
    singers = choir()

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(round_module, "check_norm", broken)
    with pytest.raises(ZeroDivisionError):
        run_round(singers, singers.operator, 1)


def test_devices_that_are_away_count_as_the_federation_for_delta(choir, choirs):
    loose = choirs.PRIVATE.speaker_privacy.model_copy(update={"delta_dp": 1e-3})
    federation = choirs.PRIVATE.model_copy(update={"speaker_privacy": loose})
    singers = choir(federation=federation)
    assert run_round(singers, singers.operator, 1).status == "finished"  # four of them: allowed
    away = [f"away {i}" for i in range(600)]
    singers.operator.budget.reserve("earlier", away, PrivacyEvent("skellam", 1.0, 1.0, 1))
    singers.operator.budget.spend("earlier")
    record = run_round(singers, singers.operator, 2)
    assert record.status == "aborted"
    assert "for 604 speakers" in record.reason
    assert not record.answered
