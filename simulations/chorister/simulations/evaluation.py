"""One evaluation: every system's utterances, each measured in the same way."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from chorister.shared.console import progress
from chorister.shared.types import FeatureSequence, FloatArray, Recording
from chorister.shared.voice import metrics
from chorister.shared.voice.audio import save_recording
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.features import extract_features, log_mel
from chorister.shared.voice.loudness import match_level
from chorister.shared.voice.model import VoiceModel, move_pitch
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.ge2e import Ge2e, find_ge2e_weights
from chorister.simulations.judges import CosineJudge, Judge, MixtureJudge
from chorister.simulations.personal_voice import personalise_voice
from chorister.shared.voice.phones import PhoneRecogniser
from chorister.simulations.trials import Pair, Voice
from chorister.simulations.vocoder_copy import copy_by_vocoder, match_statistics

REAL = "real target"
SOURCE = "source, unconverted"
VOCODER = "vocoder copy"
OWN_VOICE = "own-voice copy"
MATCHED = "F0 and spectrum matched"
ZERO_SHOT = "zero-shot"
PERSONAL = "personalised"
SYSTEMS = (REAL, SOURCE, VOCODER, OWN_VOICE, MATCHED, ZERO_SHOT, PERSONAL)


class Evaluation:
    """Converts the pairs and gathers figures by system, measure and target speaker.

    Args:
        model: the voice model; it is not changed.
        voices: all voices that the judges tell apart.
        pairs: what is converted.
        recogniser: hears phones; None leaves the phone error rate out.
        personal: also adapt the model to each target's enrolment recordings.
        audio: folder for the wavs, existing; None writes none.

    Attributes:
        figures: system -> measure -> speaker -> values.
        judges: who decided on similarity, the first one being the main one.
    """

    def __init__(
        self,
        model: VoiceModel,
        voices: Sequence[Voice],
        pairs: Sequence[Pair],
        *,
        recogniser: PhoneRecogniser | None = None,
        personal: bool = False,
        audio: Path | None = None,
    ) -> None:
        self.model = model
        self.voices = list(voices)
        self.pairs = list(pairs)
        self.recogniser = recogniser
        self.personal = personal
        self.audio = audio
        self.figures: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.judges: list[Judge] = []
        self._profiles: list[SpeakerProfile] = []
        self._phones: dict[tuple[int, int], list[str]] = {}

    def run(self) -> None:
        """Enrol the voices, measure real speech and copies, then convert every pair."""
        self._enrol()
        targets = sorted({pair.target for pair in self.pairs})
        with progress("Real speech and copies", len(targets)) as step:
            for target in targets:
                self._measure_copies(target)
                step()
        with progress("Conversions", len(self.pairs)) as step:
            for target in targets:
                adapted = self._personalise(target) if self.personal else None
                for pair in (pair for pair in self.pairs if pair.target == target):
                    self._measure_pair(pair, adapted)
                    step()

    def _enrol(self) -> None:
        encoder = load_speaker_encoder()
        references = [voice.reference for voice in self.voices]
        weights = find_ge2e_weights()
        with progress("Enrolling voices", len(self.voices) + 3) as step:
            for voice in self.voices:
                self._profiles.append(profile_from(voice.enrolment, encoder))
                step()
            if weights is not None:
                self.judges.append(CosineJudge("ge2e", Ge2e(weights), references))
            step()
            self.judges.append(CosineJudge("own encoder", encoder, references))
            step()
            self.judges.append(MixtureJudge(references))
            step()

    def _measure_copies(self, target: int) -> None:
        voice, profile = self.voices[target], self._profiles[target]
        for test in voice.tests:
            self._judge(REAL, test.samples, target, None)
        test = voice.tests[0]
        features = extract_features(test)
        vocoded = copy_by_vocoder(features, test.samples)
        copies = {
            VOCODER: vocoded,
            OWN_VOICE: self._timed(
                OWN_VOICE, target, test, lambda: self.model.convert(features, profile, profile)
            ),
        }
        for system, samples in copies.items():
            self._judge(system, samples, target, None)
            self._distances(system, samples, target, features)
            self._follow_pitch(system, samples, target, features.f0_hz)
            self._hear(system, samples, target, (target, 0))
            self._save(f"{voice.name}-{system}", samples)

    def _measure_pair(self, pair: Pair, adapted: VoiceModel | None) -> None:
        source, target = self._profiles[pair.source], self._profiles[pair.target]
        test = self.voices[pair.source].tests[pair.test]
        name = f"{self.voices[pair.source].name}-to-{self.voices[pair.target].name}"
        self._judge(SOURCE, test.samples, pair.target, pair.source)
        self._save(f"{name}-source", test.samples)
        converters: dict[str, Callable[..., FloatArray]] = {
            MATCHED: match_statistics,
            ZERO_SHOT: self.model.convert,
        }
        if adapted is not None:
            converters[PERSONAL] = adapted.convert
        wanted_hz = move_pitch(extract_features(test).f0_hz, source, target)
        for system, converter in converters.items():

            def convert(converter: Callable[..., FloatArray] = converter) -> FloatArray:
                return converter(extract_features(test), source, target)

            samples = self._timed(system, pair.target, test, convert)
            self._judge(system, samples, pair.target, pair.source)
            self._follow_pitch(system, samples, pair.target, wanted_hz)
            self._hear(system, samples, pair.target, (pair.source, pair.test))
            self._save(f"{name}-{system}", samples)

    def _personalise(self, target: int) -> VoiceModel:
        adapted = copy.deepcopy(self.model)
        result = personalise_voice(adapted, self.voices[target], self._profiles[target])
        self._add(PERSONAL, "adapter_kept", target, float(result.kept))
        self._add(PERSONAL, "adapting_s", target, result.seconds)
        return adapted

    def _add(self, system: str, measure: str, speaker: int, value: float) -> None:
        by_measure = self.figures.setdefault(system, {})
        by_measure.setdefault(measure, {}).setdefault(self.voices[speaker].name, []).append(value)

    def _timed(
        self, system: str, target: int, test: Recording, convert: Callable[[], FloatArray]
    ) -> FloatArray:
        began_s = time.perf_counter()
        samples = convert()
        spent_s = time.perf_counter() - began_s
        self._add(system, "rtf", target, metrics.real_time_factor(spent_s, test.duration_s))
        return samples

    def _judge(self, system: str, samples: FloatArray, target: int, source: int | None) -> None:
        for judge in self.judges:
            scores = judge.score(samples)
            self._add(system, f"similarity ({judge.name})", target, float(scores[target]))
            hit = metrics.identification_rate(scores[None], np.array([target]))
            self._add(system, f"identified ({judge.name})", target, hit)
            if source is not None:
                self._add(system, f"residual ({judge.name})", target, float(scores[source]))

    def _distances(
        self, system: str, samples: FloatArray, target: int, original: FeatureSequence
    ) -> None:
        copied = log_mel(samples)
        lsd = metrics.log_spectral_distance_db(original.log_mel, copied)
        self._add(system, "lsd_db", target, lsd)
        mcd = metrics.mel_cepstral_distortion_db(original.log_mel, copied)
        self._add(system, "mcd_db", target, mcd)

    def _follow_pitch(
        self, system: str, samples: FloatArray, target: int, wanted_hz: FloatArray
    ) -> None:
        spoken_hz = estimate_f0(samples)
        self._add(system, "f0_correlation", target, metrics.f0_correlation(wanted_hz, spoken_hz))
        self._add(system, "f0_rmse_cents", target, metrics.f0_rmse_cents(wanted_hz, spoken_hz))
        self._add(system, "voicing_error", target, metrics.voicing_error(wanted_hz, spoken_hz))

    def _hear(
        self, system: str, samples: FloatArray, target: int, original: tuple[int, int]
    ) -> None:
        if self.recogniser is None:
            return
        if original not in self._phones:
            voice, test = original
            recording = self.voices[voice].tests[test]
            self._phones[original] = self.recogniser.recognise(recording.samples)
        rate = self.recogniser.phone_error_rate(self._phones[original], samples)
        self._add(system, "per", target, rate)

    def _save(self, name: str, samples: FloatArray) -> None:
        if self.audio is not None:
            path = self.audio / f"{name.replace(', ', '-').replace(' ', '-')}.wav"
            save_recording(path, match_level(samples))
