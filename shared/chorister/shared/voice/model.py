"""The voice model: content encoder, decoder with a speaker's condition, vocoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from chorister.shared.errors import BadSettings
from chorister.shared.types import MEL_BANDS, FeatureSequence, FloatArray
from chorister.shared.voice.contrast import restore_contrast
from chorister.shared.voice.decoder import Decoder
from chorister.shared.voice.encoder import ContentEncoder
from chorister.shared.voice.frames import HOP_SAMPLES
from chorister.shared.voice.hiss import draw_hiss
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.recall import foreignness
from chorister.shared.voice.vocoder import Vocoder
from chorister.shared.voice.voicing import early_onsets, keep_voiced

# What lies lower is heard as unvoiced, by our tracker and by people as single clicks.
LOWEST_PITCH_HZ = 65.0
HIGHEST_PITCH_HZ = 600.0
# Of two spreads; a larger one stretches errors of the tracker and pitch that moves fast too far.
SPREAD_RATIO_LIMITS = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Sizes of the model; stored in the header of its weights file.

    Attributes:
        content: channels of the content bottleneck.
        encoder_width: channels of the encoder's stream.
        encoder_blocks: its blocks.
        decoder_width: channels of the decoder's stream.
        decoder_blocks: its blocks.
        kernel: frames that each convolution sees, odd.
        expansion: width of each perceptron as a multiple of its stream.
        encoder_ahead: for each block of the encoder, how many of those frames lie ahead, 0 to
            kernel - 1; () for half of the kernel everywhere.
        decoder_ahead: the same for the decoder.
        decoder_recurrent: whether the decoder's blocks mix frames by recurrence instead of
            convolution; `kernel` and `decoder_ahead` then say nothing of it.
    """

    content: int = 48
    encoder_width: int = 192
    encoder_blocks: int = 5
    decoder_width: int = 224
    decoder_blocks: int = 6
    kernel: int = 7
    expansion: int = 2
    encoder_ahead: tuple[int, ...] = ()
    decoder_ahead: tuple[int, ...] = ()
    decoder_recurrent: bool = False

    def __post_init__(self) -> None:
        for name, ahead, blocks in (
            ("encoder_ahead", self.encoder_ahead, self.encoder_blocks),
            ("decoder_ahead", self.decoder_ahead, self.decoder_blocks),
        ):
            fits = len(ahead) in (0, blocks) and all(0 <= a < self.kernel for a in ahead)
            if not fits:
                raise BadSettings(
                    f"{name} has a number of 0 to {self.kernel - 1} for each of {blocks} blocks,"
                    " or none at all.",
                    str(ahead),
                    "Correct it, or leave it out.",
                )


@dataclass(frozen=True, slots=True)
class VoiceBatch:
    """What one forward pass reads.

    Attributes:
        log_mel: shape (B, F, 80), the source's log-mel.
        f0_hz: shape (B, F), the pitch to speak with, 0 where unvoiced.
        source_mel_mean: shape (B, 80), of the source speaker's enrolment.
        source_mel_std: shape (B, 80).
        target_vector: shape (B, 256), unit norm.
        target_mel_mean: shape (B, 80), of the target speaker's enrolment.
        target_mel_std: shape (B, 80).
        sounds_content: shape (B, K, content channels), what the target's table says.
        sounds_log_mel: shape (B, K, 80), how it sounds.
    """

    log_mel: Tensor
    f0_hz: Tensor
    source_mel_mean: Tensor
    source_mel_std: Tensor
    target_vector: Tensor
    target_mel_mean: Tensor
    target_mel_std: Tensor
    sounds_content: Tensor
    sounds_log_mel: Tensor

    def to(self, device: torch.device | str) -> VoiceBatch:
        """The same batch on another device."""
        return VoiceBatch(*(getattr(self, name).to(device) for name in self.__slots__))


class PitchRange(Protocol):
    """Median and spread of the natural logarithm of F0 in Hz, such as a `SpeakerProfile` has."""

    @property
    def log_f0_median(self) -> float:
        """Over the voiced frames."""

    @property
    def log_f0_spread(self) -> float:
        """Interquartile range / 1.349, above 0."""


