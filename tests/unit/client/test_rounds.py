"""A round's sealed secrets: one round at a time, one stage after the other, revealed once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chorister.client.rounds import RoundStore
from chorister.shared.errors import ProtocolViolation
from chorister.shared.randomness import SystemRandomness

SYSTEM = SystemRandomness()
DAY_S = 86_400


@pytest.fixture
def store(tmp_path):
    return RoundStore(tmp_path, bytes(32))


def test_a_state_goes_from_stage_to_stage(store):
    store.begin("r/1", b"one", SYSTEM)
    assert store.take("r/1", "advertise") == b"one"
    store.keep("r/1", "share", b"two", SYSTEM)
    assert store.take("r/1", "share") == b"two"
    with pytest.raises(ProtocolViolation, match="'share' came last"):
        store.take("r/1", "advertise")


def test_a_round_begins_once_even_after_it_ended(store):
    store.begin("r/1", b"one", SYSTEM)
    with pytest.raises(ProtocolViolation, match="once"):
        store.begin("r/1", b"other", SYSTEM)
    store.end("r/1")
    with pytest.raises(ProtocolViolation, match="once"):
        store.begin("r/1", b"other", SYSTEM)


def test_an_ended_round_has_no_secret_and_reveals_once(store, tmp_path):
    store.begin("r/1", b"secret", SYSTEM)
    store.end("r/1")
    assert not list(tmp_path.glob("*.sealed"))
    with pytest.raises(ProtocolViolation, match="none for this round"):
        store.take("r/1", "advertise")
    with pytest.raises(ProtocolViolation, match="once a round"):
        store.end("r/1")


def test_a_new_round_forgets_the_secrets_of_one_that_never_ended(store):
    store.begin("r/1", b"one", SYSTEM)
    store.begin("r/2", b"two", SYSTEM)
    with pytest.raises(ProtocolViolation):
        store.take("r/1", "advertise")
    assert store.take("r/2", "advertise") == b"two"


def test_a_refused_second_begin_keeps_the_running_round(store):
    store.begin("r/1", b"one", SYSTEM)
    store.begin("r/2", b"two", SYSTEM)
    with pytest.raises(ProtocolViolation):
        store.begin("r/1", b"again", SYSTEM)
    assert store.take("r/2", "advertise") == b"two"


def test_what_lies_on_the_disk_is_not_the_secret(store, tmp_path):
    store.begin("r/1", b"a very secret state", SYSTEM)
    store.keep("r/1", "share", b"a very secret state", SYSTEM)
    for path in tmp_path.iterdir():
        assert b"secret" not in path.read_bytes()
        assert "r" not in path.name.split(".")[0]  # names say nothing of rounds
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:-1] + b"\x00" * 9, lambda d: d[:12]]
)
def test_a_damaged_state_ends_the_round(store, tmp_path, damage):
    store.begin("r/1", b"one", SYSTEM)
    (path,) = tmp_path.glob("*.sealed")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ProtocolViolation):
        store.take("r/1", "advertise")


def test_a_state_is_bound_to_key_round_and_stage(store, tmp_path):
    store.begin("r/1", b"one", SYSTEM)
    with pytest.raises(ProtocolViolation, match="opens with this device's key"):
        RoundStore(tmp_path, b"k" * 32).take("r/1", "advertise")
    (path,) = tmp_path.glob("*.sealed")
    relabelled = path.read_bytes().replace(b"advertise\n", b"confirm\n")
    path.write_bytes(relabelled)
    with pytest.raises(ProtocolViolation, match="opens with"):
        store.take("r/1", "confirm")
    store.begin("r/2", b"two", SYSTEM)
    (other,) = tmp_path.glob("*.sealed")
    other.write_bytes(relabelled.replace(b"confirm\n", b"advertise\n"))
    with pytest.raises(ProtocolViolation, match="opens with"):
        store.take("r/2", "advertise")


def test_the_store_shows_no_key(store):

    assert repr(store) == f"RoundStore({store.folder.name})"


@dataclass
class Clock:
    now_s: int = 1_800_000_000

    def __call__(self) -> int:
        return self.now_s


def test_a_device_begins_so_many_rounds_within_a_day_and_goes_on_afterwards(tmp_path):
    clock = Clock()
    store = RoundStore(tmp_path, bytes(32), most_a_day=2, now_s=clock)
    store.begin("r/1", b"one", SYSTEM)
    store.begin("r/2", b"two", SYSTEM)
    with pytest.raises(ProtocolViolation, match="at most 2 rounds in 24 hours"):
        store.begin("r/3", b"three", SYSTEM)
    assert store.take("r/2", "advertise") == b"two", "the round under way is not lost"
    clock.now_s -= 3600
    with pytest.raises(ProtocolViolation, match="at most 2 rounds in 24 hours"):
        store.begin("r/3", b"three", SYSTEM)
    # The marks count by what they say: those of a copied folder are all new by their files' times.
    clock.now_s += 3600 + DAY_S
    store.begin("r/3", b"three", SYSTEM)
    with pytest.raises(ProtocolViolation, match="once"):
        store.begin("r/1", b"again", SYSTEM)


def test_marks_of_a_clock_that_was_ahead_and_of_earlier_versions_close_no_device(tmp_path):
    clock = Clock()
    store = RoundStore(tmp_path, bytes(32), most_a_day=2, now_s=clock)
    clock.now_s += 400 * DAY_S
    store.begin("r/1", b"one", SYSTEM)
    clock.now_s -= 400 * DAY_S
    (tmp_path / "earlier.begun").write_bytes(b"")
    store.begin("r/2", b"two", SYSTEM)
    store.begin("r/3", b"three", SYSTEM)
    with pytest.raises(ProtocolViolation, match="at most 2 rounds in 24 hours"):
        store.begin("r/4", b"four", SYSTEM)
