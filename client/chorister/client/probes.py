"""Speech that a personal voice is tried on: what others say, as content and pitch.

A conversion is only worth judging on words that came from somebody else. A device has nobody else's
recordings, so the package ships what twelve training speakers said for three seconds each, as the
content and pitch that the model makes of it: no recording, and of no use to another content
encoder. `chorister.simulations.judge_probes` makes the file; docs/model_card.md names the speakers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from chorister.client.calibration import statistics_of
from chorister.shared.errors import BadAudio, BadWeights
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray, Recording
from chorister.shared.voice.base import BASE_WEIGHTS
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.shared.voice.profile import LOUD_PERCENTILE, SPEECH_RANGE

PROBES_FILE = "probes.safetensors"
PROBES_FORMAT = "chorister-probes"
# Of the shipped file; to be changed with it.
PROBES_SHA256 = "e61f6c975462a0c30612c603b4f336009b75eaf6d84fc1c5e86112620d6765cb"
# Content is near a normal distribution: a step of a byte is 1/30 of its spread.
CONTENT_STEP = 1.0 / 30.0
_MOST_NAMED = 12
_NAMED_SAMPLES = 4 * SAMPLE_RATE_HZ
_LEAST_VOICED_FRAMES = 20
_RULE = "The probes must be the file that this version came with."
_ADVICE = "Reinstall the package, or make them by chorister.simulations.judge_probes."


@dataclass(frozen=True, slots=True)
class Probe:
    """Something said, to be said by another voice.

    Attributes:
        content: shape (F, C), as the model's encoder hears it.
        f0_hz: shape (F,), the speaker's own pitch, 0 where unvoiced.
        log_f0_median: of the speaker.
        log_f0_spread: of the speaker.
        spoken: shape (F,), which frames are no pause.
        phones: what a recogniser hears in the original; empty where none is installed.
    """

    content: FloatArray
    f0_hz: FloatArray
    log_f0_median: float
    log_f0_spread: float
    spoken: FloatArray
    phones: tuple[str, ...] = ()


def probe_of(recording: Recording, model: VoiceModel, recogniser: PhoneRecogniser | None) -> Probe:
    """A probe from speech that is at hand, heard by itself.

    Args:
        recording: at most its first four seconds are used.
        model: whose encoder hears it.
        recogniser: hears its phones; None for none.

    Raises:
        BadAudio: less than 0.2 s of it is voiced.
    """
    part = Recording(recording.samples[:_NAMED_SAMPLES], recording.name)
    heard = extract_features(part)
    if np.count_nonzero(heard.f0_hz) < _LEAST_VOICED_FRAMES:
        raise BadAudio(
            "A voice is tried on speech with at least 0.2 s of voiced sounds.",
            f"{np.count_nonzero(heard.f0_hz) / 100:.2f} s in {recording.name}",
            "Name another recording.",
        )
    known = statistics_of(part.samples, heard.f0_hz)
    content = model.content_of(heard.log_mel, known.mel_mean, known.mel_std)
    phones = () if recogniser is None else tuple(recogniser.recognise(part.samples))
    return Probe(
        content,
        heard.f0_hz,
        float(known.log_f0[0]),
        float(known.log_f0[1]),
        spoken_frames(heard.log_mel),
        phones,
    )


def probes_of(
    recordings: Sequence[Recording], model: VoiceModel, recogniser: PhoneRecogniser | None
) -> tuple[Probe, ...]:
    """Probes from as many as twelve recordings; those with hardly any speech are left out."""
    found = []
    for recording in recordings[:_MOST_NAMED]:
        with suppress(BadAudio):
            found.append(probe_of(recording, model, recogniser))
    return tuple(found)


def spoken_frames(log_mel: FloatArray) -> FloatArray:
    """1 for the frames that are no pause, else 0: shape (F, 80) to (F,)."""
    level = log_mel.mean(axis=1)
    kept = level > np.percentile(level, LOUD_PERCENTILE) - SPEECH_RANGE
    return np.asarray(kept, np.float32)


def encoder_sha256(model: VoiceModel) -> str:
    """Digest of a model's content encoder: what content means depends on it."""
    digest = hashlib.sha256(b"chorister/1 content encoder\x00")
    for name, value in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode() + b"\x00")
        digest.update(value.detach().cpu().float().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def shipped_probes(model: VoiceModel, path: Path | None = None) -> tuple[Probe, ...]:
    """The probes that the package ships for a model's content encoder.

    Args:
        model: the shipped base or streaming model, adapted or not.
        path: another file; None for the shipped one, whose digest is checked.

    Returns:
        the shipped probes; none where they were made for other encoders than this one.

    Raises:
        BadWeights: the file is missing, damaged or altered.
    """
    where = path or BASE_WEIGHTS.with_name(PROBES_FILE)
    key = f"content.{encoder_sha256(model)[:16]}"
    try:
        digest = hashlib.sha256(where.read_bytes()).hexdigest()
        if path is None and digest != PROBES_SHA256:
            raise BadWeights(_RULE, f"{where.name} with digest {digest[:16]}...", _ADVICE)
        with safe_open(where, "np") as file:
            told = json.loads((file.metadata() or {})[PROBES_FORMAT])
            if key not in file.keys():  # noqa: SIM118
                return ()
            arrays = {name: file.get_tensor(name) for name in ("f0_hz", "spoken", "log_f0")}
            content = file.get_tensor(key).astype(np.float32) * np.float32(CONTENT_STEP)
            phones = told["phones"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BadWeights(_RULE, f"{where.name}, unusable ({error})"[:200], _ADVICE) from error
    count = len(phones)
    rows = (np.split(array, count) for array in (content, arrays["f0_hz"], arrays["spoken"]))
    return tuple(
        Probe(said, f0.astype(np.float32), float(pitch[0]), float(pitch[1]), spoken, tuple(heard))
        for said, f0, spoken, pitch, heard in zip(*rows, arrays["log_f0"], phones, strict=True)
    )
