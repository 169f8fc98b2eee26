"""The two adapters on a frozen base: a shared one that is federated, a personal one that stays.

Both add nothing until trained, and both live in layers whose per-example gradients Opacus has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice.adapter_spec import (
    SharedAdapterSpec,
    check_placement,
    layout_digest,
)
from chorister.shared.voice.blocks import Block, Bottleneck
from chorister.shared.voice.decoder import CONDITION_SIZE, OutputShift
from chorister.shared.voice.model import VoiceModel

# Which of the decoder's blocks have a bottleneck; 'none' leaves the offset alone.
PersonalPlacement = Literal["all", "early", "late", "none"]


@dataclass(frozen=True, slots=True)
class PersonalAdapterSpec:
    """Layout of the personal adapter: an offset to the speaker's condition, and bottlenecks.

    Attributes:
        rank: width of the bottlenecks; 0 for the offset alone.
        placement: in which blocks of the decoder they are: 'all', the 'early' or the 'late' half
            (the one in the middle is a late one), or 'none' for the offset alone.
    """

    rank: int = 16
    placement: PersonalPlacement = "all"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise BadSettings(
                "A personal adapter's rank is at least 0.", str(self.rank), "Choose such a rank."
            )
        check_placement("personal", self.placement, get_args(PersonalPlacement))

    def blocks(self, count: int) -> range:
        """Indices of the blocks that have a bottleneck, of a decoder with `count` of them."""
        half = count // 2
        chosen = {"all": range(count), "early": range(half), "late": range(half, count)}
        return chosen.get(self.placement, range(0)) if self.rank else range(0)

    def size(self, width: int, count: int) -> int:
        """The number of values, for a decoder of so many channels and blocks."""
        bottleneck = 2 * width * self.rank + self.rank + width
        return CONDITION_SIZE + len(self.blocks(count)) * bottleneck

    @property
    def digest(self) -> str:
        """Names the layout: 64 hexadecimal digits."""
        values: dict[str, int | str] = {"rank": self.rank}
        if self.placement != "all":
            values["placement"] = self.placement
        return layout_digest("personal-bottleneck-1", values)


def attach_shared(model: VoiceModel, spec: SharedAdapterSpec) -> None:
    """Adds a shared adapter that changes nothing yet; replaces one that is attached.

    Args:
        model: changed in place; only the adapter's values require gradients by this.
        spec: its layout.
    """
    model.decoder.shared = OutputShift(spec.rank, spec.placement).to(_device(model))


def read_shared(model: VoiceModel) -> FloatArray:
    """The shared adapter's values.

    Returns:
        shape (d,), float32: direction by direction, the constant first, 160 values each (80 where
        it shifts one envelope).

    Raises:
        BadWeights: none is attached.
    """
    weight = _shared(model).shift.weight
    return np.asarray(weight.detach().cpu().numpy().T.reshape(-1), np.float32).copy()


def write_shared(model: VoiceModel, values: FloatArray) -> None:
    """Sets the shared adapter's values; all zero is the base itself.

    Args:
        model: changed in place.
        values: shape (d,), finite.

    Raises:
        BadWeights: none is attached, or other size, or not finite.
    """
    weight = _shared(model).shift.weight
    if values.shape != (weight.numel(),) or not np.isfinite(values).all():
        raise BadWeights(
            f"The attached shared adapter has {weight.numel()} finite values.",
            f"shape {values.shape}, finite: {bool(np.isfinite(values).all())}",
            "Use an adapter made for the same layout.",
        )
    rows = np.ascontiguousarray(values.reshape(-1, len(weight)).T, np.float32)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(rows))


def detach_shared(model: VoiceModel) -> None:
    """Takes the shared adapter off, if one is attached."""
    model.decoder.shared = None


def attach_personal(model: VoiceModel, spec: PersonalAdapterSpec) -> None:
    """Adds a personal adapter that changes nothing yet; replaces one that is attached.

    Args:
        model: changed in place; only the adapter's values require gradients by this.
        spec: its layout.
    """
    device = _device(model)
    offset = nn.Linear(1, CONDITION_SIZE, bias=False)
    nn.init.zeros_(offset.weight)
    model.decoder.condition.offset = offset.to(device)
    blocks = _blocks(model)
    chosen = spec.blocks(len(blocks))
    for index, block in enumerate(blocks):
        block.adapter = None
        if index in chosen:
            block.adapter = Bottleneck(model.settings.decoder_width, spec.rank).to(device)


def detach_personal(model: VoiceModel) -> None:
    """Takes the personal adapter off, if one is attached."""
    model.decoder.condition.offset = None
    for block in _blocks(model):
        block.adapter = None


def shared_parameters(model: VoiceModel) -> list[nn.Parameter]:
    """What is trained for the shared adapter.

    Raises:
        BadWeights: none is attached.
    """
    return list(_shared(model).parameters())


def personal_parameters(model: VoiceModel) -> list[nn.Parameter]:
    """What is trained for the personal adapter.

    Raises:
        BadWeights: none is attached.
    """
    return [parameter for _, parameter in _named_personal(model)]


def read_personal(model: VoiceModel) -> dict[str, Tensor]:
    """The personal adapter's tensors by name, copied to the CPU.

    Raises:
        BadWeights: none is attached.
    """
    return {name: value.detach().cpu().clone() for name, value in _named_personal(model)}


def write_personal(model: VoiceModel, values: dict[str, Tensor]) -> None:
    """Sets the personal adapter's tensors, as `read_personal` gave them.

    Raises:
        BadWeights: none is attached, or other names or shapes, or not finite.
    """
    own = dict(_named_personal(model))
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in values.items()}
    finite = all(bool(torch.isfinite(value).all()) for value in values.values())
    if expected != found or not finite:
        raise BadWeights(
            f"The attached personal adapter has {len(expected)} finite tensors of fixed shapes.",
            f"{len(found)} tensors, fitting: {expected == found}, finite: {finite}",
            "Use an adapter made for the same layout.",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def describe_shared(model: VoiceModel) -> str:
    """The attached shared adapter's layout in words, '' where none is."""
    shift = model.decoder.shared
    if shift is None:
        return ""
    return f"rank {shift.rank}, placement {shift.placement}, {shift.shift.weight.numel()} values"


