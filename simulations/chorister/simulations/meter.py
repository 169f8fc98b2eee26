"""Every measure of one utterance: who is heard, what is heard, how its spectrum and pitch lie."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from chorister.shared.types import FeatureSequence, FloatArray
from chorister.shared.voice import metrics
from chorister.shared.voice.features import log_mel
from chorister.simulations.hearing import Heard, Listeners, words_of
from chorister.simulations.judges import Judge, MixtureJudge
from chorister.simulations.measurements import Row


class Meter:
    """Fills rows with figures; what was heard arrives later.

    Args:
        judges: who tells the voices apart.
        listeners: who hears phones and words; None leaves their error rates out.
    """

    def __init__(self, judges: Sequence[Judge], listeners: Listeners | None) -> None:
        self.judges = tuple(judges)
        self._listeners = listeners
        self._originals: dict[str, Future[Heard]] = {}
        self._waiting: list[tuple[Row, Future[Heard], Future[Heard], str | None]] = []

    def judge(self, row: Row, samples: FloatArray, target: int, source: int | None) -> None:
        """Similarity to target and source, and whether the target is the most similar voice.

        Args:
            row: takes the figures.
            samples: shape (T,), 16 kHz.
            target: index of the target among the judges' voices.
            source: of the source; None for the target's own speech.
        """
        for judge in self.judges:
            scores = judge.score(samples)
            row.values[f"similarity ({judge.name})"] = float(scores[target])
            hit = metrics.identification_rate(scores[None], np.array([target]))
            row.values[f"identified ({judge.name})"] = hit
            if source is not None:
                row.values[f"residual ({judge.name})"] = float(scores[source])
            if isinstance(judge, MixtureJudge):
                standard = judge.standardise(scores)
                row.values["llr_z"] = float(standard[target])

    def compare(
        self, row: Row, copy: FloatArray, original: FeatureSequence, samples: FloatArray
    ) -> None:
        """Distances of a copy from its original, frame by frame and sample by sample.

        Args:
            row: takes the figures.
            copy: shape (F * 160,).
            original: of the original, F frames.
            samples: shape (T,), the original, T at least F * 160.
        """
        copied, own = log_mel(copy), original.log_mel
        length = len(copy)
        row.values |= {
            "lsd_db": metrics.log_spectral_distance_db(own, copied),
            "log_mel_db": metrics.log_mel_distance_db(own, copied),
            "mcd_db": metrics.mel_cepstral_distortion_db(own, copied),
            "spectral_correlation": metrics.spectral_correlation(own, copied),
            "rmse": metrics.rmse(samples[:length], copy),
            "snr_db": metrics.snr_db(samples[:length], copy),
        }

    def follow_pitch(self, row: Row, wanted_hz: FloatArray, spoken_hz: FloatArray) -> None:
        """How well the pitch is the one that was asked for; both of shape (F,), 0 = unvoiced."""
        row.values |= {
            "f0_correlation": metrics.f0_correlation(wanted_hz, spoken_hz),
            "f0_rmse_cents": metrics.f0_rmse_cents(wanted_hz, spoken_hz),
            "voicing_error": metrics.voicing_error(wanted_hz, spoken_hz),
        }

    def listen(self, row: Row, samples: FloatArray, original: FloatArray, text: str | None) -> None:
        """Have the words compared with the original's, and with the transcript.

        Args:
            row: takes the figures when `collect` is called.
            samples: shape (T,), what is to be understood.
            original: shape (T',), undisturbed, what it was made of; known by the row's names.
            text: the transcript, None where there is none.
        """
        if self._listeners is None:
            return
        key = f"{row.source or row.target}/{row.recording}/{len(original)}"
        if key not in self._originals:
            self._originals[key] = self._listeners.hear(original)
        known = self._originals[key]
        heard = known if samples is original else self._listeners.hear(samples)
        self._waiting.append((row, heard, known, text))

    @property
    def waiting(self) -> int:
        """How many utterances are still to be collected."""
        return len(self._waiting)

    def collect(self) -> None:
        """Wait for the next utterance and add its error rates."""
        row, heard, known, text = self._waiting.pop(0)
        found, original = heard.result(), known.result()
        if original.phones:
            row.values["per"] = metrics.error_rate(original.phones, found.phones)
        if found.words is None:
            return
        if original.words:
            row.values["wer"] = metrics.error_rate(original.words, found.words)
        spoken = words_of(text or "")
        if spoken:
            row.values["wer_transcript"] = metrics.error_rate(spoken, found.words)
