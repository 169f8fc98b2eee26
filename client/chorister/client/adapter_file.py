"""A shared adapter as the file that a federation hands out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BadWeights
from chorister.shared.files import write_atomically
from chorister.shared.types import Adapter
from chorister.shared.voice.adapter_spec import shared_layouts
from chorister.shared.voice.adapters import attach_shared, write_shared
from chorister.shared.voice.model import VoiceModel

_RULE = "A shared adapter is a safetensors file that a federation of Chorister wrote."
_ADVICE = "Copy it again from the run's folder adapters/."
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_adapter(path: Path) -> Adapter:
    """Reads an adapter; a file that is named by a digest must have it.

    Args:
        path: a file of a run's folder adapters/.

    Raises:
        BadWeights: missing, unreadable, no adapter, not finite, or of another content than its
            name says.
    """
    try:
        with safe_open(path, "np") as file:
            spec = (file.metadata() or {}).get("spec", "")
            values = file.get_tensor("values")
    except OSError as error:
        raise BadWeights(_RULE, f"{path}, {error.strerror or error}", "Check the path.") from error
    except SafetensorError as error:
        raise BadWeights(_RULE, f"{path.name}, unreadable ({error})", _ADVICE) from error
    if not _DIGEST.fullmatch(spec):
        raise BadWeights(_RULE, f"{path.name} without the name of its layout", _ADVICE)
    adapter = Adapter(np.asarray(values), spec)
    digest = adapter_digest(adapter)
    if _DIGEST.fullmatch(path.stem) and path.stem != digest:
        raise BadWeights(_RULE, f"{path.name} with digest {digest[:16]}...", _ADVICE)
    return adapter


def keep_adapter(folder: Path, adapter: Adapter) -> Path:
    """Writes an adapter, named by its digest, in the place of those that were there before.

    Args:
        folder: for it alone; made if absent.
        adapter: shape (d,).

    Returns:
        the file, which `read_adapter` reads.

    Raises:
        BadWeights: the adapter is not finite, or no vector.
        OSError: it cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{adapter_digest(adapter)}.safetensors"
    if not path.exists():
        data = save({"values": adapter.values}, metadata={"spec": adapter.spec})
        write_atomically(path, bytes(data))
    for old in folder.glob("*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def attach_adapter(model: VoiceModel, adapter: Adapter) -> None:
    """Puts a shared adapter into a model, whatever its rank and placement.

    Args:
        model: changed in place.
        adapter: shape (d,).

    Raises:
        BadWeights: its layout is none that this version knows, or the sizes differ.
    """
    known = shared_layouts()
    if adapter.spec not in known:
        raise BadWeights(
            "A shared adapter has a layout that this version knows.",
            f"layout {adapter.spec[:12]}",
            "Update the package.",
        )
    attach_shared(model, known[adapter.spec])
    write_shared(model, adapter.values)
