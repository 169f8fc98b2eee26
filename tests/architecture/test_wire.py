"""Of all stages from a recording to an adapter only MaskedDelta has a wire form."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import typing
from types import ModuleType

import pytest

import chorister.shared.secagg as secagg
from chorister.shared import types
from chorister.shared.secagg import messages

PRIVATE = (
    types.Recording,
    types.FeatureSequence,
    types.AdapterDelta,
    types.ClippedDelta,
    types.NoisedDelta,
)


def _wire_messages() -> list[type]:
    return [
        value
        for value in vars(messages).values()
        if inspect.isclass(value) and hasattr(value, "to_bytes")
    ]


def _reachable(annotation: object) -> set[object]:
    found = {annotation}
    for part in typing.get_args(annotation):
        found |= _reachable(part)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        for hint in typing.get_type_hints(annotation).values():
            if hint not in found:
                found |= _reachable(hint)
    return found


def test_there_are_wire_messages() -> None:
    assert len(_wire_messages()) >= 5


@pytest.mark.parametrize("message", _wire_messages(), ids=lambda m: m.__name__)
def test_no_wire_message_holds_an_unmasked_stage(message: type) -> None:
    hints = typing.get_type_hints(message)
    found = set().union(*(_reachable(hint) for hint in hints.values())) if hints else set()
    assert not found & set(PRIVATE)


@pytest.mark.parametrize("stage", PRIVATE, ids=lambda t: t.__name__)
def test_a_private_stage_has_no_encoder(stage: type) -> None:
    assert not {"to_bytes", "to_plain", "__bytes__", "__getstate__"} & vars(stage).keys() - {
        "__getstate__"
    }


def test_one_message_holds_a_masked_delta() -> None:
    holders = [
        m.__name__
        for m in _wire_messages()
        if types.MaskedDelta in set().union(*map(_reachable, typing.get_type_hints(m).values()))
    ]
    assert len(holders) == 1


@pytest.mark.parametrize(
    "stage", [types.AdapterDelta, types.ClippedDelta, types.NoisedDelta], ids=lambda t: t.__name__
)
def test_a_private_stage_prints_no_values(stage: type) -> None:
    import numpy as np

    fields = {f.name: 3 for f in dataclasses.fields(stage)}
    fields["values"] = np.array([123.0, 456.0])  # type: ignore[assignment]
    assert "123" not in repr(stage(**fields))


def test_secagg_modules_do_no_io() -> None:
    package: ModuleType = secagg
    for info in pkgutil.iter_modules(package.__path__):
        module = __import__(f"chorister.shared.secagg.{info.name}", fromlist=["_"])
        source = inspect.getsource(module)
        assert "open(" not in source, info.name
        assert "import socket" not in source, info.name
