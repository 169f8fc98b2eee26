"""Whole rounds between devices and a server: what a device sends, refuses, and books."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from chorister.client import contribute
from chorister.client.budget import DeviceBudget
from chorister.client.consent import withdraw
from chorister.client.secagg_party import Party
from chorister.server.round import run_round
from chorister.shared import codec
from chorister.shared.errors import (
    BadMessage,
    BadSettings,
    BudgetExhausted,
    ConsentRefused,
    ProtocolViolation,
)
from chorister.shared.exchanges import Assignment, Invitation
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.randomness import SystemRandomness
from chorister.shared.records import ADVERTISE, CONFIRM, CONTRIBUTE, REVEAL, SHARE
from chorister.shared.secagg.messages import Survivors
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.types import Adapter

ROUND = "run/1"


def journal(choir, name, file="budget.jsonl"):
    folder = choir.devices[name].rounds.folder.parent
    if not (folder / file).exists():
        return []
    return [json.loads(line) for line in read_lines(folder / file)]


def steps(choir, name):
    """What a device's budget went through, in order."""
    return [e["fields"]["step"] for e in journal(choir, name) if e["kind"] == "budget"]


def lose(choir, stage):
    """A choir whose first device is asked nothing from a stage on; it stands just before it."""
    choir.gone = {stage: {choir.names[0]}}
    run_round(choir, choir.operator, 1)
    return choir.names[0]


def request(choir, stage):
    """What another device was sent in a stage, for messages that are the same for all."""
    return choir.heard[stage, choir.names[1]]


def before_training(choir):
    """A choir whose first device was assigned its training and has not answered; its request."""
    name, kept = choir.names[0], []

    def down(exchange, device, message):
        if (exchange, device) == (CONTRIBUTE, name):
            kept.append(message)
            return None
        return message

    choir.down = down
    run_round(choir, choir.operator, 1)
    return name, kept[0]


def test_the_new_adapter_is_the_mean_of_the_clipped_deltas(choir, monkeypatch):
    singers = choir()
    deltas = []
    true = contribute.clip

    def spy(delta, clip_norm):
        deltas.append(true(delta, clip_norm).values)
        return true(delta, clip_norm)

    monkeypatch.setattr(contribute, "clip", spy)
    record = run_round(singers, singers.operator, 1)
    assert (record.status, record.survivors, record.reason) == ("finished", 4, None)
    assert not singers.errors
    new = singers.operator.registry.get(record.adapter_sha256).values
    assert np.linalg.norm(new) > 1e-3
    step = 1 / RoundTerms.from_bytes(Invitation.from_bytes(request(singers, ADVERTISE)).terms).scale
    assert step < 1e-4
    np.testing.assert_allclose(new, np.mean(deltas, axis=0), atol=step)


def test_with_noise_the_sum_is_exactly_that_of_the_noised_deltas(choir, monkeypatch):
    singers = choir(private=True)
    noised, quantised, terms = [], [], []
    true = contribute.add_noise

    def spy(delta, of_round, randomness):
        found = true(delta, of_round, randomness)
        quantised.append(delta.values)
        noised.append(found.values)
        terms.append(of_round)
        return found

    monkeypatch.setattr(contribute, "add_noise", spy)
    record = run_round(singers, singers.operator, 1)
    assert record.status == "finished"
    new = singers.operator.registry.get(record.adapter_sha256).values
    np.testing.assert_allclose(new, sum(noised) / 4 / terms[0].scale, rtol=1e-5, atol=1e-7)
    # Each device's share of noise is there, and no two are the same.
    shares = [n - q for n, q in zip(noised, quantised, strict=True)]
    for share in shares:
        assert 0.7 < share.var() / terms[0].client_variance < 1.4
    assert len({share.tobytes() for share in shares}) == 4


def test_two_rounds_start_from_the_newest_adapter(choir):
    singers = choir()
    one = run_round(singers, singers.operator, 1)
    two = run_round(singers, singers.operator, 2)
    assert two.status == "finished"
    assert two.adapter_sha256 != one.adapter_sha256
    assigned = Assignment.from_bytes(singers.heard[CONTRIBUTE, singers.names[0]])
    np.testing.assert_array_equal(
        assigned.adapter.values, singers.operator.registry.get(one.adapter_sha256).values
    )


