"""Phone error rate by pocketsphinx's all-phone recogniser, an optional package (no torch).

No transcript is needed: the reference is what the same recogniser hears in the original, so its
own mistakes count only where the copy changes them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from chorister.shared.types import FloatArray
from chorister.shared.voice.loudness import match_level
from chorister.shared.voice.metrics import error_rate

_NOT_PHONES = frozenset({"SIL", "+SPN+", "+NSN+", "(NULL)", "<s>", "</s>"})
SPEECH_LUFS = -26.0


class PhoneRecogniser:
    """English phones, the same for the same samples."""

    def __init__(self) -> None:
        import pocketsphinx

        self._model = pocketsphinx.get_model_path
        self._make = pocketsphinx.Decoder

    def _decoder(self) -> Any:
        return self._make(
            hmm=self._model("en-us/en-us"),
            allphone=self._model("en-us/en-us-phone.lm.bin"),
            lw=2.0,
            beam=1e-10,
            pbeam=1e-10,
            loglevel="FATAL",
        )

    def recognise(self, samples: FloatArray) -> list[str]:
        """Phones of an utterance, pauses left out.

        Args:
            samples: shape (T,), float32, 16 kHz; the level is matched first.
        """
        levelled = np.clip(match_level(samples, SPEECH_LUFS), -1.0, 1.0)
        # A fresh decoder: a used one carries its cepstral mean into the next utterance.
        decoder = self._decoder()
        decoder.start_utt()
        decoder.process_raw((levelled * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        words = [segment.word for segment in decoder.seg()]
        return [word for word in words if word not in _NOT_PHONES]

    def phone_error_rate(self, original: list[str], samples: FloatArray) -> float:
        """Edits between what is heard now and what was heard in the original.

        Args:
            original: phones of the original, from `recognise`.
            samples: shape (T,), float32, 16 kHz.

        Returns:
            0 or above; NaN where the original has no phone.
        """
        return error_rate(original, self.recognise(samples)) if original else float("nan")


def find_recogniser() -> PhoneRecogniser | None:
    """Return a recogniser where pocketsphinx is installed."""
    return PhoneRecogniser() if find_spec("pocketsphinx") else None
