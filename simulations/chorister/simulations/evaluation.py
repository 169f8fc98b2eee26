"""One evaluation: every system's utterances, each measured in the same way."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chorister.client.calibration import Calibration
from chorister.shared.console import progress
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice import metrics
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.model import VoiceModel, move_pitch
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations import systems
from chorister.simulations.conditions import CLEAN, degrade
from chorister.simulations.gates import check_gates, deliver
from chorister.simulations.ge2e import Ge2e, find_ge2e_weights
from chorister.simulations.hearing import Listeners
from chorister.simulations.judges import CosineJudge, Judge, MixtureJudge
from chorister.simulations.measurements import Row
from chorister.simulations.meter import Meter
from chorister.simulations.personal_voice import personalise_voice
from chorister.simulations.systems import Converter, Original
from chorister.simulations.trials import Pair, Panel, Voice
from chorister.simulations.vocoder_copy import copy_by_vocoder
from chorister.simulations.world_copy import can_use_world, copy_by_world

# Yardsticks are measured on this many sources a target, and copies on so much of a recording.
YARDSTICK_SOURCES = 2
COPY_S = 8.0
# A disturbed source is enrolled from this many disturbed recordings.
_DISTURBED_ENROLMENT = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What an evaluation does beyond converting every pair.

    Attributes:
        personal: also adapt the model to each target.
        rivals: also convert by nearest neighbours and differentially.
        conditions: disturbances of the source, each on one source a target.
        streaming: a streaming model that converts too; None for none.
        calibrated: the source is unknown: its statistics come from the first two seconds of voiced
            speech in what is converted, not from its enrolment.
    """

    personal: bool = False
    rivals: bool = False
    conditions: Sequence[str] = ()
    streaming: VoiceModel | None = None
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance that was made, for whoever wants to keep it.

    Attributes:
        row: which one; its figures may still be incomplete.
        samples: shape (T,), float32, 16 kHz, as it is heard.
    """

    row: Row
    samples: FloatArray


class Evaluation:
    """Converts the pairs and gathers a row of figures for every utterance.

    Args:
        model: the voice model; it is not changed.
        panel: everyone.
        pairs: what is converted, indices into the panel's tested voices.
        plan: what else is done.
        listeners: who hears phones and words; None leaves their error rates out.
        keep: told of every utterance that is made or compared with.

    Attributes:
        rows: the figures.
        judges: who decided on similarity, the first one being the main one.
        voices: the voices that the judges tell apart, the tested ones first.
    """

    def __init__(
        self,
        model: VoiceModel,
        panel: Panel,
        pairs: Sequence[Pair],
        plan: Plan,
        *,
        listeners: Listeners | None = None,
        keep: Callable[[Spoken], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.panel = panel
        self.voices = [*panel.tested, *panel.candidates]
        self.pairs = list(pairs)
        self.plan = plan
        self.rows: list[Row] = []
        self.judges: list[Judge] = []
        self._listeners = listeners
        self._keep = keep
        self._profiles: list[SpeakerProfile] = []
        self._originals: dict[tuple[int, int, str], Original] = {}

    def run(self) -> None:
        """Enrol the voices, measure real speech and copies, then convert every pair."""
        self._enrol()
        self._meter = Meter(self.judges, self._listeners)
        targets = sorted({pair.target for pair in self.pairs})
        with progress("Real speech and copies", len(targets)) as step:
            for target in targets:
                self._measure_copies(target)
                step()
        with progress("Conversions", len(self.pairs)) as step:
            for target in targets:
                own = [pair for pair in self.pairs if pair.target == target]
                converters = self._converters(target)
                for number, pair in enumerate(own):
                    few = number < YARDSTICK_SOURCES
                    self._measure_pair(pair, converters, yardsticks=few, disturbed=number == 0)
                    step()
        with progress("Hearing the words", self._meter.waiting) as step:
            while self._meter.waiting:
                self._meter.collect()
                step()

    def _enrol(self) -> None:
        encoder = load_speaker_encoder()
        references = [voice.reference for voice in self.voices]
        weights = find_ge2e_weights()
        with progress("Enrolling voices", len(self.panel.tested) + 3) as step:
            for voice in self.panel.tested:
                self._profiles.append(profile_from(voice.enrolment, encoder, self.model))
                step()
            if weights is not None:
                self.judges.append(CosineJudge("ge2e", Ge2e(weights), references))
            step()
            self.judges.append(CosineJudge("own encoder", encoder, references))
            step()
            self.judges.append(MixtureJudge(references, self.panel.background))
            step()

    def _converters(self, target: int) -> dict[str, Converter]:
        """Systems that convert to a target; the yardsticks among them first."""
        voice, profile = self.voices[target], self._profiles[target]
        found = {systems.MATCHED: systems.matching_converter(profile)}
        if can_use_world():
            found[systems.WORLD_MATCHED] = systems.world_converter(profile)
        wide = self._wide_profile(voice) if self.plan.personal else profile
        if self.plan.rivals:
            found[systems.NEIGHBOURS] = systems.neighbour_converter(
                self.model, voice, wide, adapted=self.plan.personal
            )
            found[systems.DIFFERENTIAL] = systems.differential_converter(profile)
        stream = self.plan.streaming
        if stream is not None:
            heard = profile_from(voice.enrolment, load_speaker_encoder(), stream)
            found[systems.STREAMING] = systems.stream_converter(stream, heard)
        found[systems.ZERO_SHOT] = systems.model_converter(self.model, profile)
        if self.plan.personal:
            found[systems.PERSONAL] = systems.model_converter(self._personalise(voice, wide), wide)
        return found

    def _wide_profile(self, voice: Voice) -> SpeakerProfile:
        return profile_from(voice.adaptation, load_speaker_encoder(), self.model)

    def _personalise(self, voice: Voice, profile: SpeakerProfile) -> VoiceModel:
        adapted = copy.deepcopy(self.model)
        result = personalise_voice(adapted, replace(voice, enrolment=voice.adaptation), profile)
        row = Row(systems.PERSONAL, voice.name, "", "")
        row.values |= {"adapter_kept": float(result.kept), "adapting_s": result.seconds}
        row.values["target_s"] = sum(r.duration_s for r in voice.adaptation)
        self.rows.append(row)
        return adapted

    def _measure_copies(self, target: int) -> None:
        voice, profile = self.voices[target], self._profiles[target]
        for test in voice.tests:
            row = self._row(systems.REAL, target, None, test)
            self._meter.judge(row, test.samples, target, None)
            self._keep(Spoken(row, test.samples))
        test = voice.tests[0]
        part = Recording(test.samples[: round(COPY_S * 16_000)], test.name)
        original = Original(part, profile)
        features = original.features
        copies = {systems.VOCODER: copy_by_vocoder(features, part.samples)}
        if can_use_world():
            copies[systems.WORLD] = copy_by_world(original.world)
        own, spent_s = _timed(systems.model_converter(self.model, profile), original)
        copies[systems.OWN_VOICE] = own
        for system, samples in copies.items():
            row = self._row(system, target, None, part)
            if system == systems.OWN_VOICE:
                row.values["rtf"] = metrics.real_time_factor(spent_s, part.duration_s)
            self._meter.judge(row, samples, target, None)
            self._meter.compare(row, samples, features, part.samples)
            self._meter.follow_pitch(row, features.f0_hz, estimate_f0(samples))
            self._meter.listen(row, samples, part.samples, None)
            self._keep(Spoken(row, samples))

    def _measure_pair(
        self, pair: Pair, converters: dict[str, Converter], *, yardsticks: bool, disturbed: bool
    ) -> None:
        source = self.voices[pair.source]
        test, text = source.tests[pair.test], source.transcripts[pair.test]
        row = self._row(systems.SOURCE, pair.target, pair.source, test)
        self._meter.judge(row, test.samples, pair.target, pair.source)
        self._meter.listen(row, test.samples, test.samples, text)
        self._keep(Spoken(row, test.samples))
        for system, converter in converters.items():
            always = system in systems.CONVERTED or self.plan.rivals
            if always or yardsticks:
                self._measure_conversion(system, converter, pair, CLEAN)
            if disturbed and system in systems.CONVERTED:
                for condition in self.plan.conditions:
                    self._measure_conversion(system, converter, pair, condition)

    def _measure_conversion(
        self, system: str, converter: Converter, pair: Pair, condition: str
    ) -> None:
        undisturbed = self.voices[pair.source].tests[pair.test]
        original = self._original(pair, condition)
        made, spent_s = _timed(converter, original)
        heard = original.recording.samples
        samples = deliver(heard, made)
        row = self._row(system, pair.target, pair.source, undisturbed, condition)
        row.values["rtf"] = metrics.real_time_factor(spent_s, original.recording.duration_s)
        self._meter.judge(row, samples, pair.target, pair.source)
        wanted_hz = move_pitch(original.features.f0_hz, original.source, converter.target)
        spoken_hz = estimate_f0(samples)
        self._meter.follow_pitch(row, wanted_hz, spoken_hz)
        if system in systems.CONVERTED:
            row.gates = check_gates(heard, samples, wanted_hz, spoken_hz)
        text = self.voices[pair.source].transcripts[pair.test]
        self._meter.listen(row, samples, undisturbed.samples, text)
        self._keep(Spoken(row, samples))

    def _original(self, pair: Pair, condition: str) -> Original:
        """A source's recording with the speaker's enrolment under the same condition."""
        key = (pair.source, pair.test, condition)
        if key not in self._originals:
            voice = self.voices[pair.source]
            recording = degrade(voice.tests[pair.test], condition)
            profile = self._profiles[pair.source]
            if condition != CLEAN:
                disturbed = [degrade(r, condition) for r in voice.enrolment[:_DISTURBED_ENROLMENT]]
                profile = profile_from(disturbed, load_speaker_encoder(), self.model)
            if self.plan.calibrated:
                profile = calibrated_profile(profile, recording)
            self._originals[key] = Original(recording, profile)
        return self._originals[key]

    def _row(
        self,
        system: str,
        target: int,
        source: int | None,
        recording: Recording,
        condition: str = CLEAN,
    ) -> Row:
        row = Row(system, self.voices[target].name, "", recording.name, condition=condition)
        if source is not None:
            row.source = self.voices[source].name
            sexes = self.voices[source].sex, self.voices[target].sex
            row.direction = f"{sexes[0]} to {sexes[1]}" if all(sexes) else ""
        self.rows.append(row)
        return row


def calibrated_profile(known: SpeakerProfile, recording: Recording) -> SpeakerProfile:
    """A source as `chorister convert` hears it without an enrolment.

    Args:
        known: what the enrolment says; kept where hardly anything in the recording is voiced.
        recording: what is converted.
    """
    calibration = Calibration()
    found = calibration.feed(recording.samples) or calibration.finish()
    if found is None:
        return known
    return replace(
        known,
        mel_mean=found.mel_mean,
        mel_std=found.mel_std,
        log_f0_median=float(found.log_f0[0]),
        log_f0_spread=float(found.log_f0[1]),
    )


def _timed(converter: Converter, original: Original) -> tuple[FloatArray, float]:
    began_s = time.perf_counter()
    samples = converter.convert(original)
    return samples, time.perf_counter() - began_s
