"""When a device may train: power, idleness and hours, from sources that a test brings."""

import pytest

from chorister.client.conditions import (
    Conditions,
    JoinSettings,
    OtherPrograms,
    battery_is_drained,
    cpu_times,
    slept_s,
    within_hours,
)
from chorister.shared.errors import BadSettings


def conditions(drained=False, nobody=True, share=0.0, at=(12, 0), **settings):
    others = OtherPrograms(iter([(0.0, 0.0, 0.0), *[(100.0 * i, 100.0 * i * (1 - share), 0.0)
                                                     for i in range(1, 9)]]).__next__)  # fmt: skip
    made = Conditions(
        JoinSettings(**settings), drained=lambda: drained, nobody_there=lambda: nobody,
        others=others, local_time=lambda: at,
    )  # fmt: skip
    made.others.share()
    return made


def test_it_trains_on_mains_idle_and_at_any_hour_by_default():
    assert conditions().reason_to_wait() is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"drained": True}, "battery"),
        ({"nobody": False}, "somebody"),
        ({"share": 0.8}, "80%"),
        ({"hours": "22:00-07:00"}, "22:00-07:00"),
    ],
)
def test_each_condition_is_a_reason_in_plain_words(changed, why):
    assert why in conditions(**changed).reason_to_wait()


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        ({"drained": True}, {"on_mains": False}),
        ({"nobody": False, "share": 0.9}, {"idle": False}),
        ({"share": 0.8}, {"busy_share": 0.9}),
    ],
)
def test_each_condition_can_be_turned_off(changed, settings):
    assert conditions(**changed, **settings).reason_to_wait() is None


def test_what_a_machine_cannot_tell_is_no_reason():
    assert conditions(drained=None, nobody=None).reason_to_wait() is None
    unknown = Conditions(
        JoinSettings(), drained=lambda: None, nobody_there=lambda: None,
        others=OtherPrograms(lambda: None), local_time=lambda: (1, 1),
    )  # fmt: skip
    assert unknown.reason_to_wait() is None


@pytest.mark.parametrize(
    ("hours", "now", "inside"),
    [
        ("22:00-07:00", (23, 59), True), ("22:00-07:00", (6, 59), True),
        ("22:00-07:00", (7, 0), False), ("22:00-07:00", (21, 59), False),
        ("08:30-17:00", (8, 30), True), ("08:30-17:00", (17, 0), False),
        ("08:00-08:00", (3, 0), True), ("", (3, 0), True),
    ],
)  # fmt: skip
def test_hours_go_over_midnight(hours, now, inside):
    assert within_hours(hours, now) is inside


@pytest.mark.parametrize("hours", ["8-17", "24:00-01:00", "08:60-09:00", "always", "08:00"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(BadSettings, match="HH:MM"):
        JoinSettings.parse({"hours": hours}, "join.toml")
    with pytest.raises(BadSettings):
        within_hours(hours, (1, 1))


def supply(folder, name, **fields):
    (folder / name).mkdir(parents=True)
    for field, value in fields.items():
        (folder / name / field).write_text(value + "\n")


def test_the_batterys_own_files_say_whether_it_is_drained(tmp_path):
    assert battery_is_drained(tmp_path) is False, "no battery: on mains"
    supply(tmp_path, "AC", type="Mains", online="0")
    supply(tmp_path, "mouse", type="Battery", scope="Device", status="Discharging")
    assert battery_is_drained(tmp_path) is False, "a mouse is not the machine"
    supply(tmp_path, "BAT0", type="Battery", status="Charging")
    supply(tmp_path, "BAT1", type="Battery", status="Discharging")
    assert battery_is_drained(tmp_path) is True
    (tmp_path / "BAT1" / "status").write_text("Full\n")
    assert battery_is_drained(tmp_path) is False


def test_without_those_files_it_asks_the_system(tmp_path):
    assert battery_is_drained(tmp_path / "none") in (True, False, None)


def test_the_share_of_others_leaves_this_process_and_idleness_out():
    times = iter([(0.0, 0.0, 0.0), (100.0, 40.0, 50.0), (100.0, 40.0, 50.0), (200.0, 140.0, 50.0)])
    others = OtherPrograms(lambda: next(times))
    assert others.share() is None, "nothing to compare with"
    assert others.share() == pytest.approx(0.1)
    assert others.share() is None, "no time has passed"
    assert others.share() == 0.0


def test_this_machine_gives_times_and_how_long_it_slept():
    whole, idle, own = cpu_times()
    assert whole > idle >= 0.0
    assert own > 0.0
    assert slept_s() >= -0.1
