"""What of a speaker's recordings is analysed: once, and then kept in the device's vault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from chorister.client.material import Segments, analyse
from chorister.client.prepare import enrolment_gain, level_by, segments
from chorister.client.train import TrainingMaterial
from chorister.client.vault import Vault
from chorister.shared.console import progress
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.voice.base import load_base
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.speakers import Skipped, Speaker, split_speaker

# More recordings hardly change a profile, and each costs analysis time.
PROFILE_RECORDINGS = 12


def analyse_speakers(devices: Iterable[tuple[Speaker, Vault]], total: int) -> dict[str, str]:
    """Analyse every speaker and return those that cannot take part, with the reason.

    Args:
        devices: speakers with their vaults.
        total: how many there are.
    """
    unfit = {}
    with progress("Enrolling speakers", total) as step:
        for speaker, vault in devices:
            try:
                material = load_material(speaker, vault)
                held_out = load_segments(speaker, vault, "held_out")
            except (BadAudio, BadCorpus) as error:
                unfit[speaker.name] = f"{error.rule} Found: {error.found}."
            else:
                if not len(material.segments) or not len(held_out):
                    unfit[speaker.name] = "no audible segment to train on or to measure"
            step()
    return unfit


def load_profile(speaker: Speaker, vault: Vault) -> tuple[SpeakerProfile, float]:
    """Return a speaker's profile and gain by the enrolment set; kept in the vault once computed."""
    if vault.has("profile"):
        gain = float(np.frombuffer(vault.get("gain"), dtype="<f8")[0])
        return SpeakerProfile.from_bytes(vault.get("profile")), gain
    pieces = split_speaker(speaker).enrolment[:PROFILE_RECORDINGS]
    recordings = speaker.read_all(pieces, Skipped())
    gain = enrolment_gain(recordings)
    levelled = [level_by(r, gain) for r in recordings]
    profile = profile_from(levelled, load_speaker_encoder(), load_base())
    vault.put("gain", np.array([gain], dtype="<f8").tobytes())
    vault.put("profile", profile.to_bytes())
    return profile, gain


def load_material(speaker: Speaker, vault: Vault) -> TrainingMaterial:
    """Return what a speaker trains on: the enrolment set's profile, the training set's segments."""
    profile, _ = load_profile(speaker, vault)
    return TrainingMaterial(load_segments(speaker, vault, "training"), profile)


def load_segments(
    speaker: Speaker, vault: Vault, part: Literal["training", "held_out"]
) -> Segments:
    """Return the segments of a part of a speaker's recordings; kept in the vault once analysed."""
    if vault.has(part):
        return Segments.from_bytes(vault.get(part))
    _, gain = load_profile(speaker, vault)
    pieces = getattr(split_speaker(speaker), part)
    found = analyse(segments(speaker.read_all(pieces, Skipped()), gain=gain))
    vault.put(part, found.to_bytes())
    return found