@pytest.mark.parametrize(
    ("stage", "survivors", "booked"),
    [
        (ADVERTISE, 4, []),
        (SHARE, 4, []),
        (CONTRIBUTE, 4, []),
        (CONFIRM, 5, ["reserve", "spend"]),
        (REVEAL, 5, ["reserve", "spend"]),
    ],
)
def test_a_device_that_goes_at_any_exchange_costs_itself_only(choir, stage, survivors, booked):
    singers = choir(private=True, singers=5)
    name = lose(singers, stage)
    lines = [json.loads(line) for line in read_lines(singers.operator.ledger.path)]
    assert [e["fields"]["action"] for e in lines if e["kind"] == "round"][-1] == "finished"
    version = singers.operator.registry.latest()
    assert version.survivors == survivors
    assert steps(singers, name) == booked
    whole = ["reserve", "spend", "finish"]
    assert all(steps(singers, other) == whole for other in singers.names[1:])


def test_without_privacy_nothing_is_booked(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    assert all(steps(singers, name) == [] for name in singers.names)


def test_budget_is_reserved_before_training_and_spent_before_sending(choir, monkeypatch):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    seen = []
    train, keep = contribute.train_shared_adapter, type(singers.devices[name].rounds).keep

    def training(*arguments):
        seen.append(("training", steps(singers, name)))
        return train(*arguments)

    def keeping(self, *arguments):
        seen.append(("kept", steps(singers, name)))
        return keep(self, *arguments)

    monkeypatch.setattr(contribute, "train_shared_adapter", training)
    monkeypatch.setattr(type(singers.devices[name].rounds), "keep", keeping)
    contribute.contribute(singers.devices[name], ROUND, assignment)
    assert seen == [("training", ["reserve"]), ("kept", ["reserve"])]
    assert steps(singers, name) == ["reserve", "spend"]


class Killed(BaseException):
    """The process ends here: no handler of the device runs after it but `except BaseException`."""


@pytest.mark.parametrize(
    "where", ["train_shared_adapter", "clip", "quantise", "add_noise", "Party.mask", "keep"]
)
def test_what_fails_before_anything_left_gives_the_budget_back_once(choir, monkeypatch, where):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]

    def fail(*_):
        raise BadSettings("A delta is finite.", "a NaN", "Nothing was sent.")

    with monkeypatch.context() as patch:
        if where == "keep":
            patch.setattr(type(device.rounds), "keep", fail)
        elif where == "Party.mask":
            patch.setattr(Party, "mask", fail)
        else:
            patch.setattr(contribute, where, fail)
        with pytest.raises(BadSettings):
            contribute.contribute(device, ROUND, assignment)
    assert steps(singers, name) == ["reserve", "release"]
    assert device.budget.epsilon_speaker() == device.budget.epsilon_segment() == 0
    # A second try in the same round would be a second release of the same data: it is refused.
    with pytest.raises(ProtocolViolation, match="reserved once"):
        contribute.contribute(device, ROUND, assignment)


def test_a_kill_during_training_leaves_the_round_charged(choir, monkeypatch):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]
    with monkeypatch.context() as patch:
        # A killed process releases nothing.
        patch.setattr(type(device.budget), "release", lambda *_: None)
        patch.setattr(contribute, "train_shared_adapter", _kill)
        with pytest.raises(Killed):
            contribute.contribute(device, ROUND, assignment)
    assert steps(singers, name) == ["reserve"]
    assert device.budget.epsilon_speaker() == device.budget.epsilon_segment() == 1
    with pytest.raises(ProtocolViolation, match="reserved once"):
        contribute.contribute(device, ROUND, assignment)


def _kill(*_):
    raise Killed


def test_a_kill_between_spending_and_sending_stays_spent(choir, monkeypatch):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]
    with monkeypatch.context() as patch:
        patch.setattr(type(device.ledger), "append", _unless_permit(type(device.ledger).append))
        with pytest.raises(Killed):
            contribute.contribute(device, ROUND, assignment)
    assert steps(singers, name) == ["reserve", "spend"]
    with pytest.raises(ProtocolViolation, match="follows 'share'"):
        contribute.contribute(device, ROUND, assignment)


