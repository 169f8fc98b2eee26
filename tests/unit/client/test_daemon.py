"""The loop of a device that takes part, against a server, clocks and conditions of a test."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from chorister.client.bundle_guard import BadBundle
from chorister.client.daemon import (
    IDLE_S,
    LEAST_BACK_OFF_S,
    MOST_BACK_OFF_S,
    MOST_ROUND_S,
    QUICK_S,
    SLOW_S,
    STATUS_FILE,
    Clocks,
    Daemon,
    is_paused,
    pause,
)
from chorister.shared.errors import BadMessage, ChoristerError
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines


class Lost(ChoristerError):
    """The network of a test is gone."""


@dataclass
class Letter:
    exchange: str
    round_id: str = "run/1"
    ends_s: float = 1e12


@dataclass
class Time:
    """Time that passes only where somebody waits."""

    now: float = 1000.0
    slept: float = 0.0
    waits: list = field(default_factory=list)
    on_wait: object = None

    def clocks(self):
        return Clocks(
            monotonic=lambda: self.now, wall=lambda: 1e9 + self.now + self.slept,
            slept=lambda: self.slept, wait=self.wait,
        )  # fmt: skip

    def wait(self, over, seconds):
        self.waits.append(seconds)
        self.now += seconds
        if self.on_wait is not None:
            self.on_wait()
        if len(self.waits) > 2000:
            over.set()


class Server:
    """A script: a letter, None, or an error a pull; ends the daemon when it is read out."""

    def __init__(self, daemon, script, words=()):
        self.daemon, self.script, self.words = daemon, list(script), list(words)
        self.answered, self.connections = [], 0

    @contextmanager
    def connect(self):
        self.connections += 1
        if self.script and isinstance(self.script[0], Lost) and self.script[0].args[0] == "connect":
            raise self.script.pop(0)
        yield self

    def pull(self):
        if not self.script:
            self.daemon.over.set()
            return None
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def answer(self, letter, federation, clock):
        assert federation == "choir"
        word = self.words.pop(0) if self.words else "answered"
        if isinstance(word, Exception):
            raise word
        self.answered.append((letter.exchange, word))
        return word


def lost(where="pull"):
    error = Lost("It holds.", "it does not", "Wait.")
    error.args = (where,)
    return error


@pytest.fixture
def make(tmp_path):
    def make(script=(), words=(), reason=lambda: None, **more):
        time = Time()
        daemon = Daemon(
            federation="choir", folder=tmp_path, connect=lambda: server.connect(),  # noqa: PLW0108
            reason_to_wait=reason,
            ledger=lambda: LedgerFile(tmp_path / "ledger.jsonl", owner="me", federation="choir"),
            clocks=time.clocks(), **more,
        )  # fmt: skip
        server = Server(daemon, script, words)
        states = []
        daemon.on_change = lambda state, why: states.append((state, why))
        return daemon, server, time, states

    return make


def status(tmp_path):
    return json.loads((tmp_path / STATUS_FILE).read_bytes())


def refusals(tmp_path):
    path = tmp_path / "ledger.jsonl"
    lines = [json.loads(line) for line in read_lines(path)] if path.exists() else []
    return [e["fields"] for e in lines if e["kind"] == "refusal"]


def test_it_connects_answers_and_stops(make, tmp_path):
    daemon, server, _, states = make([Letter("query.hello", ""), None])
    daemon.run()
    assert server.answered == [("query.hello", "answered")]
    assert [s for s, _ in states] == ["connected", "stopped"]
    assert status(tmp_path)["state"] == "stopped"


def test_it_does_not_connect_while_there_is_a_reason_to_wait(make, tmp_path):
    reasons = iter(["the machine runs on its battery"] * 3 + [None] * 100)
    daemon, server, time, states = make([None], reason=lambda: next(reasons))
    daemon.run()
    assert states[0] == ("waiting", "the machine runs on its battery")
    assert time.waits[:3] == [30.0] * 3
    assert server.connections == 1


def test_a_reason_that_comes_later_ends_the_connection_but_not_a_round(make):
    reason = {"is": None}
    daemon, server, time, states = make(
        [
            Letter("query.advertise", ends_s=1e9 + 1300.0), *[None] * 40,
            Letter("query.reveal", ends_s=1e9 + 1300.0), *[None] * 40,
        ],
        reason=lambda: reason["is"],
    )  # fmt: skip
    waited = []

    def now_a_reason():
        reason["is"] = "somebody uses the machine"
        if states[-1][0] == "waiting":
            waited.append(len(server.answered))
            daemon.over.set()

    time.on_wait = now_a_reason
    daemon.run()
    assert server.answered == [("query.advertise", "answered"), ("query.reveal", "answered")]
    assert waited == [2], "the round was finished first"
    assert server.connections == 1


def test_a_round_that_nobody_goes_on_with_is_not_waited_for_for_ever(make):
    reason = {"is": None}
    daemon, _, time, states = make(
        [Letter("query.advertise", ends_s=1e9 + 1100.0), *[None] * 1900],
        reason=lambda: reason["is"],
    )

    def change():
        reason["is"] = "battery"
        if states[-1][0] == "waiting":
            daemon.over.set()

    time.on_wait = change
    daemon.run()
    assert states[-2] == ("waiting", "battery")
    assert time.now < 1000.0 + 60.0 + 30.0 + 100.0 + 40.0


def test_a_server_that_says_that_a_round_takes_years_does_not_keep_a_pause_away(make):
    reason = {"is": None}
    daemon, _, time, states = make(
        [Letter("query.hello"), *[None] * 1900], reason=lambda: reason["is"]
    )

    def paused():
        reason["is"] = "paused"
        if states[-1][0] == "waiting":
            daemon.over.set()

    time.on_wait = paused
    daemon.run()
    assert states[-2] == ("waiting", "paused")
    assert time.now < 1000.0 + MOST_ROUND_S + 60.0
    assert not daemon.in_round()


def test_rounds_without_an_end_do_not_keep_a_new_invitation_away(make):
    letters = [[Letter("query.advertise", f"run/{i}"), *[None] * 12] for i in range(160)]
    daemon, server, _, _ = make(
        [one for some in letters for one in some], moved=lambda: server.connections == 1
    )
    daemon.run()
    assert server.connections == 2


def test_a_refused_round_is_not_waited_for(make):
    daemon, _, _, _ = make(
        [Letter("query.advertise"), Letter("query.share")], ["answered", "protocol"]
    )
    daemon.run()
    assert not daemon.in_round()


def test_it_asks_quickly_after_a_message_and_then_less_and_less_often(make):
    in_round = Letter("query.advertise", ends_s=1e9 + 9000.0)
    daemon, _, time, _ = make([*[None] * 30, in_round, *[None] * 30])
    daemon.run()
    idle, busy = time.waits[:30], time.waits[30:]
    assert idle[0] == busy[0] == QUICK_S
    assert idle == sorted(idle)
    assert (max(idle), max(busy[:30])) == (IDLE_S, SLOW_S)
    assert sum(idle[:5]) < 5.0, "a device that has just connected is soon found"


def test_a_long_idle_time_does_not_overflow(make):
    daemon, _, time, _ = make([None] * 1500)
    daemon.run()
    assert time.waits[-2] == IDLE_S


def test_a_network_that_is_gone_is_tried_less_and_less_often(make):
    daemon, server, time, states = make([lost("connect") for _ in range(12)])
    daemon.run()
    away = [why for state, why in states if state == "away"]
    assert "again in 2 s" in away[0]
    assert f"again in {MOST_BACK_OFF_S:.0f} s" in away[-1]
    assert server.connections == 13, "and connected at last"
    assert sum(time.waits) < 12 * MOST_BACK_OFF_S


def test_a_connection_that_breaks_is_made_anew(make):
    daemon, server, _, states = make([Letter("query.hello", ""), lost(), Letter("query.hello", "")])
    daemon.run()
    assert len(server.answered) == 2
    assert [s for s, _ in states] == ["connected", "away", "connected", "stopped"]
    assert f"{LEAST_BACK_OFF_S:.0f} s" in states[1][1]


def test_a_machine_that_slept_connects_anew_at_once(make):
    daemon, server, time, states = make([None, None, Letter("query.hello", "")])
    time.on_wait = lambda: setattr(
        time, "slept", time.slept + (3600.0 if len(time.waits) == 1 else 0)
    )
    daemon.run()
    assert server.connections == 2
    assert [s for s, _ in states] == ["connected", "stopped"], "no back-off, no error"


def test_a_machine_that_wakes_up_does_not_sit_out_a_back_off(make):
    daemon, server, time, _ = make([lost("connect") for _ in range(9)])
    time.on_wait = lambda: setattr(time, "slept", time.slept + 60.0)
    daemon.run()
    assert server.connections == 10
    assert sum(time.waits) <= 10 * 5.0 + SLOW_S


def test_a_server_that_moved_is_dialled_anew_between_rounds(make):
    daemon, server, _, _ = make([None] * 400, moved=lambda: server.connections == 1)
    daemon.run()
    assert server.connections == 2


def test_a_message_that_comes_too_late_trains_nothing(make):
    daemon, server, _, _ = make([Letter("train.contribute", ends_s=5.0)])
    daemon.run()
    assert server.answered == []


def test_a_bad_bundle_and_a_bad_message_are_noted_and_the_loop_goes_on(make, tmp_path):
    bad = BadBundle("Known ones.", "digest abc", "None run.")
    odd = BadMessage("Bytes.", "others", "Drop it.")
    daemon, server, _, states = make(
        [Letter("query.hello", ""), Letter("query.share"), Letter("query.hello", "")],
        [bad, odd, "answered"],
    )
    daemon.run()
    assert [f["found"] for f in refusals(tmp_path)] == ["digest abc", "others"]
    assert server.answered == [("query.hello", "answered")]
    assert [s for s, _ in states] == ["connected", "stopped"]


def test_a_server_that_is_refused_again_and_again_does_not_fill_the_disk(make, tmp_path):
    letters = [Letter("query.share", f"run/{i}") for i in range(300)]
    odd = BadMessage("Bytes.", "others", "Drop it.")
    daemon, _, _, _ = make(letters, [odd] * 300)
    daemon.run()
    assert [f["number"] for f in refusals(tmp_path)] == [*range(1, 102), 200]


def test_a_ledger_that_takes_no_entry_does_not_end_the_loop(make, tmp_path):
    bad = BadBundle("Known ones.", "digest abc", "None run.")
    daemon, server, _, _ = make([Letter("query.hello", "")] * 2, [bad, "answered"])

    def full():
        raise OSError(28, "No space left on device")

    daemon.ledger = full
    daemon.run()
    assert server.answered == [("query.hello", "answered")]


def test_it_ends_when_the_server_was_told_of_a_withdrawal(make, tmp_path):
    daemon, server, _, states = make(
        [Letter("query.hello", "")] * 5,
        ended=lambda exchange, word: "withdrawn, and told" if word == "answered" else None,
    )
    assert daemon.run() == "withdrawn, and told"
    assert len(server.answered) == 1
    assert states[-1] == ("stopped", "withdrawn, and told")


def test_a_pause_outlives_the_process(tmp_path):
    assert not is_paused(tmp_path)
    assert pause(tmp_path, paused=True)
    assert not pause(tmp_path, paused=True), "as before"
    assert is_paused(tmp_path)
    assert pause(tmp_path, paused=False)
    assert not is_paused(tmp_path)


def test_the_status_file_is_not_written_every_half_second(make, tmp_path, monkeypatch):
    from chorister.client import daemon as module

    written = []
    monkeypatch.setattr(module, "write_atomically", lambda path, data: written.append(data))
    daemon, _, time, _ = make([None] * 100)
    daemon.run()
    assert len(written) < 3 + sum(time.waits) / 10.0
