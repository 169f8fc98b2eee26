"""The base model's weights: written by the training, pinned by digest, read with every check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from chorister.shared.errors import BadSettings, BadWeights
from chorister.shared.voice.base_digest import BASE_SHA256
from chorister.shared.voice.model import ModelSettings, VoiceModel

BASE_FORMAT = "chorister-base"
BASE_FORMAT_VERSION = 3
BASE_WEIGHTS = Path(__file__).parent / "weights" / "base.safetensors"
_TRAINED_ON = "trained_on"
# The settings that every file states; the others only where they are not the default.
_SIZES = frozenset(field.name for field in fields(ModelSettings) if field.type == "int")
_RULE = "The base model must be a weights file that this version understands."
_REINSTALL = "Reinstall the package, or train a base with `chorister train-base`."


def save_base(
    model: VoiceModel,
    path: Path,
    precision: torch.dtype = torch.float32,
    *,
    trained_on: Collection[str] = (),
) -> str:
    """Writes a model without adapters, whole or not at all.

    Args:
        model: adapters, if attached, are left out.
        path: where to; replaced if it exists.
        precision: how its values are stored; they are float32 again when they are read.
        trained_on: labels of the speakers that it was trained on, for those who measure it.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.
    """
    state = {
        name: value.detach().to(precision).contiguous()
        for name, value in model.state_dict().items()
        if not _is_adapter(name)
    }
    sizes = {
        field.name: getattr(model.settings, field.name)
        for field in fields(ModelSettings)
        if field.name in _SIZES or getattr(model.settings, field.name) != field.default
    }
    header: dict[str, Any] = sizes | {"format_version": BASE_FORMAT_VERSION}
    if trained_on:
        header[_TRAINED_ON] = sorted(set(trained_on))
    # One entry: safetensors writes several in a random order, and the digest would change.
    metadata = {BASE_FORMAT: json.dumps(header, sort_keys=True)}
    part = path.with_suffix(".part")
    save_file(state, part, metadata)
    # safetensors writes for its owner alone; a package is read by others.
    part.chmod(0o644)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    part.replace(path)
    return digest


def _is_adapter(name: str) -> bool:
    return name.startswith(("decoder.shared.", "decoder.condition.offset.")) or ".adapter." in name


def load_base(path: Path | None = None) -> VoiceModel:
    """The frozen base model.

    Args:
        path: a weights file; None for the shipped one, whose digest is checked.

    Returns:
        a new model on the CPU, float32, in evaluation mode, without gradients.

    Raises:
        BadWeights: missing or unreadable file, wrong digest, newer format, wrong shapes.
    """
    return read_weights(path or BASE_WEIGHTS, BASE_SHA256 if path is None else None)


def read_weights(source: Path, sha256: str | None) -> VoiceModel:
    """`load_base` for any file in the base's format.

    Args:
        source: a weights file.
        sha256: what its digest must be; None if any will do.

    Raises:
        BadWeights: as `load_base`.
    """
    try:
        data_digest = hashlib.sha256(source.read_bytes()).hexdigest()
        if sha256 is not None and data_digest != sha256:
            raise BadWeights(_RULE, f"{source.name} with digest {data_digest[:16]}...", _REINSTALL)
        with safe_open(source, "pt") as file:
            settings = _settings_from(file.metadata() or {}, source.name)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        found = f"{source.name}, {error.strerror or error}"
        raise BadWeights(_RULE, found, _REINSTALL) from error
    except SafetensorError as error:
        raise BadWeights(_RULE, f"{source.name}, unreadable ({error})", _REINSTALL) from error
    model = VoiceModel(settings)
    try:
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise BadWeights(_RULE, f"{source.name}, unfitting ({reason})", _REINSTALL) from error
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise BadWeights(_RULE, f"{source.name}, values that are not finite", _REINSTALL)
    return model.requires_grad_(False).eval()


def trained_on(path: Path | None = None) -> frozenset[str]:
    """Labels of the speakers that a base was trained on, as its weights file says.

    Args:
        path: a weights file; None for the shipped one.

    Returns:
        the labels; empty where the file does not say.

    Raises:
        BadWeights: missing, unreadable or of another format.
    """
    source = path or BASE_WEIGHTS
    try:
        with safe_open(source, "pt") as file:
            header = json.loads((file.metadata() or {}).get(BASE_FORMAT, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise BadWeights(_RULE, f"{source.name}, unreadable ({error})", _REINSTALL) from error
    names = header.get(_TRAINED_ON, []) if isinstance(header, dict) else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadWeights(_RULE, f"{source.name} with a damaged list of speakers", _REINSTALL)
    return frozenset(names)


def _settings_from(metadata: dict[str, str], name: str) -> ModelSettings:
    if BASE_FORMAT not in metadata:
        raise BadWeights(_RULE, f"{name} of another format", _REINSTALL)
    try:
        header = json.loads(metadata[BASE_FORMAT])
        version = int(header["format_version"])
        if version > BASE_FORMAT_VERSION:
            raise BadWeights(_RULE, f"{name} of newer format {version}", "Update the package.")
        if version < BASE_FORMAT_VERSION:
            found = f"{name} of format {version} instead of {BASE_FORMAT_VERSION}"
            raise BadWeights(_RULE, found, "Train it again with this version.")
        sizes: dict[str, Any] = {}
        for field in fields(ModelSettings):
            if field.name in _SIZES:
                sizes[field.name] = int(header[field.name])
            elif field.name == "decoder_recurrent":
                sizes[field.name] = bool(header.get(field.name, False))
            else:
                sizes[field.name] = tuple(int(n) for n in header.get(field.name, ()))
        return ModelSettings(**sizes)
    except (KeyError, TypeError, ValueError, BadSettings) as error:
        found = f"{name} with a damaged header ({type(error).__name__}: {error})"
        raise BadWeights(_RULE, found, _REINSTALL) from error
