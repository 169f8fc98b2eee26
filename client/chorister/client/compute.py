"""On what a device computes: CUDA, MPS or the CPU, with how many threads and how much memory.

A GPU is used where torch finds one, and given up for this process when it fails: a round on the CPU
is better than none. Nothing here changes what is trained, only where.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from chorister.shared.errors import UsageError

Wanted = Literal["auto", "cpu", "cuda", "mps"]
WANTED: tuple[Wanted, ...] = ("auto", "cpu", "cuda", "mps")
_GIB = 2**30
_failed: set[str] = set()
_Result = TypeVar("_Result")


def best_device(wanted: Wanted = "auto") -> torch.device:
    """Return what to compute on.

    Args:
        wanted: 'auto' takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: a device that torch does not find on this machine.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(n for n in there if there[n] and n not in _failed))
    if not there[wanted]:
        raise UsageError(
            f"torch {torch.__version__} finds the device '{wanted}'.",
            ", ".join(name for name, found in there.items() if found),
            "Install the driver and a torch that is built for it, or choose auto.",
        )
    return torch.device(wanted if wanted not in _failed else "cpu")


def with_fallback(device: torch.device, act: Callable[[torch.device], _Result]) -> _Result:
    """Return what an action gives on a device, or on the CPU where a GPU fails.

    A GPU that failed (out of memory, a missing operation, a driver that was lost in sleep) is not
    tried again by this process.

    Raises:
        RuntimeError, TypeError: it fails on the CPU as well.
    """
    try:
        return act(device)
    # Torch's, of which running out of memory is one; a TypeError says that MPS has no float64.
    except (RuntimeError, TypeError):
        if device.type == "cpu":
            raise
        _failed.add(device.type)
        return act(torch.device("cpu"))


def limit_process(threads: int | None, memory_gib: float | None) -> None:
    """Bound what this process takes of the machine, from here on.

    Args:
        threads: of torch and the libraries under it; None for half of the cores.
        memory_gib: of data; None for no bound. A round that needs more fails and is released.
    """
    count = threads or max(1, (os.cpu_count() or 2) // 2)
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
    if memory_gib is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = int(memory_gib * _GIB)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
