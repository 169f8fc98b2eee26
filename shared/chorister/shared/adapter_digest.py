"""A shared adapter's name: the digest of its content, the same on every side."""

from __future__ import annotations

import hashlib

import numpy as np

from chorister.shared.errors import BadWeights
from chorister.shared.types import Adapter


def adapter_digest(adapter: Adapter) -> str:
    """Return SHA-256 over the layout's digest and the values as float32, little-endian.

    Raises:
        BadWeights: the values are not a finite float32 vector, or the layout is no digest.
    """
    values = adapter.values
    if values.dtype != np.float32 or values.ndim != 1 or not np.isfinite(values).all():
        raise BadWeights(
            "An adapter is a vector of finite float32 values.",
            f"{values.dtype} of shape {values.shape}"
            + ("" if values.dtype.kind != "f" or np.isfinite(values).all() else ", not all finite"),
            "Do not use it; look at the round that made it.",
        )
    digest = hashlib.sha256(b"chorister/1 adapter\x00" + adapter.spec.encode() + b"\x00")
    digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()
