"""What stands behind the loop: the owner's decisions, one process a device, signals."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from chorister.client import take_part as module
from chorister.client.conditions import Conditions, JoinSettings, OtherPrograms
from chorister.client.consent import narrow
from chorister.client.daemon import pause
from chorister.client.home import open_home
from chorister.client.take_part import reason_to_wait
from chorister.client.vault import MOVED_FILE
from chorister.client.withdraw import withdraw
from chorister.server.round import run_round
from chorister.shared.errors import UsageError
from chorister.shared.records import ADVERTISE, HELLO

ALWAYS = Conditions(
    JoinSettings(), drained=lambda: False, nobody_there=lambda: True,
    others=OtherPrograms(lambda: None), local_time=lambda: (12, 0),
)  # fmt: skip


def reason(home):
    return reason_to_wait(home, "choir", ALWAYS)


def test_the_owners_decisions_come_before_the_machines(members):
    home = members(1).homes[0]
    assert reason(home) is None
    battery = Conditions(JoinSettings(), drained=lambda: True)
    assert "battery" in reason_to_wait(home, "choir", battery)
    pause(home.folder, paused=True)
    assert "paused" in reason_to_wait(home, "choir", battery)


def test_consent_membership_and_vault_are_looked_at_anew(members, member, material, tmp_path):
    found = members(1)
    home = found.homes[0]
    assert "none to 'quire'" in reason_to_wait(home, "quire", ALWAYS)
    (home.folder / MOVED_FILE).write_text("{}")
    assert "exported" in reason(home)
    (home.folder / MOVED_FILE).unlink()
    wide = member.a_home(tmp_path / "w", material, found.clock, purposes=("training", "conversion"))
    member.join(wide, member.an_invite())
    assert reason(wide) is None
    other = open_home(wide.folder, "correct horse", clock=found.clock)
    other.keep_consent(
        narrow(other.consent, other.key, purposes=("conversion",), now_s=found.clock()), "narrowed"
    )
    assert "conversion only" in reason(wide)
    found.clock.now_s += 2**26
    assert "ended" in reason(home)


def test_a_budget_that_is_used_up_is_a_reason(members, member, material, tmp_path):
    found = members(3)
    careful = member.a_home(tmp_path / "careful", material, found.clock)
    member.join(careful, member.an_invite(), limits=member.OwnerLimits(speaker_epsilon_max=4.0))
    both = member.Members(tmp_path / "both", [*found.homes, careful], found.clock)
    record = run_round(both, both.operator, 1)
    assert record.survivors == 4
    from chorister.client import installed
    from chorister.client.agreement import agreement

    agreed = agreement(careful, "choir")
    booked = installed.open_budget(careful, agreed, careful.device.name).epsilon_speaker()
    assert 0 < booked < 4.0
    member.agree(careful, agreed.invite, member.OwnerLimits(speaker_epsilon_max=booked))
    assert "speaker unit is used up" in reason(careful)


def test_a_withdrawal_is_no_reason_until_the_server_was_told(members):
    found = members(1)
    home = found.homes[0]
    withdraw(open_home(home.folder, "correct horse", clock=found.clock))
    assert reason(home) is None, "the server has to hear of it"
    assert "no notice" in reason_to_wait(home, "quire", ALWAYS)
    for exchange, word, ended in [
        (HELLO, "consent", False), ("query.share", "answered", False),
        (HELLO, "answered", True), (ADVERTISE, "answered", True),
    ]:  # fmt: skip
        assert bool(module._told_of_withdrawal(home.folder, exchange, word)) is ended


def test_a_new_invitation_is_dialled_without_a_restart(members, member, monkeypatch):
    found = members(1)
    home, dialled = found.homes[0], []
    monkeypatch.setattr(
        module, "connected",
        lambda server, root, key, guard: dialled.append((server, root, tuple(guard.allowed))),
    )  # fmt: skip
    line = module.Line(home, "choir")
    line.connect()
    assert not line.moved()
    newer = {"server": "127.0.0.1:9999", "root_certificate": "", "bundles": ("c" * 64,)}
    other = open_home(home.folder, "correct horse", clock=found.clock)
    member.agree(
        other, member.an_invite(issued_s=member.NOW_S + 1, **newer), member.OwnerLimits()
    )  # fmt: skip
    assert line.moved()
    line.connect()
    assert not line.moved()
    assert dialled == [("127.0.0.1:9092", "", ("b" * 64,)), tuple(newer.values())]
    withdraw(open_home(home.folder, "correct horse", clock=found.clock))
    assert not line.moved()
    line.connect()
    assert dialled[2] == dialled[1], "the server still hears of it"


def test_one_process_takes_part_for_a_device(tmp_path):
    alone = module._alone
    with alone(tmp_path), pytest.raises(UsageError, match="One process"), alone(tmp_path):
        pass
    with module._alone(tmp_path):
        pass


def test_a_signal_ends_it_after_what_is_under_way_and_a_second_at_once():
    over = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), module._until_told(over, None):
        os.kill(os.getpid(), signal.SIGTERM)
        assert over.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_time_ends_it_by_itself():
    over = threading.Event()
    with module._until_told(over, 0.05):
        assert over.wait(10)
