"""Settings files: what is wrong is named, with the nearest right thing, and nothing starts."""

from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorister.shared.errors import BadSettings
from chorister.shared.exchanges import RoundTask
from chorister.shared.settings import Federation, SegmentPrivacy, SpeakerPrivacy, read_toml


@pytest.mark.parametrize(
    ("text", "found", "advice"),
    [
        ("round = 3", "'round'", "Did you mean 'rounds'?"),
        ("[training]\nlocal_step = 3", "'training.local_step'", "Did you mean 'local_steps'?"),
        ("[speaker_privacy]\nclip = 1", "'speaker_privacy.clip'", "Did you mean 'clip_norm'?"),
        ("xyzzy = 1", "'xyzzy'", "Known keys: accountability, aggregation, name, private, rounds,"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(text, found, advice):
    with pytest.raises(BadSettings) as caught:
        Federation.parse(tomllib.loads(text), "choir.toml")
    assert caught.value.found == found
    assert advice in caught.value.advice
    assert "choir.toml" in caught.value.rule
    assert caught.value.exit_status == 2


def test_an_unknown_key_in_an_optional_table_comes_with_the_known_ones():
    with pytest.raises(BadSettings, match="Did you mean 'noise_multiplier'"):
        RoundTask.parse({"training": {}, "segment_privacy": {"noise_multiplied": 1.0}}, "task")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 0), ("rounds", 10_001), ("rounds", "3"), ("rounds", 2.5), ("rounds", True),
        ("private", "yes"), ("private", 1), ("name", ""), ("name", "x" * 65), ("name", 7),
        ("training.local_steps", 0), ("training.learning_rate", 0.0),
        ("training.learning_rate", math.inf), ("training.learning_rate", math.nan),
        ("training.momentum", 1.0), ("training", 3), ("training", None),
        ("segment_privacy.noise_multiplier", -1.0), ("segment_privacy.noise_multiplier", 0.0),
        ("speaker_privacy.noise_multiplier", 0.0), ("speaker_privacy.clip_norm", 0),
        ("speaker_privacy.delta_dp", 0.0), ("speaker_privacy.delta_dp", 0.1),
        ("speaker_privacy.epsilon_max", math.inf), ("aggregation.corrupt_fraction", 1.0),
        ("aggregation.modulus_bits", 33), ("aggregation.dropout_fraction", 0.51),
        ("aggregation.optimiser", "sgd"), ("aggregation.cohort_share", 0.0),
        ("aggregation.stage_deadline_s", 0),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_out_of_range_is_named(key, value):
    table, _, leaf = key.rpartition(".")
    plain = {table: {leaf: value}} if table else {leaf: value}
    with pytest.raises(BadSettings) as caught:
        Federation.parse(plain, "choir.toml")
    assert f"'{key}'" in caught.value.rule


def test_a_date_is_no_name():
    with pytest.raises(BadSettings, match="'rounds'"):
        Federation.parse(tomllib.loads("rounds = 2026-01-01"), "choir.toml")


def test_a_peers_huge_value_does_not_fill_the_ledger():
    with pytest.raises(BadSettings) as caught:
        RoundTask.parse({"training": "x" * 10**6, "segment_privacy": None}, "task")
    assert len(str(caught.value)) < 500
    with pytest.raises(BadSettings) as caught:
        RoundTask.parse({"training": {"y" * 10**6: 1}, "segment_privacy": None}, "task")
    assert len(str(caught.value)) < 500


def test_whole_numbers_serve_where_a_real_one_is_asked_for():
    assert Federation.parse({"training": {"learning_rate": 2}}, "x").training.learning_rate == 2.0


def test_noise_is_turned_off_by_private_and_by_nothing_else():
    for kind in (SegmentPrivacy, SpeakerPrivacy):
        with pytest.raises(ValueError, match="noise_multiplier"):
            kind(noise_multiplier=0.0)


def test_settings_do_not_change_and_come_back_from_their_own_json():
    federation = Federation(rounds=5)
    with pytest.raises(ValueError, match="frozen"):
        federation.rounds = 6
    assert Federation.parse(federation.model_dump(mode="json"), "x") == federation


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(BadSettings, match=r"none\.toml.*No such file"):
        Federation.load(tmp_path / "none.toml")
    with pytest.raises(BadSettings, match="directory"):
        read_toml(tmp_path)
    for content in (b"rounds = ", b"\xff\xfe", b"a = 1\na = 2"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(BadSettings, match="is TOML"):
            read_toml(tmp_path / "bad.toml")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
keys = st.sampled_from([*Federation.model_fields, "x"])


@given(st.dictionaries(keys, json_like, max_size=3))
def test_whatever_the_values_only_bad_settings_is_raised(values):
    try:
        Federation.parse(values, "fuzz")
    except BadSettings as error:
        assert "fuzz" in error.rule
