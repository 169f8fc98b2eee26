import json
import os

import numpy as np
import pytest

from chorister.server.registry import INDEX, Registry
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BadWeights, UsageError
from chorister.shared.types import Adapter

SPEC = "5e" * 32


def adapter(start=0.0, spec=SPEC, size=7):
    return Adapter(np.arange(size, dtype=np.float32) + np.float32(start), spec)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "adapters")


def first_of(registry):
    return registry.store(adapter(), parent=None, round_id=None, survivors=0)


def test_the_name_depends_on_every_value_and_on_the_layout_alone():
    names = {
        adapter_digest(adapter()),
        adapter_digest(adapter(1)),
        adapter_digest(adapter(size=8)),
        adapter_digest(adapter(spec="00" * 32)),
    }
    assert len(names) == 4
    big_endian = Adapter(np.arange(7, dtype=np.float32), SPEC)
    assert adapter_digest(big_endian) == adapter_digest(adapter())


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.zeros(3, np.float64),
        np.zeros((2, 2), np.float32),
        np.zeros(3, np.int32),
    ],
)
def test_values_that_are_no_finite_float32_vector_are_refused(registry, values):
    with pytest.raises(BadWeights, match="finite float32"):
        registry.store(Adapter(values, SPEC), parent=None, round_id=None, survivors=0)
    assert registry.latest() is None


def test_versions_are_in_order_and_survive_a_restart(registry, tmp_path):
    assert registry.latest() is None
    first = first_of(registry)
    second = registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    again = Registry(tmp_path / "adapters")
    assert again.versions() == (first, second)
    assert again.latest() == second
    np.testing.assert_array_equal(again.get(second.sha256).values, adapter(1).values)
    assert again.get(second.sha256).spec == SPEC


def test_a_version_from_anything_but_the_newest_is_refused(registry):
    first = first_of(registry)
    registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    for parent in (first.sha256, None, "0" * 64):
        with pytest.raises(UsageError, match="newest"):
            registry.store(adapter(2), parent=parent, round_id="r2", survivors=5)


def test_another_layout_is_refused(registry):
    first = first_of(registry)
    with pytest.raises(BadWeights, match="one layout"):
        registry.store(adapter(spec="00" * 32), parent=first.sha256, round_id="r1", survivors=5)


def test_an_altered_file_is_refused(registry, tmp_path):
    first = first_of(registry)
    path = tmp_path / "adapters" / f"{first.sha256}.safetensors"
    sound = path.read_bytes()
    for bad in (b"", sound[:-1], sound[:-1] + b"\x7f", b"\xff" * 40, sound.replace(b"5e", b"5f")):
        path.write_bytes(bad)
        with pytest.raises(BadWeights, match="another content"):
            registry.get(first.sha256)
    path.unlink()
    with pytest.raises(BadWeights, match="holds every version"):
        registry.get(first.sha256)


@pytest.mark.parametrize("name", ["", "../../secret", "0" * 63, "G" * 64])
def test_what_is_no_digest_is_not_looked_up(registry, name):
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        registry.get(name)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"format": 9, "versions": []}', '{"format": 1, "versions": [{"sha256": "x"}]}'],
)
def test_a_damaged_list_is_refused(registry, tmp_path, content):
    (tmp_path / "adapters" / INDEX).write_text(content)
    with pytest.raises(BadWeights, match="lists the versions"):
        Registry(tmp_path / "adapters")


def test_a_list_with_a_version_taken_out_is_refused(registry, tmp_path):
    first = first_of(registry)
    second = registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    registry.store(adapter(2), parent=second.sha256, round_id="r2", survivors=5)
    path = tmp_path / "adapters" / INDEX
    plain = json.loads(path.read_text())
    del plain["versions"][1]
    path.write_text(json.dumps(plain))
    with pytest.raises(BadWeights, match="made from the one before"):
        registry.versions()


def test_a_full_disk_leaves_the_list_as_it_was(registry, monkeypatch):
    first = first_of(registry)

    def full(handle):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    monkeypatch.undo()
    assert registry.latest() == first


def test_going_back_forgets_later_versions_and_goes_on_from_there(registry):
    first = first_of(registry)
    second = registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    registry.truncate(first.sha256)
    assert registry.latest() == first
    registry.store(adapter(1), parent=first.sha256, round_id="r1", survivors=5)
    assert registry.latest() == second
    with pytest.raises(UsageError, match="goes back"):
        registry.truncate("0" * 64)
