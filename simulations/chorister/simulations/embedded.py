"""The embedded corpus: synthetic speakers, so that a first run needs no data.

eSpeak NG speaks every sentence with every voice. Its voices are no people: they show that the
machinery works, and say nothing of how well a real voice is met. The sentences were written for
this package and are under its licence.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
import soxr

from chorister.shared.console import progress
from chorister.shared.errors import UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.loudness import match_level
from chorister.simulations.espeak import SpeechError, Voice, speak

MANIFEST = "corpus.json"
_FORMAT = 1
_LEVEL_LUFS = -25.0

# Chosen from 74 voices for the least likeness of the most alike pair (`separation` measures it).
# Variants with `breath` in their definition are left out: their bytes differ from run to run.
VOICES: Mapping[str, Voice] = MappingProxyType(
    {
        "amber": Voice("gmw/en-US+belinda"),
        "birch": Voice("gmw/en-029+Andy"),
        "cedar": Voice("gmw/en-GB-scotland+boris"),
        "dune": Voice("gmw/en-GB-x-rp+travis"),
        "ember": Voice("gmw/en-GB-x-rp+steph2"),
        "fern": Voice("gmw/en-029+Lee"),
        "grove": Voice("gmw/en+edward"),
        "heath": Voice("gmw/en-GB-x-rp+norbert"),
        "iris": Voice("gmw/en-GB-scotland+anika"),
        "juniper": Voice("gmw/en-US+iven2"),
        "kestrel": Voice("gmw/en-029+klatt2"),
        "linden": Voice("gmw/en-US+Marco", rate_wpm=200),
        "maple": Voice("gmw/en-GB-scotland+shelby"),
        "nettle": Voice("gmw/en+announcer"),
        "osier": Voice("gmw/en-GB-x-rp+gustave"),
        "pine": Voice("gmw/en-US+zac"),
    }
)

SENTENCES = (
    "The morning boat leaves before the fog has lifted.",
    "Zoe measured three yards of yellow cloth for the chair.",
    "We watched a thousand geese fly over the frozen pond.",
    "Please put the heavy box behind the kitchen door.",
    "Fresh bread and sharp cheese make a fine lunch.",
    "He could not hear the bell above the noise of the crowd.",
    "Joyce usually chooses the quiet table by the window.",
    "The old bridge shook as the lorry rolled across it.",
    "Pack the blue jumper, for the nights are cold up there.",
    "Our teacher explained how the moon pulls at the sea.",
    "A wise fox hides its tracks in shallow water.",
    "Both children laughed when the puppy chased its own tail.",
    "Turn left at the church, then follow the narrow lane.",
    "The judge asked every witness the same short question.",
    "Warm rain fell on the garden and woke the frogs.",
    "Thirty sailors shared one orange and a jug of ginger beer.",
    "I would rather walk than wait an hour for the train.",
    "Good singers listen first and breathe together.",
    "Those vague rumours have caused more trouble than they should.",
    "My father keeps his maps in a drawer under the stairs.",
    "She pushed the azure marble along the edge of the shelf.",
    "Vera found the missing key in the pocket of her coat.",
)


def embedded_corpus() -> Path:
    """Return the folder of the embedded corpus, synthesising it into the user's cache if needed.

    Raises:
        UsageError: the extra `embedded` is not installed, or the cache cannot be written.
    """
    return synthesise_corpus(_cache_folder() / f"embedded-{_recipe_digest()[:16]}", replace=True)


def synthesise_corpus(out: Path, *, replace: bool = False) -> Path:
    """Write the embedded corpus as SPEAKER/SPEAKER-NN.wav with SPEAKER.trans.txt, or nothing.

    The same versions give the same bytes. A folder that holds this corpus already, unchanged by
    its digests, is left alone.

    Args:
        out: folder to create; it may exist empty.
        replace: whether another content of `out` may be removed.

    Returns:
        `out`.

    Raises:
        UsageError: the extra `embedded` is not installed, `out` holds something else, it cannot be
            written, or the library fails.
    """
    if _is_complete(out):
        return out
    if not replace and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "The output folder must be new or empty.",
            f"{out} holds something else",
            "Choose another folder.",
        )
    library, data = find_library()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        _write(part, library, data)
        _move(part, out, replace)
    except OSError as error:
        raise UsageError(
            "The embedded corpus needs a writable folder and about 35 MB.",
            f"{out}: {error.strerror or error}",
            "Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _write(folder: Path, library: Path, data: Path) -> None:
    def one(name: str) -> tuple[str, list[FloatArray]]:
        return name, _speak(VOICES[name], library, data)

    digests: dict[str, str] = {}
    workers = min(4, os.cpu_count() or 1)
    with (
        progress("Synthesising the embedded corpus", len(VOICES)) as step,
        ThreadPoolExecutor(workers) as pool,
    ):
        for name, spoken in pool.map(one, VOICES):
            (folder / name).mkdir()
            lines = []
            for number, (samples, text) in enumerate(zip(spoken, SENTENCES, strict=True)):
                stem = f"{name}-{number:02}"
                path = folder / name / f"{stem}.wav"
                soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
                digests[f"{name}/{path.name}"] = _sha256(path)
                lines.append(f"{stem} {text}\n")
            words = folder / name / f"{name}.trans.txt"
            words.write_text("".join(lines), encoding="utf-8", newline="\n")
            digests[f"{name}/{words.name}"] = _sha256(words)
            step()
    manifest = {"recipe": _recipe_digest(), "synthesiser": _synthesiser(), "files": digests}
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")


def _speak(voice: Voice, library: Path, data: Path) -> list[FloatArray]:
    try:
        rate_hz, pcm = speak(voice, SENTENCES, library, data)
    except SpeechError as error:
        raise UsageError(
            "espeak-ng must speak every sentence of the embedded corpus.",
            f"voice {voice.identifier}: {error}",
            "Reinstall it (pip install --force-reinstall espeakng-loader), or use --data.",
        ) from error
    spoken = []
    for block in pcm:
        samples = np.frombuffer(block, "<i2").astype(np.float32) / np.float32(32768.0)
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
        spoken.append(match_level(samples - samples.mean(), _LEVEL_LUFS))
    return spoken


def find_library() -> tuple[Path, Path]:
    if find_spec("espeakng_loader") is None:
        raise UsageError(
            "The embedded corpus is spoken by espeak-ng's library.",
            "the package espeakng-loader is not installed",
            "Run pip install 'chorister[embedded]', or name a folder of speech with --data.",
        )
    import espeakng_loader

    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def _is_complete(folder: Path) -> bool:
    """Whether the folder holds the corpus of this recipe, byte for byte as it was written."""
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        same_recipe = manifest["recipe"] == _recipe_digest()
        files = manifest["files"].items()
        return same_recipe and all(_sha256(folder / name) == digest for name, digest in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _move(part: Path, out: Path, replace: bool) -> None:
    if replace and out.exists():
        shutil.rmtree(out)
    try:
        # An empty folder of that name is replaced by the system call; Windows wants it gone first.
        if os.name == "nt" and out.is_dir():
            out.rmdir()
        part.rename(out)
    except OSError:
        # Another process may have been quicker with the same bytes.
        if not _is_complete(out):
            raise


def _recipe_digest() -> str:
    voices = {name: asdict(voice) for name, voice in VOICES.items()}
    recipe = [_FORMAT, _LEVEL_LUFS, voices, SENTENCES, _synthesiser()]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _synthesiser() -> str:
    installed = find_spec("espeakng_loader") is not None
    return f"espeakng-loader {version('espeakng-loader')}" if installed else "none"


def _cache_folder() -> Path:
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA")
        default = Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return (Path(base) if base else default) / "chorister"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
