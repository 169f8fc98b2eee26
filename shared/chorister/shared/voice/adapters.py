"""The two adapters on a frozen base: a shared one that is federated, a personal one that stays.

Both add nothing until trained, and both live in layers whose per-example gradients Opacus has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.types import FloatArray
from chorister.shared.voice.adapter_spec import ENVELOPES, SharedAdapterSpec, layout_digest
from chorister.shared.voice.blocks import Block, Bottleneck
from chorister.shared.voice.decoder import CONDITION_SIZE, OutputShift
from chorister.shared.voice.model import VoiceModel


@dataclass(frozen=True, slots=True)
class PersonalAdapterSpec:
    """Layout of the personal adapter: an offset to the speaker's condition, and bottlenecks.

    Attributes:
        rank: width of the bottleneck in every decoder block; 0 for the offset alone.
    """

    rank: int = 16

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise BadSettings(
                "A personal adapter's rank is at least 0.", str(self.rank), "Choose such a rank."
            )

    @property
    def digest(self) -> str:
        """Names the layout: 64 hexadecimal digits."""
        return layout_digest("personal-bottleneck-1", asdict(self))


def attach_shared(model: VoiceModel, spec: SharedAdapterSpec) -> None:
    """Adds a shared adapter that changes nothing yet; replaces one that is attached.

    Args:
        model: changed in place; only the adapter's values require gradients by this.
        spec: its layout.
    """
    model.decoder.shared = OutputShift(spec.rank).to(_device(model))


def read_shared(model: VoiceModel) -> FloatArray:
    """The shared adapter's values.

    Returns:
        shape (d,), float32: direction by direction, the constant first, 160 values each.

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
    rows = np.ascontiguousarray(values.reshape(-1, ENVELOPES).T, np.float32)
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
    for block in _blocks(model):
        block.adapter = None
        if spec.rank:
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
