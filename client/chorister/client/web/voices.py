"""Voices at the page: make one from what was enrolled, speak with several side by side."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from chorister.client.controls import LIMITS, Controls
from chorister.client.sealed import exported, is_sealed, open_sealed
from chorister.client.web.jobs import Job, Step
from chorister.client.web.sounds import Sound
from chorister.client.web.studio import Studio
from chorister.shared.errors import UsageError
from chorister.shared.settings import Settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}")
STEPS = 120
Text = Annotated[str, Field(max_length=80)]


class NewVoice(Settings):
    """How a voice file is to be called, and how long to train at most."""

    name: Text
    steps: Annotated[int, Field(ge=1, le=2000)] = STEPS


class Wish(Settings):
    """One conversion: which sound, into which voice, changed how."""

    source: Text
    voice: Text
    pitch_st: float = 0.0
    formant: float = 1.0
    rate: float = 1.0
    energy_db: float = 0.0
    intonation: float = 1.0
    breathiness: float = 0.0


class Named(Settings):
    """A sound."""

    sound: Text


def make(studio: Studio, new: NewVoice) -> Job:
    """Begin to personalise from the enrolled recordings, into a sealed voice file.

    Raises:
        UsageError: a name that is none, or that exists.
        ConsentRefused: the consent does not cover it, or the vault is locked.
    """
    from chorister.client.own_voice import ask_permits, enrolled_material

    if not NAME.fullmatch(new.name):
        raise UsageError(
            "A voice is named by letters, digits, spaces, - and _, at most 40.",
            repr(new.name)[:60],
            "Choose another name.",
        )
    path = studio.place.voices / f"{new.name}.voice"
    if path.exists():
        raise UsageError("An existing file is not overwritten.", str(path), "Choose another name.")
    home = studio.home
    permits = ask_permits(home, plain=False)
    material = enrolled_material(home)

    def work(step: Step) -> dict[str, Any]:
        from chorister.client.own_voice import load_own_model, make_own_voice
        from chorister.client.personalise import PersonaliseSettings
        from chorister.shared.voice.speaker import load_speaker_encoder

        model, base_sha256 = load_own_model(studio.place.base)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = make_own_voice(
            model, base_sha256, None, material, load_speaker_encoder(), path,
            home=home, permits=permits, settings=PersonaliseSettings(steps=new.steps),
            on_step=step,
        )  # fmt: skip
        return {"voice": path.name, "verdict": made.result.verdict(), "kept": made.result.kept}

    title = f"Making {path.name} from {material.seconds:.0f} s of speech"
    return studio.worker.add("personalise", title, new.steps, work)


def convert(studio: Studio, wish: Wish) -> Job:
    """Begin a conversion.

    Raises:
        UsageError: no such sound or voice, or a control out of its range.
    """
    controls = Controls(**{name: getattr(wish, name) for name in LIMITS})
    source = studio.sounds.find(wish.source)
    if source.of:
        raise UsageError("What is converted was recorded.", "a conversion", "Choose a source.")
    path = _files(studio).get(wish.voice)
    if path is None:
        raise UsageError("A voice file is chosen.", "none of that name", "Reload the page.")
    identity, target = studio.sounds.place(".wav")
    home = studio.home if is_sealed(path) else None

    def work(step: Step) -> dict[str, Any]:
        from chorister.client.convert import convert_file
        from chorister.client.voice import open_voice

        # The vault is asked here, at the moment of use: each grant and refusal is in the ledger.
        voice = open_voice(path) if home is None else open_sealed(home, path)
        convert_file(voice, source.path, target, controls=controls, on_percent=step)
        with studio.lock:
            made = studio.sounds.keep(identity, target, path.stem, source.id, _in_words(controls))
        return {"sound": made.id}

    return studio.worker.add("convert", f"{source.name} as {path.stem}", 100, work)


def remove(studio: Studio, named: Named) -> dict[str, Any]:
    """Delete a sound, and what was made of it."""
    studio.sounds.remove(named.sound)
    return {}


def view(studio: Studio) -> dict[str, Any]:
    """Return voices, sounds and controls as plain JSON."""
    return {
        "folder": str(studio.place.voices),
        "voices": [
            {"id": identity, "name": path.stem, "path": str(path), "sealed": is_sealed(path)}
            for identity, path in _files(studio).items()
            if path.is_file()
        ],
        "sounds": [_plain(sound) for sound in studio.sounds.all()],
        "controls": [
            {"name": name, "low": one.low, "high": one.high, "neutral": one.neutral,
             "what": one.what.rstrip(",")}
            for name, one in LIMITS.items()
        ],
        "steps": STEPS,
    }  # fmt: skip


def _files(studio: Studio) -> dict[str, Path]:
    """Voice files by the name that the page uses: those the vault lists, and those named to us."""
    found = {made.voice: Path(made.path) for made in exported(studio.home)}
    return found | {f"file-{at}": path for at, path in enumerate(studio.place.files)}


def _plain(sound: Sound) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(sound).items() if name != "path"}
    return plain | {"seconds": round(sound.seconds, 2), "peaks": list(sound.peaks)}


def _in_words(controls: Controls) -> str:
    changed = [
        f"{name.partition('_')[0]} {value:g}"
        for name, value in asdict(controls).items()
        if value != LIMITS[name].neutral
    ]
    return ", ".join(changed)
