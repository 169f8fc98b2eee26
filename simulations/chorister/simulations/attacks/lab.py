"""An attacker's laboratory: voices whose membership is known, and the device's training to repeat.

Attacks are measured on simulated devices, where the truth is known. Training, clipping, rounding,
noise and masks are the product's own; consent, vault and network are not needed and left out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chorister.client.consent import Permit, give, permit
from chorister.client.material import Segments, analyse
from chorister.client.prepare import enrolment_gain, level_by, segments
from chorister.client.train import TrainingMaterial, train_shared_adapter
from chorister.shared.console import progress, say
from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.privacy.ledger_file import LedgerFile
from chorister.shared.randomness import Randomness
from chorister.shared.settings import Federation, SegmentPrivacy, TrainingTask
from chorister.shared.signing import SigningKey
from chorister.shared.types import Adapter, AdapterDelta, Recording
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.base import load_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile, profile_from
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.corpus import open_corpus, screen_corpus
from chorister.simulations.embedded import embedded_corpus
from chorister.simulations.enrolment import spec_of
from chorister.simulations.network import shared_model
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.recordings import PROFILE_RECORDINGS
from chorister.simulations.scenario import read_scenario
from chorister.simulations.speakers import Piece, Skipped, Speaker, split_speaker

NOW_S = 1_700_000_000
_LIFE_S = 86_400


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker as the laboratory knows it.

    Attributes:
        name: of the speaker.
        profile: from the enrolment set.
        training: what the device may train on.
        recording_of: shape (len(training),), which recording each training segment is from.
        public: segments of other recordings, which an attacker is given.
    """

    name: str
    profile: SpeakerProfile
    training: Segments
    recording_of: NDArray[np.int64]
    public: Segments

    def material(self, rows: Sequence[int] | None = None) -> TrainingMaterial:
        """Return what the device trains on: all training segments, or some."""
        chosen = self.training if rows is None else self.training.select(rows)
        return TrainingMaterial(chosen, self.profile)


@dataclass(frozen=True, slots=True)
class Lab:
    """Voices, the model, and the settings of the federation that is attacked.

    Attributes:
        voices: at least two.
        federation: settings as the scenario states them.
        spec: layout of the shared adapter.
        model: the base with a shared adapter attached.
        permit: to train on these voices.
        data: what the voices are, for the record.
    """

    voices: tuple[Voice, ...]
    federation: Federation
    spec: SharedAdapterSpec
    model: VoiceModel
    permit: Permit
    data: str

    @property
    def start(self) -> Adapter:
        """The shared adapter that changes nothing, which every device is sent."""
        return Adapter(np.zeros(self.spec.size, np.float32), self.spec.digest)

    def train(
        self,
        material: TrainingMaterial,
        randomness: Randomness,
        *,
        private: bool,
        adapter: Adapter | None = None,
        task: TrainingTask | None = None,
        privacy: SegmentPrivacy | None = None,
    ) -> AdapterDelta:
        """Return what one device's round changes, by the device's own function.

        Args:
            material: segments and profile.
            randomness: of sampling and noise.
            private: whether DP-SGD runs, with the federation's clip and noise.
            adapter: that was sent; None for the first.
            task: steps and rates; None for the federation's.
            privacy: clip and noise if private; None for the federation's.
        """
        return train_shared_adapter(
            self.model, self.spec, adapter or self.start, material,
            task or self.federation.training,
            (privacy or self.federation.segment_privacy) if private else None,
            self.permit, NOW_S, randomness,
        )  # fmt: skip


@contextmanager
def open_lab(
    data: Path | None,
    names: Sequence[str] | None,
    *,
    most_voices: int,
    most_segments: int,
    seed: int,
) -> Iterator[Lab]:
    """Give a laboratory; its folder is gone when the block ends.

    Args:
        data: folder of speech; None for the embedded corpus.
        names: speakers to take; None for all.
        most_voices: of them, in the corpus's order.
        most_segments: of each voice, to train on.
        seed: of the laboratory's key.

    Raises:
        BadCorpus: fewer than two voices can be used.
    """
    torch.set_num_threads(1)
    scenario = read_scenario("demo", {"seed": seed})
    root = embedded_corpus() if data is None else data
    corpus = open_corpus(root, speakers=names, shift=scenario.shift)
    skipped = Skipped()
    screened = screen_corpus(corpus, skipped)
    voices = _read_voices(screened.speakers, most_voices, most_segments)
    spec = spec_of(scenario)
    folder = Path(tempfile.mkdtemp(prefix="chorister-lab-"))
    try:
        yield Lab(
            voices, scenario.federation, spec, shared_model(spec),
            _permit(folder, seed),
            f"{len(voices)} voices of "
            + ("the embedded corpus (synthetic)" if data is None else f"a {corpus.layout} corpus"),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _permit(folder: Path, seed: int) -> Permit:
    key = SigningKey.generate(SimulatedRandomness(seed, "attack laboratory"))
    consent = give(
        key, controller="attack laboratory", purposes=("training",), given_s=NOW_S,
        expires_s=NOW_S + _LIFE_S, jurisdiction="simulation",
    )  # fmt: skip
    ledger = LedgerFile(
        folder / "ledger.jsonl", owner=key.verify_key().name, federation="lab",
        clock=lambda: NOW_S,
    )  # fmt: skip
    return permit(consent, "training", device=key.verify_key(), now_s=NOW_S, ledger=ledger)


def _read_voices(
    speakers: Sequence[Speaker], most_voices: int, most_segments: int
) -> tuple[Voice, ...]:
    voices: list[Voice] = []
    with progress("Analysing voices", min(most_voices, len(speakers))) as step:
        for speaker in speakers:
            if len(voices) == most_voices:
                break
            try:
                voices.append(_read_voice(speaker, most_segments))
            except (BadAudio, BadCorpus) as error:
                say(f"speaker {speaker.name} is left out: {error.found}")
            step()
    if len(voices) < 2:
        raise BadCorpus(
            "Attacks are measured on two voices or more.", f"{len(voices)} that can be used",
            "Give more recordings of more speakers.",
        )  # fmt: skip
    return tuple(voices)


def _read_voice(speaker: Speaker, most_segments: int) -> Voice:
    split = split_speaker(speaker)
    enrolment = speaker.read_all(split.enrolment[:PROFILE_RECORDINGS], Skipped())
    gain = enrolment_gain(enrolment)
    profile = profile_from(
        [level_by(r, gain) for r in enrolment], load_speaker_encoder(), load_base()
    )
    training, recording_of = _analyse(speaker, split.training, gain, most_segments)
    public, _ = _analyse(speaker, split.held_out, gain, most_segments)
    if len(training) < 2 or not len(public):
        raise BadCorpus(
            "A voice needs segments to train on and others to be known by.",
            f"{len(training)} and {len(public)} of {speaker.name}", "Give more speech.",
        )  # fmt: skip
    return Voice(speaker.name, profile, training, recording_of, public)


def _analyse(
    speaker: Speaker, pieces: Sequence[Piece], gain: float, most: int
) -> tuple[Segments, NDArray[np.int64]]:
    """Return a part's segments with the number of the recording that each is from."""
    found: list[Recording] = []
    owner: list[int] = []
    for number, recording in enumerate(speaker.read_all(pieces, Skipped())):
        own = segments([recording], gain=gain)
        found += own
        owner += [number] * len(own)
        if len(found) >= most:
            break
    return analyse(found[:most]), np.array(owner[:most], dtype=np.int64)
