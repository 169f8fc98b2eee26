"""One's own recordings to a voice file: consent, enrolment, personal adapter, export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from chorister.client import consent
from chorister.client.adapter_check import effect_of, require_harmless
from chorister.client.adapter_file import attach_adapter
from chorister.client.audio_files import audio_files
from chorister.client.enrol import enrolled_recordings
from chorister.client.export import Origin, build_voice, export_voice
from chorister.client.home import PERSONAL_ADAPTER, PERSONAL_PROFILE, Home
from chorister.client.material import analyse
from chorister.client.personal_budget import charged
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.client.personalise import (
    Personalised,
    PersonaliseSettings,
    personalise,
)
from chorister.client.precision import Precision
from chorister.client.prepare import Divided, divide, enrolment_gain, level_by, segments
from chorister.client.sealed import announce_plain, plain_is_written, seal_voice
from chorister.client.source import keep_source, known_source
from chorister.client.stream_export import build_live_voice, export_live_voice
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.types import SAMPLE_RATE_HZ, Adapter, Recording
from chorister.shared.voice.adapters import read_personal
from chorister.shared.voice.audio import load_recording, probe_recording, stream_recording
from chorister.shared.voice.base import BASE_WEIGHTS, load_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import SpeakerEncoder
from chorister.shared.voice.stream_weights import STREAM_WEIGHTS, load_stream

LIVE_SUFFIX = "-live"
CONTROLLER = "the speaker, on this device alone"
CONSENT_DAYS = 365
LEAST_S = 12.0
# Longer files are cut, and no more than this is used of all.
LONGEST_WHOLE_S = 120.0
PIECE_S = 60.0
MOST_S = 600.0
_HELD_OUT_EVERY = 6
_FEWEST_WHOLE = 3
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Material:
    """One's own recordings, read.

    Attributes:
        recordings: what could be used, in the order of the names.
        skipped: what could not, with the reason.
    """

    recordings: tuple[Recording, ...]
    skipped: tuple[BadAudio, ...]

    @property
    def seconds(self) -> float:
        """How much there is to learn from."""
        return sum(recording.duration_s for recording in self.recordings)


@dataclass(frozen=True, slots=True)
class OwnVoice:
    """What was made.

    Attributes:
        sha256: of the voice file.
        consent_sha256: of the consent record beside it.
        result: of personalising.
    """

    sha256: str
    consent_sha256: str
    result: Personalised


@dataclass(frozen=True, slots=True)
class OwnPermits:
    """What making a voice file is allowed by.

    Attributes:
        training: of the personal adapter.
        export: of the file, for 'conversion' or 'plain_export'.
    """

    training: consent.Permit
    export: consent.Permit

    @property
    def plain(self) -> bool:
        """Whether the file will be plain."""
        return self.export.purpose == "plain_export"


def read_own_recordings(paths: Sequence[Path]) -> Material:
    """Reads files, and all audio files of folders.

    A file of more than two minutes, such as a lecture, counts as recordings of a minute each. Of
    more than ten minutes altogether, so many recordings are used as fill them, evenly spaced:
    more teaches a voice little that is new, and takes its time.

    Raises:
        BadCorpus: no such file or folder, or less than 12 s that can be used.
    """
    files = audio_files(paths)
    recordings: list[Recording] = []
    skipped = []
    for file in files:
        try:
            recordings += _pieces(file)
        except BadAudio as error:
            skipped.append(error)
    material = Material(tuple(_spread(recordings)), tuple(skipped))
    return _enough(material, f"{len(files)} files")


def _pieces(file: Path) -> list[Recording]:
    """A file as it is, or in pieces of a minute, the last one up to two."""
    if probe_recording(file, max_s=float("inf")) <= LONGEST_WHOLE_S:
        return [load_recording(file)]
    samples = np.concatenate(list(stream_recording(file)))
    samples -= np.float32(samples.mean(dtype=np.float64))
    count = max(int(len(samples) / (PIECE_S * SAMPLE_RATE_HZ)), 1)
    length = round(PIECE_S * SAMPLE_RATE_HZ)
    cuts = [*(length * at for at in range(count)), len(samples)]
    return [
        # A copy: a piece that is not used shall not keep the whole file.
        Recording(samples[begin:end].copy(), f"{file.name}@{begin // SAMPLE_RATE_HZ}s")
        for begin, end in pairwise(cuts)
    ]


def _spread(recordings: Sequence[Recording]) -> list[Recording]:
    """As many of them as fill ten minutes, evenly spaced."""
    total_s = sum(recording.duration_s for recording in recordings)
    if total_s <= MOST_S or len(recordings) < 2:
        return list(recordings)
    count = max(int(len(recordings) * MOST_S / total_s), 1)
    return [recordings[at * len(recordings) // count] for at in range(count)]


def enrolled_material(home: Home) -> Material:
    """Returns the recordings that were enrolled in a vault.

    Raises:
        BadCorpus: none, or less than 12 s.
    """
    return _enough(Material(enrolled_recordings(home), ()), f"the vault {home.folder}")


def _enough(material: Material, where: str) -> Material:
    if material.seconds < LEAST_S:
        reasons = f" ({material.skipped[0]})" if material.skipped else ""
        raise BadCorpus(
            f"A voice is personalised from at least {LEAST_S:.0f} s of speech.",
            f"{material.seconds:.1f} s in {len(material.recordings)} usable of {where}{reasons}",
            "Record a minute or more, in files of a sentence or two.",
        )
    return material


def load_own_model(base: Path | None, *, live: bool = False) -> tuple[VoiceModel, str]:
    """Returns the model that a voice is made from, and the digest of its weights.

    Args:
        base: other weights than those shipped; None for those.
        live: for a live voice.

    Raises:
        BadWeights: the weights are missing, altered or of another model.
    """
    model = load_stream(base) if live else load_base(base)
    path = base or (STREAM_WEIGHTS if live else BASE_WEIGHTS)
    return model, hashlib.sha256(path.read_bytes()).hexdigest()


def make_own_voice(
    model: VoiceModel,
    base_sha256: str,
    adapter: Adapter | None,
    material: Material,
    encoder: SpeakerEncoder,
    path: Path,
    *,
    home: Home,
    permits: OwnPermits,
    settings: PersonaliseSettings,
    probes: Sequence[Recording] = (),
    privacy: PersonalPrivacy | None = None,
    precision: Precision = "fp32",
    on_step: Callable[[int], None] = lambda _: None,
) -> OwnVoice:
    """Makes a voice file of the speaker who consented: sealed, or plain where that was allowed.

    The vault keeps the recordings' statistics and the personal adapter, and lists the file.

    Args:
        model: the base, or a streaming model for a live voice; changed in place.
        base_sha256: its digest.
        adapter: a federation's shared adapter, None for none.
        material: of the speaker.
        encoder: speaker encoder.
        path: the voice file; replaced if it exists.
        home: of the speaker.
        permits: as `ask_permits` gives them; they say whether the file is plain.
        settings: how to train.
        probes: speech of others that the voice is tried on; what is shipped if there is none.
        privacy: of the personal adapter's training segments; the recordings are then divided as
            `divide` does, and gain, profile and judgement come from parts that are not trained
            on. The voice file holds frames of the enrolment part, which no noise protects.
        precision: in which the file's weights are stored; of an offline model only.
        on_step: told after each training step.

    Raises:
        BadAudio: too little speech in the recordings.
        BadWeights: the adapter does not fit, or makes this speaker's speech much worse.
        BudgetExhausted: the budget does not cover the training; nothing was trained.
        ConsentRefused: a permit has ended.
        UsageError: the file cannot be written.
    """
    shared_sha256 = ""
    if adapter is not None:
        attach_adapter(model, adapter)
        shared_sha256 = adapter_digest(adapter)
    parts = _parts(material.recordings, apart=privacy is not None)
    # A figure's segments stand apart: a gain or profile that they decide would tie them together.
    gain = enrolment_gain(material.recordings if privacy is None else parts.enrolment)
    profile = profile_from([level_by(one, gain) for one in parts.enrolment], encoder, model)
    held_out = segments(parts.held_out, gain=gain)
    if adapter is not None and held_out:
        require_harmless(effect_of(adapter, model, analyse(held_out), profile))
    training = segments(parts.training, gain=gain)
    planned = None
    if privacy is not None and training:
        planned = privacy.event(len(training), settings.batch_size, settings.steps)
    with charged(home, privacy, planned):
        result = personalise(
            model,
            training,
            held_out,
            profile,
            probes,
            encoder,
            permits.training,
            now_s=home.now_s(),
            settings=settings,
            privacy=privacy,
            on_step=on_step,
        )
    # A streaming model has adapters of its own; the offline ones stay beside them.
    live = bool(model.settings.encoder_ahead)
    suffix = LIVE_SUFFIX if live else ""
    home.vault.put(PERSONAL_PROFILE + suffix, profile.to_bytes(), "features")
    home.vault.put(PERSONAL_ADAPTER + suffix, _personal(model), "adapter")
    keep_source(home, known_source(profile, parts.enrolment, gain))
    export, build = (
        (export_live_voice, build_live_voice)
        if live
        else (partial(export_voice, precision=precision), partial(build_voice, precision=precision))
    )
    origin = Origin(base_sha256, shared_sha256, home.device.name)
    export_permit = permits.export
    if permits.plain:
        announced = announce_plain(home, path, export_permit)
        sha256 = export(model, profile, export_permit, origin, path, now_s=home.now_s())
        plain_is_written(home, announced, sha256)
    else:
        data = build(model, profile, export_permit, origin, now_s=home.now_s())
        sha256 = seal_voice(home, data, path, export_permit).sha256
    return OwnVoice(sha256, export_permit.consent_sha256, result)


def ask_permits(home: Home, *, plain: bool) -> OwnPermits:
    """Asks for everything that making a voice file needs, before anything is computed.

    Args:
        home: of the speaker.
        plain: for a plain file, which cannot be recalled.

    Raises:
        ConsentRefused: the consent does not cover training and the export.
    """
    training = home.permit("training")
    return OwnPermits(training, home.permit("plain_export" if plain else "conversion"))


def give_own_consent(home: Home, *, plain: bool) -> Home:
    """Returns the home with its speaker's word that the voice is their own, for a year.

    Args:
        home: of the speaker, without a consent.
        plain: whether a plain voice file is allowed too.
    """
    now_s = home.now_s()
    purposes: tuple[consent.Purpose, ...] = ("conversion", "training")
    record = consent.give(
        home.key,
        controller=CONTROLLER,
        purposes=(*purposes, "plain_export") if plain else purposes,
        given_s=now_s,
        expires_s=now_s + CONSENT_DAYS * _DAY_S,
        jurisdiction="where the speaker lives",
    )
    return home.keep_consent(record, "given")


def _personal(model: VoiceModel) -> bytes:
    """The personal adapter as the vault keeps it; empty where none was kept."""
    if model.decoder.condition.offset is None:
        return b""
    return bytes(save({name: value.numpy() for name, value in read_personal(model).items()}))


def _parts(recordings: Sequence[Recording], *, apart: bool) -> Divided:
    """What a voice is made of; without a figure to keep, what is trained on describes it too."""
    if apart:
        return divide(recordings)
    training, held_out = _split(recordings)
    return Divided(tuple(training), tuple(training), tuple(held_out))


def _split(found: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Every sixth recording is held out; of fewer than three, the last sixth of each."""
    if len(found) >= _FEWEST_WHOLE:
        held_out = list(found[_FEWEST_WHOLE - 1 :: _HELD_OUT_EVERY])
        training = [r for i, r in enumerate(found) if (i + 1 - _FEWEST_WHOLE) % _HELD_OUT_EVERY]
        return training, held_out
    cuts = [len(one.samples) * (_HELD_OUT_EVERY - 1) // _HELD_OUT_EVERY for one in found]
    before = [Recording(r.samples[:cut], r.name) for r, cut in zip(found, cuts, strict=True)]
    after = [Recording(r.samples[cut:], r.name) for r, cut in zip(found, cuts, strict=True)]
    return before, after
