"""The device that is installed on a machine: whole rounds from the vault, and what stops it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from chorister.client import contribute, installed
from chorister.client.agreement import OwnerLimits, folder_of
from chorister.client.consent import narrow
from chorister.client.enrol import TRAINING
from chorister.client.home import open_home
from chorister.client.outbox import Withdrawn
from chorister.client.vault import MOVED_FILE, VaultError
from chorister.client.withdraw import withdraw
from chorister.server.registry import Registry
from chorister.server.round import run_round
from chorister.shared.errors import (
    BadCorpus,
    BadSignature,
    BudgetExhausted,
    ConsentRefused,
    ProtocolViolation,
    RoundAborted,
    UsageError,
)
from chorister.shared.invite import ModelRelease
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.records import ADVERTISE, CONTRIBUTE
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import SharedAdapterSpec


def entries(members, name, file="ledger.jsonl"):
    path = folder_of(members.by_name[name].folder, "choir") / file
    return [json.loads(line) for line in read_lines(path)]


def test_installed_devices_go_through_rounds_with_real_randomness(members):
    found = members()
    opened = found.open(found.names[0])
    assert (opened.most_refusals, opened.rounds.most_a_day) == (100, 300)
    for number in (1, 2):
        record = run_round(found, found.operator, number)
        assert (record.status, record.survivors) == ("finished", 4), found.errors
    name = found.names[0]
    actions = [e["fields"].get("action") for e in entries(found, name) if e["kind"] == "round"]
    assert actions == ["applied", "contributed", "revealed"] * 2
    steps = [
        e["fields"]["step"] for e in entries(found, name, "budget.jsonl") if e["kind"] == "budget"
    ]
    assert steps == ["reserve", "spend", "finish"] * 2
    sent = next(e for e in entries(found, name) if e["fields"].get("action") == "contributed")
    assert sent["fields"]["simulated"] is False
    assert not list(folder_of(found.by_name[name].folder, "choir").glob("rounds/*.sealed"))


@pytest.mark.parametrize("placement", ["harmonic", "noise"])
def test_what_shifts_one_envelope_is_trained_where_the_invitation_says_so(
    members, member, placement
):
    spec = SharedAdapterSpec(1, placement)
    release = ModelRelease.sign(
        member.AUTHORITY, member.NAME, member.BASE_SHA256, spec, member.NOW_S
    )
    found = members(3, release=release)
    record = run_round(found, found.operator, 1)
    assert (record.status, record.survivors) == ("finished", 3), found.errors
    registry = found.operator.registry
    made = registry.get(registry.latest().sha256)
    assert made.spec == spec.digest
    assert made.values.shape == (160,)
    assert made.values.any()


@pytest.mark.parametrize("other", [SharedAdapterSpec(2), SharedAdapterSpec(1, "noise")])
def test_another_layout_than_the_authority_signed_is_not_trained(members, tmp_path, other):
    found = members(2)
    registry, spec = Registry(tmp_path / "other-layout"), other
    found.operator = replace(found.operator, registry=registry)
    registry.store(
        Adapter(np.zeros(spec.size, np.float32), spec.digest),
        parent=None, round_id=None, survivors=0,
    )  # fmt: skip
    run_round(found, found.operator, 1)
    for name in found.names:
        assert "layout" in str(found.errors[CONTRIBUTE, name])
        steps = [e["fields"]["step"] for e in entries(found, name, "budget.jsonl")[2:]]
        assert steps == ["reserve", "release"], "nothing left the device"


def test_what_another_process_changed_holds_from_the_next_message_on(members):
    found = members()
    home = found.by_name[found.names[0]]
    other = open_home(home.folder, "correct horse", clock=found.clock)
    other.vault.delete(TRAINING)
    record = run_round(found, found.operator, 1)
    assert record.survivors == 3
    assert isinstance(found.errors[CONTRIBUTE, found.names[0]], BadCorpus)
    steps = [e for e in entries(found, found.names[0], "budget.jsonl") if e["kind"] == "budget"]
    assert not steps, "nothing was trained, and nothing is charged"


def test_a_narrowed_consent_trains_nothing(members, member, material, tmp_path):
    found = members(2)
    home = member.a_home(
        tmp_path / "wide", material, found.clock, purposes=("training", "conversion")
    )
    member.join(home, member.an_invite())
    home.keep_consent(
        narrow(home.consent, home.key, purposes=("conversion",), now_s=found.clock()), "narrowed"
    )
    both = member.Members(tmp_path / "other", [*found.homes, home], found.clock)
    run_round(both, both.operator, 1)
    assert isinstance(both.errors[ADVERTISE, home.device.name], ConsentRefused)


def test_a_withdrawn_a_moved_and_an_unknown_device_are_not_opened(members):
    found = members(3)
    first, second, third = found.names
    withdraw(open_home(found.by_name[first].folder, "correct horse", clock=found.clock))
    with pytest.raises(Withdrawn) as told:
        found.open(first)
    assert told.value.notice.certificate.device_id == first
    (found.by_name[second].folder / MOVED_FILE).write_text("{}")
    with pytest.raises(VaultError, match="exported"):
        found.open(second)
    installed.unlock(found.by_name[third])
    with pytest.raises(UsageError, match="by an invitation"):
        installed.open_device({installed.FEDERATION: "quire"}, "", "")
    with pytest.raises(UsageError, match="by an invitation"):
        installed.open_device({}, "", "")
    found.clock.now_s += 2**26
    with pytest.raises(BadSignature, match="ended"):
        found.open(third)


def test_a_locked_vault_opens_by_its_file_or_not_at_all(members, monkeypatch, tmp_path):
    found = members(1)
    home = found.homes[0]
    installed.forget()
    monkeypatch.setenv("CHORISTER_VAULT", str(home.folder))
    monkeypatch.delenv("CHORISTER_PASSPHRASE_FILE", raising=False)
    config = {installed.FEDERATION: "choir"}
    with pytest.raises(VaultError, match="opens with a passphrase"):
        installed.open_device(config, "", "")
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    monkeypatch.setenv("CHORISTER_PASSPHRASE_FILE", str(path))
    # The clock of the vault's consent and certificate is the machine's own here.
    with pytest.raises(BadSignature, match="not ended") as refused:
        monkeypatch.setattr(
            "chorister.client.installed.open_home",
            lambda folder, passphrase: open_home(folder, passphrase, clock=lambda: 2**33),
        )
        installed.open_device(config, "", "")
    assert "Unix time" in str(refused.value)


def test_the_owners_limits_come_before_what_was_promised(members, member, material, tmp_path):
    found = members(1)
    home = member.a_home(tmp_path / "careful", material, found.clock)
    limits = OwnerLimits(
        least_cohort=9, least_noise_multiplier=3.0, speaker_epsilon_max=0.5, segment_epsilon_max=2.0
    )
    agreed = member.join(home, member.an_invite(), limits=limits)
    acceptance = agreed.acceptance()
    assert (acceptance.least_cohort, acceptance.least_noise_multiplier) == (9, 3.0)
    assert (agreed.speaker_limit().epsilon_max, agreed.segment_limit().epsilon_max) == (0.5, 2.0)
    assert not acceptance.simulated
    lax = OwnerLimits(least_cohort=2, least_noise_multiplier=0.1, speaker_epsilon_max=1e6)
    agreed = member.join(home, member.an_invite(), limits=lax)
    assert (
        agreed.acceptance().least_noise_multiplier == member.TERMS.speaker_privacy.noise_multiplier
    )
    assert agreed.speaker_limit().epsilon_max == member.TERMS.speaker_privacy.epsilon_max


def test_after_the_agreed_rounds_it_takes_part_no_more_until_more_are_agreed_to(members, member):
    terms = member.TERMS.model_copy(update={"rounds": 1})
    found = members(2, terms=terms)
    assert run_round(found, found.operator, 1).status == "finished"
    assert run_round(found, found.operator, 2).status == "aborted"
    assert isinstance(found.errors[ADVERTISE, found.names[0]], BudgetExhausted)
    assert "agreed to 1 rounds" in str(found.errors[ADVERTISE, found.names[0]])
    for home in found.homes:
        member.agree(home, member.an_invite(), OwnerLimits())
    assert run_round(found, found.operator, 3).status == "finished"


def test_rounds_below_what_was_agreed_are_refused(members):
    found = members(3, least_cohort=4)
    record = run_round(found, found.operator, 1)
    assert record.status == "aborted"
    assert all(isinstance(e, ProtocolViolation) for e in found.errors.values())
    assert "of 4 devices" in str(found.errors[ADVERTISE, found.names[0]])


def test_less_segment_noise_than_was_agreed_is_refused(members, member):
    more = member.TERMS.segment_privacy.model_copy(update={"noise_multiplier": 2.0})
    found = members(2, terms=member.TERMS.model_copy(update={"segment_privacy": more}))
    run_round(found, found.operator, 1)
    assert "segment noise" in str(found.errors[ADVERTISE, found.names[0]])


def test_a_machine_that_slept_past_the_stages_end_is_charged_nothing(members):
    found = members(2)
    name = found.names[0]
    found.gone = {CONTRIBUTE: {name}}
    run_round(found, found.operator, 1)
    request = found.heard[CONTRIBUTE, name]
    installed.unlock(found.by_name[name])
    for ends_s, sent in [(time.time() - 1.0, False), (time.time() + 1000.0, True)]:
        config = {installed.FEDERATION: "choir", installed.ENDS_S: ends_s}
        device = installed.open_device(config, CONTRIBUTE, "run/1")
        if sent:
            # What was reserved and given back may not be reserved again under the same name.
            with pytest.raises(ProtocolViolation):
                contribute.contribute(device, "run/1", request)
        else:
            with pytest.raises(RoundAborted, match="over"):
                contribute.contribute(device, "run/1", request)
    steps = [e["fields"]["step"] for e in entries(found, name, "budget.jsonl")[2:]]
    assert steps == ["reserve", "release"]


def spoilt(found):
    """The server's newest adapter, pushed far within the norm that devices take."""
    registry = found.operator.registry
    old = registry.get(registry.latest().sha256)
    rng = np.random.default_rng(1)
    values = rng.normal(size=len(old.values)).astype(np.float32)
    values *= np.float32(90.0 / np.linalg.norm(values))
    return registry.store(
        type(old)(values, old.spec), parent=registry.latest().sha256, round_id=None, survivors=0
    )


