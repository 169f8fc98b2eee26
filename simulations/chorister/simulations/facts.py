"""What a run ran on: machine, versions and data, for run.json."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from chorister.shared.voice.audio import probe_recording
from chorister.simulations import recordings, speaker_device
from chorister.simulations.speakers import Speaker, split_speaker
from chorister.simulations.world import World

PACKAGES = ("torch", "flwr", "opacus", "numpy", "onnxruntime", "cryptography", "dp-accounting")


def machine() -> dict[str, Any]:
    """Return processor, system and versions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads_per_client": 1,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def data(world: World, embedded: bool) -> dict[str, Any]:
    """Return what the data are; every speaker is analysed already."""
    rows = [_speaker(world, speaker, "client") for speaker in world.clients]
    rows += [_speaker(world, speaker, "held_out") for speaker in world.held_out]
    return {
        "kind": "embedded" if embedded else world.layout,
        "root_name": None if embedded else world.root.name,
        "corpus_sha256": world.corpus_sha256,
        "shift": world.scenario.shift,
        "speakers": rows,
        "skipped": [{"name": name, "reason": reason} for name, reason in world.skipped],
    }


def _speaker(world: World, speaker: Speaker, role: str) -> dict[str, Any]:
    split = split_speaker(speaker)
    device = speaker_device.open_speaker(world, speaker)
    material = recordings.load_material(speaker, device.vault)

    def seconds(pieces: tuple[Any, ...]) -> float:
        found = 0.0
        for piece in pieces:
            stop_s = (
                probe_recording(piece.utterance.path)
                if piece.stop_samples is None
                else piece.stop_samples / 16_000
            )
            found += stop_s - piece.start_samples / 16_000
        return round(found, 2)

    parts = {
        "enrolment_s": seconds(split.enrolment),
        "training_s": seconds(split.training),
        "held_out_s": seconds(split.held_out),
    }
    return {
        "speaker": speaker.name,
        "role": role,
        "recordings": len(speaker.utterances),
        "seconds": round(sum(parts.values()), 2),
        **parts,
        "segments": len(material.segments),
        "note": "all from one recording" if split.single_recording else None,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