def describe_personal(model: VoiceModel) -> str:
    """The attached personal adapter's layout in words, '' where none is."""
    if model.decoder.condition.offset is None:
        return ""
    adapters = {i: block.adapter for i, block in enumerate(_blocks(model)) if block.adapter}
    ranks = {adapter.down.out_features for adapter in adapters.values()}
    where = f"blocks {', '.join(map(str, adapters))}" if adapters else "no block"
    count = sum(parameter.numel() for parameter in personal_parameters(model))
    return f"rank {max(ranks, default=0)}, {where}, {count} values"


def _named_personal(model: VoiceModel) -> list[tuple[str, nn.Parameter]]:
    offset = model.decoder.condition.offset
    if offset is None:
        raise BadWeights(
            "A personal adapter must be attached first.", "none", "Call attach_personal."
        )
    named = [(f"offset.{name}", p) for name, p in offset.named_parameters()]
    for index, block in enumerate(_blocks(model)):
        if block.adapter is not None:
            named += [(f"{index}.{name}", p) for name, p in block.adapter.named_parameters()]
    return named


def _shared(model: VoiceModel) -> OutputShift:
    if model.decoder.shared is None:
        raise BadWeights("A shared adapter must be attached first.", "none", "Call attach_shared.")
    return model.decoder.shared


def _blocks(model: VoiceModel) -> list[Block]:
    return [block for block in model.decoder.blocks if isinstance(block, Block)]


def _device(model: VoiceModel) -> torch.device:
    return model.decoder.leave.weight.device