def move_pitch(f0_hz: FloatArray, source: PitchRange, target: PitchRange) -> FloatArray:
    """F0 shifted and stretched from one speaker's range to another's, in the log domain.

    Args:
        f0_hz: shape (F,), 0 where unvoiced.
        source: whose pitch it is.
        target: whose pitch it shall be.

    Returns:
        shape (F,), float32, in [65, 600] Hz where voiced, else 0.
    """
    ratio = float(np.clip(target.log_f0_spread / source.log_f0_spread, *SPREAD_RATIO_LIMITS))
    # In float64: the pulses' phase adds up every rounding of the pitch.
    height = np.log(np.maximum(f0_hz, 1.0).astype(np.float64)) - source.log_f0_median
    moved = np.exp(target.log_f0_median + ratio * height)
    moved = np.clip(moved, LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ)
    return np.where(f0_hz > 0, moved, 0.0).astype(np.float32)


class VoiceModel(nn.Module):
    """Speech of one speaker to the same words in another's voice.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: ModelSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or ModelSettings()
        self.encoder = ContentEncoder(
            s.content, s.encoder_width, s.encoder_blocks, s.kernel, s.expansion, s.encoder_ahead
        )
        self.decoder = Decoder(
            s.content,
            s.decoder_width,
            s.decoder_blocks,
            s.kernel,
            s.expansion,
            s.decoder_ahead,
            recurrent=s.decoder_recurrent,
        )
        self.vocoder = Vocoder()

    def forward(self, batch: VoiceBatch, hiss: Tensor | None = None) -> Tensor:
        """Converts a batch.

        Args:
            batch: F frames of each of B examples.
            hiss: shape (B, F * 160), the vocoder's noise; drawn from torch's global generator
                where None.

        Returns:
            shape (B, F * 160), 16 kHz.
        """
        harmonic, noise = self.envelopes(batch)
        if hiss is None:
            rows, frames = batch.f0_hz.shape
            hiss = draw_hiss((rows, frames * HOP_SAMPLES)).to(harmonic.device)
        wav: Tensor = self.vocoder(harmonic, noise, batch.f0_hz, hiss)
        return wav

    def envelopes(self, batch: VoiceBatch) -> tuple[Tensor, Tensor]:
        """What the vocoder renders, as the decoder gives it: shape (B, F, 80) each."""
        content = self.encoder(batch.log_mel, batch.source_mel_mean, batch.source_mel_std)
        foreign = foreignness(batch.source_mel_mean, batch.target_mel_mean)
        return self.envelopes_of(content, batch, foreign)

    def envelopes_of(
        self, content: Tensor, batch: VoiceBatch, foreign: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same for content that is known: (B, F, content channels) to (B, F, 80) each.

        Args:
            content: what is said.
            batch: pitch and target; its log-mel and its source are not read.
            foreign: shape (B,), how surely another voice than the target says it, 0 to 1.
        """
        condition = self.decoder.condition(
            batch.target_vector, batch.target_mel_mean, batch.target_mel_std
        )
        content, recalled = self.decoder.recall(
            content, batch.sounds_content, batch.sounds_log_mel, foreign
        )
        harmonic, noise = self.decoder(content, batch.f0_hz, condition, recalled)
        return harmonic, noise

    def speak(self, batch: VoiceBatch, hiss: Tensor) -> Tensor:
        """Converts a batch as it is heard (`early_onsets`, `heard_envelopes`).

        Args:
            batch: F frames of each of B examples.
            hiss: shape (B, F * 160), the vocoder's noise.

        Returns:
            shape (B, F * 160), 16 kHz.
        """
        content = self.encoder(batch.log_mel, batch.source_mel_mean, batch.source_mel_std)
        foreign = foreignness(batch.source_mel_mean, batch.target_mel_mean)
        return self.speak_content(content, batch, foreign, hiss)

    def speak_content(
        self, content: Tensor, batch: VoiceBatch, foreign: Tensor, hiss: Tensor
    ) -> Tensor:
        """`speak` for content that is known; other arguments as of `envelopes_of`."""
        f0_hz = early_onsets(batch.f0_hz)
        spoken = replace(batch, f0_hz=f0_hz)
        envelopes = self.envelopes_of(content, spoken, foreign)
        harmonic, noise = heard_envelopes(self.decoder, *envelopes, f0_hz)
        # Whether a frame begins early, a stream knows only when it has come to its centre.
        arriving_hz = batch.f0_hz if self.settings.encoder_ahead else None
        wav: Tensor = self.vocoder(harmonic, noise, f0_hz, hiss, arriving_hz=arriving_hz)
        return wav

    def content_of(
        self, log_mel: FloatArray, mel_mean: FloatArray, mel_std: FloatArray
    ) -> FloatArray:
        """What one utterance says.

        Args:
            log_mel: shape (F, 80).
            mel_mean: shape (80,), of its speaker's enrolment.
            mel_std: shape (80,).

        Returns:
            shape (F, content channels), float32.
        """
        device = next(self.parameters()).device
        rows = (
            torch.from_numpy(np.array(row, np.float32))[None]
            for row in (log_mel, mel_mean, mel_std)
        )
        was_training = self.training
        self.eval()
        with torch.inference_mode():
            content = self.encoder(*(row.to(device) for row in rows))[0]
        self.train(was_training)
        return np.asarray(content.cpu().numpy(), np.float32)

    def convert(
        self,
        features: FeatureSequence,
        source: SpeakerProfile,
        target: SpeakerProfile,
        *,
        seed: int = 0,
    ) -> FloatArray:
        """One utterance in the target's voice.

        Args:
            features: F frames of the source's speech.
            source: the source speaker's enrolment.
            target: the target speaker's enrolment.
            seed: of the vocoder's noise.

        Returns:
            shape (F * 160,), float32, 16 kHz; it is not limited to [-1, 1].
        """
        content = self.content_of(features.log_mel, source.mel_mean, source.mel_std)
        means = (torch.from_numpy(np.array(one.mel_mean))[None] for one in (source, target))
        foreign = float(foreignness(*means))
        f0_hz = move_pitch(features.f0_hz, source, target)
        return self.say(content, f0_hz, target, foreign=foreign, seed=seed)

    def say(
        self,
        content: FloatArray,
        f0_hz: FloatArray,
        target: SpeakerProfile,
        *,
        foreign: float = 1.0,
        seed: int = 0,
    ) -> FloatArray:
        """What somebody said, in the target's voice.

        Args:
            content: shape (F, content channels), from `content_of`.
            f0_hz: shape (F,), the pitch to speak with, from `move_pitch`.
            target: the target speaker's enrolment.
            foreign: how surely somebody else than the target said it (`recall.foreignness`).
            seed: of the vocoder's noise.

        Returns:
            shape (F * 160,), float32, 16 kHz; it is not limited to [-1, 1].
        """
        unheard = np.zeros((len(f0_hz), MEL_BANDS), np.float32)
        batch = single_batch(FeatureSequence(unheard, f0_hz), target, target)
        generator = torch.Generator().manual_seed(seed)
        hiss = draw_hiss((1, len(f0_hz) * HOP_SAMPLES), generator)
        device = next(self.parameters()).device
        said = torch.from_numpy(np.array(content, np.float32))[None].to(device)
        was_training = self.training
        self.eval()
        with torch.inference_mode():
            there = batch.to(device)
            by = torch.full((1,), foreign, device=device)
            wav = self.speak_content(said, there, by, hiss.to(device))[0]
        self.train(was_training)
        return np.asarray(wav.cpu().numpy(), np.float32)