def _unless_permit(append):
    def failing(self, kind, **fields):
        if kind == "round":
            raise Killed
        return append(self, kind, **fields)

    return failing


def test_a_spend_that_cannot_be_written_sends_nothing_and_stays_reserved(choir, monkeypatch):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(device.budget), "spend", full)
        with pytest.raises(OSError, match="space"):
            contribute.contribute(device, ROUND, assignment)
    assert steps(singers, name) == ["reserve"]
    assert device.budget.epsilon_speaker() == 1


def test_training_answers_once_a_round(choir):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]
    contribute.contribute(device, ROUND, assignment)
    with pytest.raises(ProtocolViolation, match="follows 'share'"):
        contribute.contribute(device, ROUND, assignment)
    assert steps(singers, name) == ["reserve", "spend"]


def test_a_second_invitation_to_the_same_round_is_refused(choir):
    singers = choir(private=True)
    run_round(singers, singers.operator, 1)
    for name in singers.names:
        with pytest.raises(ProtocolViolation, match="once"):
            contribute.apply(singers.devices[name], ROUND, singers.heard[ADVERTISE, name])


def test_an_invitation_in_the_name_of_another_round_is_refused(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    with pytest.raises(ProtocolViolation, match="holds the terms of that round"):
        contribute.apply(singers.devices[singers.names[0]], "run/2", request(singers, ADVERTISE))


def test_a_replayed_request_is_refused(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    device = singers.devices[singers.names[0]]
    for stage, step in ((SHARE, "share"), (CONFIRM, "confirm"), (REVEAL, "reveal")):
        with pytest.raises(ProtocolViolation):
            getattr(contribute, step)(device, ROUND, singers.heard[stage, singers.names[0]])


def test_a_reveal_that_was_marked_and_lost_is_not_given_again(choir):
    singers = choir()
    name, kept = singers.names[0], {}

    def down(exchange, device, message):
        if device == name and exchange == REVEAL:
            sealed = next(singers.devices[name].rounds.folder.glob("*.sealed"))
            kept[sealed] = sealed.read_bytes()
        return message

    singers.down = down
    run_round(singers, singers.operator, 1)
    # As if the process had died between the mark and the removal of the state.
    for path, content in kept.items():
        path.write_bytes(content)
    with pytest.raises(ProtocolViolation, match="once a round"):
        contribute.reveal(singers.devices[name], ROUND, singers.heard[REVEAL, name])


def test_after_a_round_no_secret_of_it_is_left(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    for name in singers.names:
        assert not list(singers.devices[name].rounds.folder.glob("*.sealed"))


def test_a_round_that_was_never_joined_is_not_answered(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    device = singers.devices[singers.names[0]]
    for stage, step in ((SHARE, "share"), (CONTRIBUTE, "contribute"), (CONFIRM, "confirm")):
        with pytest.raises(ProtocolViolation, match="secrets"):
            getattr(contribute, step)(device, "run/9", request(singers, stage))


def test_garbage_is_an_error_of_ours_and_books_nothing(choir):
    singers = choir(private=True)
    name, _ = before_training(singers)
    for step in ("apply", "share", "contribute", "confirm", "reveal"):
        for garbage in (b"", b"\xff", b"\x80", b"\x81" * 400, codec.encode({"terms": 1})):
            with pytest.raises((BadMessage, ProtocolViolation)):
                getattr(contribute, step)(singers.devices[name], ROUND, garbage)
    assert steps(singers, name) == []


@pytest.mark.parametrize("change", ["values", "spec"])
def test_another_adapter_than_the_terms_name_is_refused_before_training(choir, change):
    singers = choir(private=True)
    name, message = before_training(singers)
    assignment = Assignment.from_bytes(message)
    calls = singers.model_calls
    forged = (
        Adapter(assignment.adapter.values + np.float32(1), assignment.adapter.spec)
        if change == "values"
        else Adapter(assignment.adapter.values, "0" * 64)
    )
    with pytest.raises(ProtocolViolation, match="adapter that the terms name"):
        contribute.contribute(
            singers.devices[name], ROUND, replace(assignment, adapter=forged).to_bytes()
        )
    assert steps(singers, name) == []
    assert singers.model_calls == calls


def test_an_adapter_that_was_pushed_far_is_refused_before_training(choir):
    """Whatever it does to a voice: the refusal depends on the adapter alone."""
    singers = choir(private=True)
    name, message = before_training(singers)
    norm = float(np.linalg.norm(Assignment.from_bytes(message).adapter.values))
    device = singers.devices[name]
    limits = replace(device.acceptance, most_adapter_norm=norm - 1e-3)
    with pytest.raises(ProtocolViolation, match="norm of at most"):
        contribute.contribute(replace(device, acceptance=limits), ROUND, message)
    assert steps(singers, name) == []
    enough = replace(device.acceptance, most_adapter_norm=norm + 1e-3)
    contribute.contribute(replace(device, acceptance=enough), ROUND, message)


def forbidden(singers, name, what):
    device = singers.devices[name]
    if what == "none":
        singers.change(name, consent=None)
    elif what == "withdrawn":
        singers.change(
            name, withdrawal=withdraw(device.consent, device.signing_key, now_s=device.now_s())
        )
    else:
        singers.change(name, now_s=lambda: 1_800_000_000 + 7200)


@pytest.mark.parametrize("what", ["none", "withdrawn", "expired"])
def test_without_consent_a_device_does_not_even_apply(choir, what):
    singers = choir(private=True)
    run_round(singers, singers.operator, 1)  # somebody else's messages, to be replayed
    other = type(singers)(singers.root.parent / "other", singers.model, singers.federation)
    name = other.names[0]
    forbidden(other, name, what)
    with pytest.raises(ConsentRefused):
        contribute.apply(other.devices[name], ROUND, request(singers, ADVERTISE))
    assert not list(other.devices[name].rounds.folder.iterdir())


@pytest.mark.parametrize("what", ["none", "withdrawn", "expired"])
def test_a_consent_that_ends_during_the_round_stops_it_before_training(choir, what):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    calls = singers.model_calls
    forbidden(singers, name, what)
    with pytest.raises(ConsentRefused):
        contribute.contribute(singers.devices[name], ROUND, assignment)
    assert singers.model_calls == calls
    assert steps(singers, name) == []
    assert journal(singers, name, "ledger.jsonl")[-1]["kind"] == "refusal"


def test_an_exhausted_budget_is_a_hard_stop_on_the_device(choir):
    singers = choir(private=True)
    name = singers.names[0]
    tired = type(singers)(
        singers.root.parent / "tired", singers.model, singers.federation, most_rounds=1
    ).devices[name]
    singers.devices[name] = tired
    one = run_round(singers, singers.operator, 1)
    two = run_round(singers, singers.operator, 2)
    assert (one.survivors, two.survivors) == (4, 3)
    assert isinstance(singers.errors[ADVERTISE, name], BudgetExhausted)
    assert tired.budget.epsilon_speaker() == 1


def test_a_delta_that_is_too_large_for_the_cohort_is_no_guarantee_and_no_round(choir, monkeypatch):
    # 4 ** -1.1 = 0.22
    monkeypatch.setattr(DeviceBudget, "delta_speaker", 0.25)
    singers = choir(private=True)
    record = run_round(singers, singers.operator, 1)
    assert record.status == "aborted"
    assert {type(e) for e in singers.errors.values()} == {BadSettings}
    assert "N^-1.1" in str(singers.errors[ADVERTISE, singers.names[0]])
    assert singers.model_calls == 0


def test_an_exhausted_segment_budget_stops_before_training(choir, choirs):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    device = singers.devices[name]
    path = device.rounds.folder.parent / "other.jsonl"
    poor = type(device.budget)(
        path, segment=choirs.rounds_limit(0), speaker=choirs.rounds_limit(9),
        device_id=name, federation="choir",
    )  # fmt: skip
    singers.change(name, budget=poor)
    calls = singers.model_calls
    with pytest.raises(BudgetExhausted, match="segment"):
        contribute.contribute(singers.devices[name], ROUND, assignment)
    assert singers.model_calls == calls
    assert poor.epsilon_speaker() == 0  # both or none


def test_a_device_that_pins_noise_trains_with_dp_sgd_only(choir):
    singers = choir(private=True)
    name = singers.names[0]
    run_round(singers, singers.operator, 1)
    invitation = Invitation.from_bytes(request(singers, ADVERTISE))
    task = invitation.task.model_copy(update={"segment_privacy": None})
    terms = replace(RoundTerms.from_bytes(invitation.terms), round=2)
    message = Invitation(terms.to_bytes(), task, invitation.witness).to_bytes()
    with pytest.raises(ProtocolViolation, match="DP-SGD only"):
        contribute.apply(singers.devices[name], "run/2", message)
    # A noise of 0 is no way around it.
    privacy = invitation.task.segment_privacy.model_copy(update={"noise_multiplier": 0.0})
    task = invitation.task.model_copy(update={"segment_privacy": privacy})
    with pytest.raises(BadSettings, match="noise_multiplier"):
        contribute.apply(
            singers.devices[name],
            "run/2",
            replace(invitation, terms=terms.to_bytes(), task=task).to_bytes(),
        )


def test_terms_without_noise_are_refused_by_a_device_that_pins_it(choir):
    plain = choir()
    run_round(plain, plain.operator, 1)
    private = type(plain)(
        plain.root.parent / "private", plain.model,
        plain.federation.model_copy(update={"private": True}),
    )  # fmt: skip
    device = private.devices[private.names[0]]
    invitation = Invitation.from_bytes(request(plain, ADVERTISE))
    task = invitation.task.model_copy(
        update={"segment_privacy": private.federation.segment_privacy}
    )
    with pytest.raises(ProtocolViolation, match="noise multiplier"):
        contribute.apply(device, ROUND, replace(invitation, task=task).to_bytes())


def test_a_simulated_round_never_uses_a_real_devices_randomness(choir):
    singers = choir()
    run_round(singers, singers.operator, 1)
    real = type(singers)(singers.root.parent / "real", singers.model, singers.federation)
    device = real.devices[real.names[0]]
    device = replace(
        device,
        randomness=SystemRandomness(),
        acceptance=replace(device.acceptance, simulated=False),
    )
    with pytest.raises(ProtocolViolation, match="randomness"):
        contribute.apply(device, ROUND, request(singers, ADVERTISE))


def test_a_device_without_segments_says_so_and_books_nothing(choir, material):
    singers = choir(private=True)
    name, assignment = before_training(singers)
    singers.change(name, load_material=lambda: material(0))
    with pytest.raises(BadSettings, match="at least one segment"):
        contribute.contribute(singers.devices[name], ROUND, assignment)
    assert steps(singers, name) == []


def test_a_set_of_survivors_without_this_device_is_not_signed(choir):
    singers = choir()
    name = lose(singers, CONFIRM)
    survivors = Survivors.from_bytes(request(singers, CONFIRM))
    fewer = replace(survivors, survivors=type(survivors.survivors).of([0]))
    with pytest.raises(ProtocolViolation):
        contribute.confirm(singers.devices[name], ROUND, fewer.to_bytes())


def test_what_leaves_a_device_holds_neither_delta_nor_names(choir, monkeypatch):
    singers = choir(private=True)
    sent, deltas = {}, []
    true = contribute.train_shared_adapter

    def spy(*arguments):
        deltas.append(true(*arguments))
        return deltas[-1]

    def up(exchange, device, message):
        sent[exchange, device] = message
        return message

    singers.up = up
    monkeypatch.setattr(contribute, "train_shared_adapter", spy)
    run_round(singers, singers.operator, 1)
    everything = b"".join(sent.values())
    for delta in deltas:
        assert delta.values[:4].tobytes() not in everything
    for name in singers.names:
        secret = singers.devices[name].signing_key.secret_bytes()
        assert secret not in everything
        assert b"segment" not in everything
    # Equal sizes: a message's length says nothing of its content.
    assert len({len(sent[CONTRIBUTE, name]) for name in singers.names}) == 1


def test_the_devices_ledger_tells_what_it_did(choir):
    singers = choir(private=True)
    run_round(singers, singers.operator, 1)
    entries = journal(singers, singers.names[0], "ledger.jsonl")
    actions = [e["fields"].get("action") for e in entries if e["kind"] in ("round", "consent")]
    assert actions == ["granted", "applied", "granted", "contributed", "revealed"]
    contributed = next(e for e in entries if e["fields"].get("action") == "contributed")
    assert contributed["fields"]["randomness"] == "simulated randomness, not private"
