"""What some training speakers say, as content and pitch, for devices to try personal voices on.

    python -m chorister.simulations.judge_probes --data ../shared/data/librispeech/test-clean
        --split ../shared/data/librispeech/splits.json:base --out FILE

That line made shared/voice/weights/probes.safetensors. It belongs to the content encoders of the
shipped base and streaming model, and is to be made again when one of them changes: what they are
named by stands in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from chorister.client.probes import CONTENT_STEP, PROBES_FORMAT, encoder_sha256, spoken_frames
from chorister.shared.console import say
from chorister.shared.errors import BadCorpus, UsageError
from chorister.shared.types import SAMPLE_RATE_HZ, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.base import load_base
from chorister.shared.voice.features import extract_features
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import find_recogniser
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.shared.voice.stream_weights import load_stream
from chorister.simulations.corpus import open_corpus
from chorister.simulations.speakers import Speaker
from chorister.simulations.trials import read_sexes, read_speakers

SPEAKERS = 12
PROBE_S = 3.0
_ENROLLED = 6
_SHORTEST_S = 5.0
# Into the recording: most begin with a pause.
_START_S = 0.5


def choose_speakers(speakers: list[Speaker], sexes: dict[str, str], count: int) -> list[Speaker]:
    """The first speakers with enough recordings, women and men in turn where that is known.

    Raises:
        BadCorpus: fewer than `count`.
    """
    enough = [one for one in speakers if len(one.utterances) > _ENROLLED + 1]
    women = [one for one in enough if sexes.get(one.name) == "F"]
    men = [one for one in enough if sexes.get(one.name) == "M"]
    paired = [one for pair in zip(women, men, strict=False) for one in pair]
    chosen = (paired if len(paired) >= count else enough)[:count]
    if len(chosen) < count:
        raise BadCorpus(
            f"Probes come from {count} speakers with more than {_ENROLLED + 1} recordings.",
            f"{len(chosen)}",
            "Name a larger split.",
        )
    return chosen


def read_probe(speaker: Speaker) -> tuple[Recording, tuple[Recording, ...]]:
    """Three seconds of a speaker, and the other recordings that they are enrolled from.

    Raises:
        BadCorpus: no recording of more than five seconds.
    """
    enrolled = tuple(load_recording(one.path) for one in speaker.utterances[:_ENROLLED])
    for utterance in speaker.utterances[_ENROLLED:]:
        recording = load_recording(utterance.path)
        if recording.duration_s > _SHORTEST_S:
            first = round(_START_S * SAMPLE_RATE_HZ)
            samples = recording.samples[first : first + round(PROBE_S * SAMPLE_RATE_HZ)]
            return Recording(samples, recording.name), enrolled
    raise BadCorpus(
        f"A probe is cut from a recording of more than {_SHORTEST_S:.0f} s.",
        f"none of {speaker.name}",
        "Name another split.",
    )


def _content(model: VoiceModel, recording: Recording, profile: SpeakerProfile) -> NDArray[np.int8]:
    heard = model.content_of(extract_features(recording).log_mel, profile.mel_mean, profile.mel_std)
    return np.clip(np.round(heard / CONTENT_STEP), -127, 127).astype(np.int8)


def main(argv: list[str]) -> int:
    """Make the file; return the exit status."""
    parser = argparse.ArgumentParser(prog="chorister.simulations.judge_probes")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", metavar="FILE:NAME", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    recogniser = find_recogniser()
    if recogniser is None:
        raise UsageError(
            "The probes' phones are heard by pocketsphinx.",
            "the package is not installed",
            "pip install pocketsphinx",
        )
    wanted = set(read_speakers(options.split))
    speakers = [one for one in open_corpus(options.data).speakers if one.name in wanted]
    chosen = choose_speakers(speakers, read_sexes(options.data), SPEAKERS)
    models, encoder = (load_base(), load_stream()), load_speaker_encoder()
    found = [read_probe(speaker) for speaker in chosen]
    profiles = [profile_from(enrolled, encoder, models[0]) for _, enrolled in found]
    features = [extract_features(recording) for recording, _ in found]
    arrays: dict[str, NDArray[np.generic]] = {
        "f0_hz": np.concatenate([one.f0_hz for one in features]).astype(np.float32),
        "spoken": np.concatenate([spoken_frames(one.log_mel) for one in features]),
        "log_f0": np.array([[p.log_f0_median, p.log_f0_spread] for p in profiles]),
    }
    for model in models:
        rows = [_content(model, one, p) for (one, _), p in zip(found, profiles, strict=True)]
        arrays[f"content.{encoder_sha256(model)[:16]}"] = np.concatenate(rows)
    told = {
        "phones": [recogniser.recognise(one.samples) for one, _ in found],
        "from": [recording.name for recording, _ in found],
    }
    # One entry: safetensors writes several in a random order.
    save_file(arrays, options.out, {PROBES_FORMAT: json.dumps(told)})
    say(
        f"{options.out}: {len(found)} probes of {PROBE_S:.0f} s, {options.out.stat().st_size} bytes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