def test_an_adapter_that_harms_gets_zeros_and_the_server_sees_no_difference(members, monkeypatch):
    found = members()
    spoilt(found)
    quantised = []
    true = contribute.quantise
    monkeypatch.setattr(
        contribute, "quantise", lambda c, *rest: quantised.append(c.values) or true(c, *rest)
    )
    record = run_round(found, found.operator, 1)
    assert (record.status, record.survivors) == ("finished", 4)
    assert not found.errors
    assert record.refusals == {}
    assert all(not values.any() for values in quantised)
    noted = [e["fields"] for e in entries(found, found.names[0]) if e["kind"] == "refusal"]
    assert len(noted) == 1
    assert "held-out loss" in noted[0]["found"]
    own = folder_of(found.by_name[found.names[0]].folder, "choir")
    assert not list(own.glob("adapters/*"))
    assert list(own.glob("harmful-adapters/*")), "as many writes as for one that does no harm"
    steps = [
        e["fields"]["step"]
        for e in entries(found, found.names[0], "budget.jsonl")
        if e["kind"] == "budget"
    ]
    assert steps == ["reserve", "spend", "finish"], "charged as always"


def test_an_adapter_that_does_no_harm_is_trained_from(members, monkeypatch):
    found = members()
    clipped = []
    true = contribute.quantise
    monkeypatch.setattr(
        contribute, "quantise", lambda c, *rest: clipped.append(c.values) or true(c, *rest)
    )
    run_round(found, found.operator, 1)
    assert len(clipped) == 4
    assert all(values.any() for values in clipped)
    assert not [e for e in entries(found, found.names[0]) if e["kind"] == "refusal"]
