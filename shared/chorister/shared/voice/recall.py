"""What the target's own recordings sound like where they say the same.

A decoder that knows a voice by one vector draws it towards the voices that it was trained on. Here
every frame also looks into a table of the target's enrolment frames, by content, and the envelopes
are moved towards the mean log-mel of those that say the same (as nearest-neighbour conversion does,
Baas, van Niekerk and Kamper 2023, but as a correction to a decoder that knows what is between).
What is said is moved as well, towards how the target says it: what the content still tells of the
source's voice has no counterpart in the table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from chorister.shared.types import MEL_BANDS

# Log-mel of the vocoder's two sources through a flat envelope of 0: of its noise in every band, and
# of pulses in the mean over bands and pitches.
NOISE_LEVEL = 2.44
PULSE_LEVEL = 2.3
# Mel means that differ by less are one voice's, by more two voices' (nepers, `foreignness`).
_SAME_VOICE = 0.2
_OTHER_VOICE = 0.35
_FIRST_SHARPNESS = 40.0
_FIRST_SHARE = 0.6
# The lowest bands hold single harmonics, whose place is the pitch's and not the voice's.
_FIRST_BAND = 2.0
_RAMP_BANDS = 8.0
_SMALLEST_VARIANCE = 1e-5


class Recall(nn.Module):
    """Looks sounds up in a speaker's table and moves envelopes towards them.

    `share` (80 values) says how far each band is moved, `sharpness` (its logarithm) how few frames
    of the table count; both are learnt. `content_share` says how far the content is moved, 0 to 1,
    and is set: training, where everybody says their own words, would learn that nothing is best.
    """

    content_share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(_FIRST_SHARE * resolved_bands())
        self.register_buffer("content_share", torch.zeros(()))
        self.sharpness = nn.Parameter(torch.tensor(math.log(_FIRST_SHARPNESS)))

    def forward(
        self, content: Tensor, sounds_content: Tensor, sounds_log_mel: Tensor, foreign: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Looks up every frame.

        Args:
            content: shape (B, F, C), what is said.
            sounds_content: shape (B, K, C), what the table's frames say.
            sounds_log_mel: shape (B, K, 80), how the target sounds in them.
            foreign: shape (B,), 0 where the target says it to 1 where another voice does; from
                `foreignness`. What the target says is as the target says it.

        Returns:
            the content for the decoder, shape (B, F, C), moved towards the mean content of what
            was found, each frame of mean 0 and variance 1 again; and the recalled log-mel, shape
            (B, F, 80). Both means are over the table, weighted by the softmax of the scaled
            cosines of the contents.
        """
        asked = nn.functional.normalize(content, dim=2)
        known = nn.functional.normalize(sounds_content, dim=2)
        cosines = asked @ known.transpose(1, 2)
        weights = (self.sharpness.exp() * cosines).softmax(dim=2)
        heard = _standardised(weights @ sounds_content)
        moved = content + self.content_share * foreign[:, None, None] * (heard - content)
        found: Tensor = weights @ sounds_log_mel
        return _standardised(moved), found

    def correct(self, envelopes: Tensor, recalled: Tensor, f0_hz: Tensor) -> Tensor:
        """Moves both envelopes by a share of what lies between their sound and the recalled one.

        Args:
            envelopes: shape (B, F, 160), log magnitudes of the harmonic and the noise filter.
            recalled: shape (B, F, 80), log-mel.
            f0_hz: shape (B, F), 0 where unvoiced.

        Returns:
            shape (B, F, 160).
        """
        return envelopes + (self.share * (recalled - sound_of(envelopes, f0_hz))).repeat(1, 1, 2)


def _standardised(content: Tensor) -> Tensor:
    """Each frame with mean 0 and variance 1; layer_norm, from operators that ONNX has."""
    centred = content - content.mean(dim=2, keepdim=True)
    return centred / (centred.square().mean(dim=2, keepdim=True) + _SMALLEST_VARIANCE).sqrt()


def sound_of(envelopes: Tensor, f0_hz: Tensor) -> Tensor:
    """The log-mel that two envelopes sound like, harmonics smoothed.

    Args:
        envelopes: shape (B, F, 160), log magnitudes of the harmonic and the noise filter.
        f0_hz: shape (B, F), 0 where unvoiced.

    Returns:
        shape (B, F, 80).
    """
    harmonic, noise = envelopes.chunk(2, dim=2)
    # Half the logarithm of the sum of both powers, from operators that ONNX has.
    both = noise + 0.5 * nn.functional.softplus(2.0 * (harmonic - noise))
    return torch.where(f0_hz.unsqueeze(2) > 0, PULSE_LEVEL + both, NOISE_LEVEL + noise)


def foreignness(source_mel_mean: Tensor, target_mel_mean: Tensor) -> Tensor:
    """How surely a source is another voice than the target.

    Args:
        source_mel_mean: shape (B, 80), from the source's enrolment.
        target_mel_mean: shape (B, 80), from the target's.

    Returns:
        shape (B,): 0 where the two differ by less than 0.2 nepers (root mean square over the bands,
        level left out), 1 from 0.35 on. Two seconds of a voice differ by 0.27 from its enrolment
        (median), two voices' enrolments by 0.31 or more (19 of 20 pairs).
    """
    shift = source_mel_mean - target_mel_mean
    shift = shift - shift.mean(dim=1, keepdim=True)
    apart = shift.square().mean(dim=1).sqrt()
    return ((apart - _SAME_VOICE) / (_OTHER_VOICE - _SAME_VOICE)).clamp(0.0, 1.0)


def resolved_bands() -> Tensor:
    """How far each band shows the voice and not single harmonics: 80 values, 0 to 1."""
    return ((torch.arange(MEL_BANDS) - _FIRST_BAND) / _RAMP_BANDS).clamp(0.0, 1.0)