def heard_envelopes(
    decoder: Decoder, harmonic: Tensor, noise: Tensor, f0_hz: Tensor
) -> tuple[Tensor, Tensor]:
    """What a conversion does to the decoder's envelopes before it is heard.

    Training does not, but for the contrast of what is judged as a conversion.

    Args:
        decoder: whose envelopes they are.
        harmonic: shape (B, F, 80), log magnitude of the pulses' filter.
        noise: shape (B, F, 80), log magnitude of the noise's filter.
        f0_hz: shape (B, F), 0 where unvoiced.

    Returns:
        both, shape (B, F, 80) each, with the contrast of speech and voiced where F0 is.
    """
    return keep_voiced(*restore_contrast(harmonic, noise, f0_hz, decoder.contrast), f0_hz)


def single_batch(
    features: FeatureSequence, source: SpeakerProfile, target: SpeakerProfile
) -> VoiceBatch:
    """A batch of one utterance; the pitch is used as it stands.

    Args:
        features: F frames, with the pitch to speak with.
        source: whose speech it is.
        target: whose voice it shall get.
    """
    rows = (
        features.log_mel,
        features.f0_hz,
        source.mel_mean,
        source.mel_std,
        target.vector,
        target.mel_mean,
        target.mel_std,
        target.sounds_content,
        target.sounds_log_mel,
    )
    return VoiceBatch(*(torch.from_numpy(np.array(row, np.float32))[None] for row in rows))
