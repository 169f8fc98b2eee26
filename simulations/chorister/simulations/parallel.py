"""Where a training computes: on which device, and beside which other processes.

`torchrun` tells each process its rank in the environment. All hold the same weights, draw examples
of their own and average their gradients; the first one alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chorister.shared.errors import BadSettings

Precision = Literal["auto", "float32", "bfloat16"]

CPU = torch.device("cpu")
# The first process may analyse a whole corpus while the others wait for its cache.
_LONGEST_WAIT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: 0 for the first one, which writes files and speaks.
        count: how many there are.
        device: where this one computes.
        lower: type of the model's products and convolutions; None for float32.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU
    lower: torch.dtype | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes; all call it with the same list."""
        if self.count == 1:
            return
        learning = [one for one in parameters if one.requires_grad]
        # A loss that had nothing to judge in one process (no labelled frame) leaves no gradient.
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in learning]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for one, grad in zip(learning, grads, strict=True):
            one.grad = flat[start : start + grad.numel()].view_as(grad).clone()
            start += grad.numel()

    def share(self, *modules: nn.Module) -> None:
        """Give every process the weights and buffers of the first one."""
        if self.count == 1:
            return
        with torch.no_grad():
            for module in modules:
                for value in module.state_dict().values():
                    dist.broadcast(value, 0)

    def agree(self, value: float | None) -> float:
        """The first process's number; the others may pass None.

        Args:
            value: what the first one found.
        """
        told = torch.tensor(
            float("nan") if value is None else value, dtype=torch.float64, device=self.device
        )
        if self.count > 1:
            dist.broadcast(told, 0)
        return float(told)

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Run a block in the first process, then in the others: they find what it left."""
        if not self.is_first:
            self._meet()
        yield
        if self.is_first:
            self._meet()

    def _meet(self) -> None:
        if self.count > 1:
            self.agree(0.0)


def join(device: str = "auto", precision: Precision = "auto") -> Processes:
    """Find the device and, under torchrun, the other processes.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `bfloat16` for the model's products and convolutions, losses stay float32;
            `auto` does so on CUDA devices that compute in it, never on a CPU.

    Raises:
        BadSettings: the device or the precision is unknown or not there.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    where = _device(device, local)
    lower = _lower(precision, where)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if count > 1:
        backend = "nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_LONGEST_WAIT)
    return Processes(rank, count, where, lower)


def leave(processes: Processes) -> None:
    """Part from the other processes."""
    if processes.count > 1:
        dist.destroy_process_group()


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(name)
    except RuntimeError:
        where = torch.device("meta")
    if where.type not in {"cpu", "cuda"}:
        raise BadSettings(
            "A training runs on auto, cpu, cuda or cuda:N.", repr(name), "Choose one of them."
        )
    if where.type == "cpu":
        return where
    index = local if where.index is None else where.index
    if index >= torch.cuda.device_count():
        raise BadSettings(
            "A CUDA device must be there.",
            f"{name}, of {torch.cuda.device_count()} devices",
            "Use --device cpu, install PyTorch with CUDA, or start fewer processes.",
        )
    return torch.device("cuda", index)


def _lower(precision: Precision, where: torch.device) -> torch.dtype | None:
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "float32" or where.type == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else None


@contextmanager
def lower_precision(lower: torch.dtype | None, like: Tensor) -> Iterator[None]:
    """Compute products and convolutions in another type, on the device of a tensor.

    Args:
        lower: the type; None for float32.
        like: says which device.
    """
    if lower is None:
        yield
        return
    with torch.autocast(like.device.type, lower):
        yield
