"""One's own recordings to a voice file: consent, enrolment, personal adapter, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chorister.client import consent
from chorister.client.adapter_file import attach_adapter
from chorister.client.export import Origin, export_voice
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.client.personalise import (
    Personalised,
    PersonaliseSettings,
    personalise,
)
from chorister.client.prepare import enrolment_gain, level_by, segments
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BadAudio, BadCorpus, UsageError
from chorister.shared.files import write_atomically
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey
from chorister.shared.types import Adapter, Recording
from chorister.shared.voice.audio import load_recording
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import SpeakerEncoder

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
FEDERATION = "none"
CONTROLLER = "the speaker, on this device alone"
CONSENT_DAYS = 365
LEAST_S = 12.0
_HELD_OUT_EVERY = 6
_FEWEST_WHOLE = 3
_DAY_S = 86_400
_PURPOSES: tuple[consent.Purpose, ...] = ("conversion", "plain_export", "training")


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


def read_own_recordings(paths: Sequence[Path]) -> Material:
    """Reads files, and all audio files of folders.

    Raises:
        BadCorpus: no such file or folder, or less than 12 s that can be used.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadCorpus("The recordings must exist.", f"no {path}", "Check the path.")
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [f for f in found if not path.is_dir() or f.suffix.lower() in AUDIO_SUFFIXES]
    recordings, skipped = [], []
    for file in files:
        try:
            recordings.append(load_recording(file))
        except BadAudio as error:
            skipped.append(error)
    material = Material(tuple(recordings), tuple(skipped))
    if material.seconds < LEAST_S:
        reasons = f" ({skipped[0]})" if skipped else ""
        raise BadCorpus(
            f"A voice is personalised from at least {LEAST_S:.0f} s of speech.",
            f"{material.seconds:.1f} s in {len(recordings)} usable of {len(files)} files{reasons}",
            "Record a minute or more, in files of a sentence or two.",
        )
    return material


def make_own_voice(
    model: VoiceModel,
    base_sha256: str,
    adapter: Adapter | None,
    material: Material,
    encoder: SpeakerEncoder,
    path: Path,
    *,
    now_s: int,
    settings: PersonaliseSettings,
    privacy: PersonalPrivacy | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> OwnVoice:
    """Makes a voice file of the speaker who says that the recordings are their own.

    Beside it lie the consent (PATH.consent.json) and the ledger of what was done under it
    (PATH.ledger.jsonl). The recordings' statistics and the personal adapter stay on this device,
    except for what the voice file holds.

    Args:
        model: the base; changed in place.
        base_sha256: its digest.
        adapter: a federation's shared adapter, None for none.
        material: of the speaker.
        encoder: speaker encoder.
        path: the voice file; replaced if it exists.
        now_s: Unix time.
        settings: how to train.
        privacy: of the personal adapter alone: the voice file holds the speaker's statistics too,
            which no noise protects.
        on_step: told after each training step.

    Raises:
        BadAudio: too little speech in the recordings.
        BadWeights: the adapter does not fit.
        UsageError: the files cannot be written.
    """
    shared_sha256 = ""
    if adapter is not None:
        attach_adapter(model, adapter)
        shared_sha256 = adapter_digest(adapter)
    gain = enrolment_gain(material.recordings)
    training, held_out = _split(level_by(recording, gain) for recording in material.recordings)
    profile = profile_from(training, encoder)
    key = SigningKey.generate(SystemRandomness())
    try:
        record = _give_consent(key, path, now_s)
        ledger = LedgerFile(
            _beside(path, ".ledger.jsonl"), owner=key.verify_key().name, federation=FEDERATION
        )
    except OSError as error:
        raise UsageError(
            "The output folder must be writable.",
            f"{path.parent}: {error.strerror or error}",
            "Create it, free some space or choose another place.",
        ) from error

    def permit(purpose: consent.Purpose) -> consent.Permit:
        return consent.permit(record, purpose, device=key.verify_key(), now_s=now_s, ledger=ledger)

    result = personalise(
        model,
        segments(training),
        segments(held_out),
        profile,
        (),
        encoder,
        permit("training"),
        now_s=now_s,
        settings=settings,
        privacy=privacy,
        on_step=on_step,
    )
    origin = Origin(base_sha256, shared_sha256, key.verify_key().name)
    allowed = permit("plain_export")
    sha256 = export_voice(model, profile, allowed, origin, path, now_s=now_s)
    ledger.append("export", voice=sha256, consent=record.sha256)
    return OwnVoice(sha256, record.sha256, result)


def own_voice_files(path: Path) -> tuple[Path, ...]:
    """The files that `make_own_voice` writes."""
    return path, _beside(path, ".consent.json"), _beside(path, ".ledger.jsonl")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _split(recordings: Iterable[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Every sixth recording is held out; of fewer than three, the last sixth of each."""
    found = list(recordings)
    if len(found) >= _FEWEST_WHOLE:
        held_out = found[_FEWEST_WHOLE - 1 :: _HELD_OUT_EVERY]
        training = [r for i, r in enumerate(found) if (i + 1 - _FEWEST_WHOLE) % _HELD_OUT_EVERY]
        return training, held_out
    cuts = [len(one.samples) * (_HELD_OUT_EVERY - 1) // _HELD_OUT_EVERY for one in found]
    before = [Recording(r.samples[:cut], r.name) for r, cut in zip(found, cuts, strict=True)]
    after = [Recording(r.samples[cut:], r.name) for r, cut in zip(found, cuts, strict=True)]
    return before, after


def _give_consent(key: SigningKey, path: Path, now_s: int) -> consent.ConsentRecord:
    record = consent.give(
        key,
        controller=CONTROLLER,
        purposes=_PURPOSES,
        given_s=now_s,
        expires_s=now_s + CONSENT_DAYS * _DAY_S,
        jurisdiction="where the speaker lives",
        withdrawal=f"delete {path.name} and every copy of it: a plain file cannot be recalled",
    )
    text = json.dumps(record.to_plain(), indent=2, sort_keys=True) + "\n"
    write_atomically(_beside(path, ".consent.json"), text.encode())
    return record
