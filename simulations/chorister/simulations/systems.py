"""What an evaluation compares: the model, plain voice changers and rivals, as converters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from chorister.shared.types import FeatureSequence, FloatArray, Recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.latency import Latency
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.simulations.rivals import (
    TargetFrames,
    convert_by_neighbours,
    convert_differentially,
    target_frames,
)
from chorister.simulations.trials import Voice
from chorister.simulations.vocoder_copy import fit_envelopes, match_statistics
from chorister.simulations.world_copy import WorldAnalysis, analyse, convert_by_world

REAL = "real target"
SOURCE = "source, unconverted"
VOCODER = "vocoder copy"
WORLD = "WORLD copy"
OWN_VOICE = "own-voice copy"
MATCHED = "F0 and spectrum matched"
WORLD_MATCHED = "WORLD, F0 and spectrum matched"
NEIGHBOURS = "nearest neighbours"
DIFFERENTIAL = "differential"
STREAMING = "streaming, zero-shot"
ZERO_SHOT = "zero-shot"
PERSONAL = "personalised"
SYSTEMS = (
    REAL,
    SOURCE,
    VOCODER,
    WORLD,
    OWN_VOICE,
    MATCHED,
    WORLD_MATCHED,
    NEIGHBOURS,
    DIFFERENTIAL,
    STREAMING,
    ZERO_SHOT,
    PERSONAL,
)
COPIES = (VOCODER, WORLD, OWN_VOICE)
CONVERTED = (STREAMING, ZERO_SHOT, PERSONAL)


class Original:
    """What is to be spoken in another voice, and each analysis of it that a system asks for.

    Args:
        recording: the source's.
        source: the source speaker's enrolment.
    """

    def __init__(self, recording: Recording, source: SpeakerProfile) -> None:
        self.recording = recording
        self.source = source

    @cached_property
    def features(self) -> FeatureSequence:
        """Log-mel and F0, F frames."""
        return extract_features(self.recording)

    @cached_property
    def world(self) -> WorldAnalysis:
        """WORLD's analysis."""
        return analyse(self.recording, self.features.f0_hz)

    @cached_property
    def envelopes(self) -> tuple[Tensor, Tensor]:
        """Our vocoder's envelopes fitted to it, shape (1, F, 80) each."""
        return fit_envelopes(self.features, self.recording.samples)


@dataclass(frozen=True, slots=True)
class Converter:
    """One system for one target.

    Attributes:
        target: the profile that it converts to.
        convert: original to samples (F * 160,).
    """

    target: SpeakerProfile
    convert: Callable[[Original], FloatArray]


def model_converter(model: VoiceModel, target: SpeakerProfile) -> Converter:
    """The voice model, analysis of the source included as it is in use."""

    def convert(original: Original) -> FloatArray:
        features = extract_features(original.recording)
        return model.convert(features, original.source, target, seed=0)

    return Converter(target, convert)


def stream_converter(model: VoiceModel, target: SpeakerProfile) -> Converter:
    """The streaming model with F0 as a stream has it: the numbers of `chorister live --file`."""
    delay = Latency(sum(model.settings.encoder_ahead), 1).f0_delay_frames

    def convert(original: Original) -> FloatArray:
        samples = original.recording.samples
        features = FeatureSequence(log_mel(samples), estimate_f0(samples, delay))
        return model.convert(features, original.source, target, seed=0)

    return Converter(target, convert)


def matching_converter(target: SpeakerProfile) -> Converter:
    """F0 and the log-mel's statistics moved to the target's, through our vocoder."""

    def convert(original: Original) -> FloatArray:
        return match_statistics(original.features, original.source, target)

    return Converter(target, convert)


def world_converter(target: SpeakerProfile) -> Converter:
    """The same through WORLD."""

    def convert(original: Original) -> FloatArray:
        return convert_by_world(original.world, original.features, original.source, target)

    return Converter(target, convert)


def neighbour_converter(
    model: VoiceModel, voice: Voice, target: SpeakerProfile, *, adapted: bool
) -> Converter:
    """Nearest neighbours among the target's frames.

    Args:
        model: whose content encoder names the sounds.
        voice: the target.
        target: its profile.
        adapted: choose from all that personalising may see, or from the enrolment recordings.
    """
    recordings = voice.adaptation if adapted else voice.enrolment
    frames: TargetFrames = target_frames(model, recordings, target)

    def convert(original: Original) -> FloatArray:
        return convert_by_neighbours(model, original.features, original.source, target, frames)

    return Converter(target, convert)


def differential_converter(target: SpeakerProfile) -> Converter:
    """The source's own spectrum with the difference of the means."""

    def convert(original: Original) -> FloatArray:
        features = original.features
        return convert_differentially(original.envelopes, features, original.source, target)

    return Converter(target, convert)
